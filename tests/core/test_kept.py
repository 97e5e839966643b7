"""A run that a reel keeps: stopped anywhere it goes on bit for bit; rerolled, picked, extended."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import LATENT_HW, SHAPE, search_config, search_tools

from stream_t1_core.config import Budget, EarlyPruning, Refine, StreamConfig
from stream_t1_core.cues import Cue
from stream_t1_core.events import Event, FramesSettled, StepDone
from stream_t1_core.finish import Video, finish
from stream_t1_core.generate import stream
from stream_t1_core.kept import AskedReel, kept
from stream_t1_core.reel import Reel
from stream_t1_core.report import Report
from stream_t1_core.run_record import read_report
from stream_t1_core.takes import ReelRequest
from stream_t1_core.tools import PromptSwitch, Tools

pytestmark = pytest.mark.usefixtures("no_grad")

CONFIG = search_config(latent_frames=15)


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def rows(seed: int) -> Tensor:
    return torch.randn(1, 4, SHAPE.text_dim, generator=torch.Generator().manual_seed(seed))


CUES = (Cue(0, rows(2), "first", False), Cue(3, rows(9), "second", True))


class Stop(Exception):
    """What a test interrupts a run with."""


def run(
    folder: Path | None,
    config: StreamConfig = CONFIG,
    stop_at_step: int | None = None,
    cues: tuple[Cue, ...] = CUES,
    **request: object,
) -> tuple[Video, Report, int]:
    """Video, report, and denoiser calls made (steps of new chunks)."""
    asked = folder and AskedReel(folder, ReelRequest(**request))
    tools = search_tools()
    report, flows = Report(), []
    plain_flow = tools.model.flow
    tools.model.flow = lambda *args: flows.append(1) or plain_flow(*args)
    with kept(asked, config, cues, None, {}, tools.model.backbone, LATENT_HW) as going:
        tools = prompted(tools, going.cues)

        def emit(event: Event) -> None:
            going(event)
            report(event)
            if isinstance(event, StepDone) and event.done >= (stop_at_step or math.inf):
                raise Stop

        *_, state = stream(tools, going.config, LATENT_HW, emit, going.replay)
        return finish(state, tools, going.config, emit), report, len(flows)


def prompted(tools: Tools, cues: Sequence[Cue]) -> Tools:
    first, *later = cues
    switches = [PromptSwitch(c.first_chunk, c.rows, c.prompt, c.keep_sinks) for c in later]
    return replace(tools, text=tools.model.encode_text(first.rows), switches=switches)


def timeless(report: Report) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in report.records]


def seeds(report: Report) -> list[int]:
    return report.records[-1]["seeds"]


CALLS_PER_CHUNK = CONFIG.denoiser_calls // CONFIG.chunks


@pytest.mark.parametrize("stops", [[3], [20], [37, 41], [60, 80, 85], [89]])
def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, stops: list[int]) -> None:
    whole, told, _ = run(None)
    for step in stops:
        with pytest.raises(Stop):
            run(tmp_path / "reel", stop_at_step=step)
    video, again, flows = run(tmp_path / "reel")
    assert torch.equal(video.latent, whole.latent) and torch.equal(video.frames, whole.frames)
    assert timeless(again) == timeless(told)
    done = stops[-1] // CALLS_PER_CHUNK
    assert flows == _flows(range(done, CONFIG.chunks))


@pytest.mark.parametrize(
    "refine", [Refine("ensemble", passes=2, members=2, vote="mean"), Refine("extended", passes=3)]
)
def test_a_refined_run_goes_on_bit_for_bit(tmp_path: Path, refine: Refine) -> None:
    config = replace(CONFIG, refine=refine, search=replace(CONFIG.search, standardise=True))
    whole, told, all_flows = run(None, config)
    records = [record for record in told.records if record["event"] == "chunk_done"]
    assert all(sum(map(accepted, record["candidates"])) for record in records[:2])
    each = config.denoiser_calls // config.chunks
    stops = [16 + 3, 2 * each + 20, 4 * each + 17]  # within refining the first, the third, the last
    for step in stops:
        with pytest.raises(Stop):
            run(tmp_path / "reel", config, stop_at_step=step)
    video, again, flows = run(tmp_path / "reel", config)
    assert torch.equal(video.latent, whole.latent) and torch.equal(video.frames, whole.frames)
    assert timeless(again) == timeless(told)
    assert flows == _flows(range(4, 5)) + 2 * refine.passes
    assert all_flows == _flows(range(5)) + 5 * 2 * refine.passes


@pytest.mark.parametrize("standardise", [False, True])
def test_a_run_pruned_early_goes_on_bit_for_bit(tmp_path: Path, standardise: bool) -> None:
    plan = replace(CONFIG.search, standardise=standardise, early=EarlyPruning(2, 0.25))
    config = replace(CONFIG, search=plan)
    whole, told, _ = run(None, config)
    for step in (7, 20):
        with pytest.raises(Stop):
            run(tmp_path / "reel", config, stop_at_step=step)
    video, again, _ = run(tmp_path / "reel", config)
    assert torch.equal(video.latent, whole.latent) and torch.equal(video.frames, whole.frames)
    assert timeless(again) == timeless(told)
    done = [record for record in again.records if record["event"] == "chunk_done"]
    assert all(len(record["pruned_early"]) == 1 for record in done)


def accepted(candidate: dict) -> int:
    return candidate["refined"]["accepted"] if candidate["refined"] else 0


def test_pick_takes_a_candidate_as_it_went_on(tmp_path: Path) -> None:
    """What was refined stays refined, in the picked chunk and in the takes that come of it."""
    config = replace(CONFIG, refine=Refine("ensemble", passes=2, members=2, vote="mean"))
    first, told, _ = run(tmp_path / "reel", config)
    record = [r for r in told.records if r["event"] == "chunk_done"][1]
    best = read_report(str(told)).path[1]
    assert accepted(record["candidates"][best])
    pruned = next(i for i, c in enumerate(record["candidates"]) if not c["kept"])
    videos = {}
    for candidate in (pruned, best):  # each from the newest take, which the other one has won
        asked = {"action": "pick", "chunk": 1, "candidate": candidate}
        videos[candidate], _, flows = run(tmp_path / "reel", config, **asked)
        assert flows
        again, _, flows = run(tmp_path / "reel", config)
        assert flows == 0 and torch.equal(again.frames, videos[candidate].frames)
    assert torch.equal(videos[best].latent[:, :, 3:6], first.latent[:, :, 3:6])
    assert not torch.equal(videos[pruned].latent, videos[best].latent)


def _flows(chunks: range) -> int:
    """Batches sent to the model: one per step."""
    return 4 * len(chunks)


@pytest.mark.parametrize("budget", [Budget("total denoiser calls", 60.0), Budget(adaptive=True)])
def test_a_budget_of_calls_goes_on_bit_for_bit(tmp_path: Path, budget: Budget) -> None:
    config = replace(CONFIG, budget=budget)
    whole, told, _ = run(None, config)
    with pytest.raises(Stop):
        run(tmp_path / "reel", config, stop_at_step=40)
    video, again, _ = run(tmp_path / "reel", config)
    assert torch.equal(video.latent, whole.latent)
    spent = [[r["budget"]["calls"] for r in x.records[1:-1]] for x in (told, again)]
    assert spent[0] == spent[1] and sum(spent[0]) < CONFIG.denoiser_calls


def test_a_finished_reel_gives_its_video_without_denoising(tmp_path: Path) -> None:
    first, told, _ = run(tmp_path / "reel")
    video, again, flows = run(tmp_path / "reel", replace(CONFIG, seed=7))
    assert flows == 0
    assert torch.equal(video.frames, first.frames) and timeless(again) == timeless(told)


def test_a_longer_video_begins_with_the_one_that_was_seen(tmp_path: Path) -> None:
    first, _, _ = run(tmp_path / "reel")
    video, report, flows = run(tmp_path / "reel", replace(CONFIG, latent_frames=21))
    assert video.latent.shape[2] == 21
    assert torch.equal(video.latent[:, :, :15], first.latent)
    assert torch.equal(video.frames[: len(first.frames)], first.frames)
    assert flows == 2 * 4  # chunks and steps
    again, _, none = run(tmp_path / "reel", replace(CONFIG, latent_frames=21))
    assert none == 0 and torch.equal(again.latent, video.latent)


def test_a_longer_video_may_have_another_prompt(tmp_path: Path) -> None:
    run(tmp_path / "reel")
    other = (Cue(0, rows(5), "third", False),)
    longer = replace(CONFIG, latent_frames=18)
    video, report, _ = run(tmp_path / "reel", longer, cues=other)
    prompts = [record["prompt"] for record in report.records if record["event"] == "chunk_done"]
    assert prompts == [None, None, None, "second", None, "third"]
    again, _, flows = run(tmp_path / "reel", longer, cues=other)
    assert flows == 0 and torch.equal(again.latent, video.latent)


def test_reroll_keeps_what_was_seen_before_and_changes_the_rest(tmp_path: Path) -> None:
    first, told, _ = run(tmp_path / "reel")
    video, report, flows = run(tmp_path / "reel", action="reroll", chunk=2)
    assert torch.equal(video.latent[:, :, :6], first.latent[:, :, :6])
    assert not torch.equal(video.latent[:, :, 6:9], first.latent[:, :, 6:9])
    assert seeds(report)[:2] == seeds(told)[:2] and flows == 3 * 4
    third, _, _ = run(tmp_path / "reel", action="reroll", chunk=2)
    assert not torch.equal(third.latent, video.latent)
    back, _, flows = run(tmp_path / "reel", take=1)
    assert flows == 0 and torch.equal(back.latent, first.latent)
    newest, _, flows = run(tmp_path / "reel")
    assert flows == 0 and torch.equal(newest.latent, third.latent)


def test_a_stopped_reroll_goes_on_bit_for_bit(tmp_path: Path) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b")
    whole, _, _ = run(tmp_path / "a", action="reroll", chunk=1)
    with pytest.raises(Stop):
        run(tmp_path / "b", action="reroll", chunk=1, stop_at_step=61)
    video, _, flows = run(tmp_path / "b")
    assert torch.equal(video.latent, whole.latent) and torch.equal(video.frames, whole.frames)
    assert flows == 2 * 4


def test_pick_replaces_the_winner_without_denoising_it(tmp_path: Path) -> None:
    first, told, _ = run(tmp_path / "reel")
    tried = [r for r in told.records if r["event"] == "chunk_done"][2]["candidates"]
    won = Reel(tmp_path / "reel", {}).winner(Reel(tmp_path / "reel", {}).take(1))[2]
    for candidate, about in enumerate(tried):
        request = {"action": "pick", "chunk": 2, "candidate": candidate, "take": 1}
        if candidate == won:
            with pytest.raises(ValueError, match="has won chunk 3 already"):
                run(tmp_path / "reel", **request)
            continue
        video, report, flows = run(tmp_path / "reel", **request)
        made = [r for r in report.records if r["event"] == "chunk_done"][2]
        assert made["chosen"] == "artist"
        assert [c["kept"] for c in made["candidates"]] == [i == candidate for i in range(4)]
        assert seeds(report)[2] == about["seed"] and flows == 2 * 4
        again, _, none = run(tmp_path / "reel")
        assert none == 0 and torch.equal(again.frames, video.frames)


def test_locked_chunks_stay(tmp_path: Path) -> None:
    first, _, _ = run(tmp_path / "reel")
    longer = replace(CONFIG, latent_frames=18)
    with pytest.raises(ValueError, match="locked"):
        run(tmp_path / "reel", longer, action="reroll", chunk=1, lock=3)
    video, _, _ = run(tmp_path / "reel", longer, action="reroll", chunk=4, lock=3)
    assert torch.equal(video.latent[:, :, :12], first.latent[:, :, :12])
    again, _, flows = run(tmp_path / "reel", longer)
    assert flows == 0 and torch.equal(again.latent, video.latent)


def test_the_seed_of_the_reel_wins(tmp_path: Path) -> None:
    whole, _, _ = run(None)
    with pytest.raises(Stop):
        run(tmp_path / "reel", stop_at_step=40)
    video, report, _ = run(tmp_path / "reel", replace(CONFIG, seed=1234))
    assert torch.equal(video.latent, whole.latent)
    assert report.records[0]["settings"]["seed"] == CONFIG.seed


def test_chunks_told_again_are_the_ones_that_were_told(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "reel", stop_at_step=40)
    _, report, _ = run(tmp_path / "reel")
    done = [record for record in report.records if record["event"] == "chunk_done"]
    assert [record["chunk"] for record in done] == list(range(CONFIG.chunks))


@pytest.mark.parametrize("refine", [None, Refine("extended")])
def test_a_snapshot_goes_on_without_making_anything_again(
    tmp_path: Path, refine: Refine | None
) -> None:
    """Long runs that keep no whole video: the same settled frames, no context pass, no decoding."""
    plan = replace(CONFIG.search, span_chunks=2)
    config = replace(CONFIG, search=plan, whole=False, latent_frames=24, refine=refine)

    def frames(stop_at_step: int | None = None, **asked: object) -> tuple[list[Tensor], int]:
        tools, settled, passes = search_tools(), [], []
        context_pass = tools.model.context_pass
        tools.model.context_pass = lambda *args: passes.append(1) or context_pass(*args)
        reel = AskedReel(tmp_path / asked.pop("name"), snapshot=True)
        with kept(reel, config, CUES, None, {}, tools.model.backbone, LATENT_HW) as going:
            tools = prompted(tools, going.cues)

            def emit(event: Event) -> None:
                going(event)
                if isinstance(event, FramesSettled):
                    settled.append((event.first, event.frames))
                if isinstance(event, StepDone) and event.done >= (stop_at_step or math.inf):
                    raise Stop

            with suppress(Stop):
                for state in stream(tools, going.config, LATENT_HW, emit, going.replay):
                    going.keep(state)
                finish(state, tools, going.config, emit)
        return settled, len(passes)

    whole, _ = frames(name="whole")
    before, _ = frames(stop_at_step=110, name="cut")
    after, passes = frames(name="cut")
    assert [first for first, _ in before + after] == [first for first, _ in whole]
    for (_, ours), (_, theirs) in zip(before + after, whole, strict=True):
        assert torch.equal(ours, theirs)
    left = config.chunks - 110 // (config.denoiser_calls // config.chunks)
    assert passes == 2 * left  # two survivors
    once_more, passes = frames(name="cut")
    assert passes == 0 and torch.equal(once_more[-1][1], whole[-1][1])


def test_a_snapshot_of_a_whole_video_is_refused(tmp_path: Path) -> None:
    asked = AskedReel(tmp_path / "reel", snapshot=True)
    backbone = search_tools().model.backbone
    with (
        pytest.raises(ValueError, match="Reel: 'snapshot'.*keep_images"),
        kept(asked, CONFIG, CUES, None, {}, backbone, LATENT_HW),
    ):
        pass


def test_a_pick_after_a_lock_goes_on_from_the_beam_that_is_left(tmp_path: Path) -> None:
    """The picked chunk has candidates of beams that the lock has ended."""
    _, told, _ = run(tmp_path / "reel")
    run(tmp_path / "reel", lock=2)
    tried = [r for r in told.records if r["event"] == "chunk_done"][2]["candidates"]
    picked = 0
    for candidate, about in enumerate(tried):
        try:
            request = {"action": "pick", "chunk": 2, "candidate": candidate, "take": 1}
            _, report, _ = run(tmp_path / "reel", **request)
        except ValueError as error:  # from another beam, or the winner itself
            assert "does not come from the locked" in str(error) or "has won" in str(error)
        else:
            picked += 1
            assert seeds(report)[2] == about["seed"]
    assert picked == 1


def test_a_mistyped_name_leaves_no_reel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'mistyped' has no chunks yet"):
        run(tmp_path / "mistyped", action="reroll", chunk=1)
    assert not (tmp_path / "mistyped").exists()
