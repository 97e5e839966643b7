"""The refiner: what is accepted changes the video, what is not changes nothing, and it is told."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import LATENT_HW, Brightness, Steadiness, search_config, search_tools, toy_tools

from stream_t1_core import sinks
from stream_t1_core.check import check
from stream_t1_core.config import Memory, Refine, Schedule, Search, StreamConfig
from stream_t1_core.events import ChunkDone, Event, StepDone, SurvivorsRefined
from stream_t1_core.finish import Video
from stream_t1_core.footprint import context_frames
from stream_t1_core.generate import generate, stream
from stream_t1_core.kv import Route, live_bytes
from stream_t1_core.refine import seed_of, vote
from stream_t1_core.report import Report
from stream_t1_core.rewards.base import Clips, Reward
from stream_t1_core.state import StreamState
from stream_t1_core.tools import PromptSwitch, Tools

pytestmark = pytest.mark.usefixtures("no_grad")

CONFIG = search_config(latent_frames=9)
METHODS = (
    Refine("iterative", strength=0.6),
    Refine("ensemble", members=3),
    Refine("ensemble", members=3, vote="mean"),
    Refine("extended"),
)


@pytest.fixture
def no_grad():
    with torch.inference_mode():
        yield


class Alone:
    """A reward with a bonus for what is scored alone, as refined chunks are."""

    def __init__(self, reward: Reward, bonus: float) -> None:
        self.name, self.reward, self.bonus = reward.name, reward, bonus

    def __call__(self, clips: Clips) -> Tensor:
        return self.reward(clips) + (self.bonus if len(clips.frames) == 1 else 0.0)


def tools_with(bonus: float) -> Tools:
    return toy_tools(Alone(Brightness(), bonus), Alone(Steadiness(), bonus))


def made(tools: Tools, config: StreamConfig) -> tuple[Video, list[Event]]:
    events: list[Event] = []
    return generate(tools, config, LATENT_HW, events.append), events


def of(kind: type, events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def notes(events: list[Event]) -> list:
    """What is told of every refined survivor: (candidate, refinement)."""
    told = [candidate for done in of(ChunkDone, events) for candidate in done.candidates]
    return [(candidate, candidate.refined) for candidate in told if candidate.refined]


@pytest.mark.parametrize("unit", METHODS, ids=lambda unit: f"{unit.method}-{unit.vote}")
def test_an_accepted_pass_changes_the_video(unit: Refine) -> None:
    plain, _ = made(tools_with(1e3), CONFIG)
    video, events = made(tools_with(1e3), replace(CONFIG, refine=unit))
    assert not torch.equal(video.latent[:, :, :3], plain.latent[:, :, :3])
    for candidate in (c for done in of(ChunkDone, events) for c in done.candidates):
        assert (candidate.refined is None) == (candidate.rank is None)
    assert {(r.passes, r.accepted) for _, r in notes(events)} == {(1, 1)}
    assert all(r.fused > c.fused for c, r in notes(events))


@pytest.mark.parametrize("unit", METHODS, ids=lambda unit: f"{unit.method}-{unit.vote}")
def test_a_rejected_pass_changes_nothing(unit: Refine) -> None:
    """Not the video, not the tallies that later chunks are compared by, not the scores."""
    plan = replace(CONFIG.search, standardise=True, tau=1.0)
    config = replace(CONFIG, search=plan, latent_frames=12)
    plain, before = made(tools_with(-1e9), config)
    video, events = made(tools_with(-1e9), replace(config, refine=replace(unit, passes=2)))
    assert torch.equal(video.latent, plain.latent) and torch.equal(video.frames, plain.frames)
    for mine, theirs in zip(of(ChunkDone, events), of(ChunkDone, before), strict=True):
        assert mine.candidates != theirs.candidates  # it is told that there were passes
        assert tuple(replace(c, refined=None) for c in mine.candidates) == theirs.candidates
    assert {(r.passes, r.accepted) for _, r in notes(events)} == {(2, 0)}
    assert all(r.fused == c.fused and r.parts == c.parts for c, r in notes(events))
    assert not of(SurvivorsRefined, events)


def test_no_passes_are_as_no_refiner() -> None:
    plain, _ = made(search_tools(), CONFIG)
    video, events = made(search_tools(), replace(CONFIG, refine=Refine("iterative", passes=0)))
    assert torch.equal(video.latent, plain.latent) and not notes(events)


def test_the_fused_score_never_falls_and_the_same_seed_gives_the_same_video() -> None:
    config = replace(CONFIG, refine=Refine("ensemble", passes=3, members=3))
    video, events = made(search_tools(), config)
    again, _ = made(search_tools(), config)
    assert torch.equal(video.latent, again.latent) and torch.equal(video.frames, again.frames)
    assert len(notes(events)) == 2 * CONFIG.chunks
    assert all(r.fused >= c.fused for c, r in notes(events))
    assert all((r.fused == c.fused) == (r.accepted == 0) for c, r in notes(events))


class Rising:
    """Better every time it is asked."""

    name = "rising"

    def __init__(self) -> None:
        self.asked = 0.0

    def __call__(self, clips: Clips) -> Tensor:
        self.asked += 1
        return torch.full((len(clips.frames),), self.asked)


def test_one_beam_of_plain_streaming_can_be_refined_pass_after_pass() -> None:
    config = StreamConfig(latent_frames=9, search=Search(1, 1), refine=Refine(passes=2))
    plain, _ = made(toy_tools(Rising()), replace(config, refine=None))
    video, events = made(toy_tools(Rising()), config)
    assert [(c.fused, r.fused, r.accepted) for c, r in notes(events)] == [
        (1.0, 3.0, 2),
        (4.0, 6.0, 2),
        (7.0, 9.0, 2),
    ]
    assert not torch.equal(video.latent[:, :, :3], plain.latent[:, :, :3])


class Alike:
    """A hundredth between one candidate and the next, and half more for what is scored alone."""

    name = "alike"

    def __call__(self, clips: Clips) -> Tensor:
        count = len(clips.frames)
        return 0.01 * torch.arange(count) + (0.5 if count == 1 else 0.0)


def test_gains_tell_of_the_first_chunk_what_standard_deviations_do_not() -> None:
    """Its candidates are alike: a gain of half was told as 45 deviations, and no more."""
    plan = replace(CONFIG.search, standardise=True)
    config = replace(CONFIG, latent_frames=3, search=plan, refine=Refine())
    _, events = made(toy_tools(Alike(), Alike()), config)
    for before, after in notes(events):
        gained = {name: getattr(after, name) - getattr(before, name) for name in after.gain}
        assert after.gain == gained and set(gained) == {"short", "long", "fused"}
        assert after.gain["short"] == after.gain["long"] == pytest.approx(0.48, abs=0.02)
        assert after.gain["fused"] > 40


def test_a_score_that_there_is_not_gains_nothing() -> None:
    config = StreamConfig(latent_frames=3, search=Search(1, 1), refine=Refine())
    _, events = made(toy_tools(Rising()), config)
    [(_, told)] = notes(events)
    assert told.gain == {"short": 1.0, "long": None, "fused": 1.0}


class Falling(Rising):
    """Worse every time it is asked."""

    name = "falling"

    def __call__(self, clips: Clips) -> Tensor:
        return -super().__call__(clips)


def test_a_first_chunk_without_a_scale_yet_is_not_refined_to_the_worse() -> None:
    """Standardised, the only candidate of a run's first chunk and what becomes of it score 0."""
    search = Search(1, 1, standardise=True)
    config = StreamConfig(latent_frames=3, search=search, refine=Refine(passes=2))
    for reward, accepted in ((Falling(), 0), (Rising(), 2)):
        _, events = made(toy_tools(reward), config)
        [(candidate, refined)] = notes(events)
        assert (candidate.fused, refined.fused, refined.accepted) == (0.0, 0.0, accepted)


def states(tools: Tools, config: StreamConfig) -> list[StreamState]:
    return [*stream(tools, config, LATENT_HW)]


def test_scores_and_routes_of_a_chunk_are_those_of_what_goes_on() -> None:
    config = search_config(latent_frames=15, refine=Refine(passes=2, strength=0.6))
    events: list[Event] = []
    changed = 0
    for state in stream(tools_with(1e3), config, LATENT_HW, events.append):
        told = of(ChunkDone, events)[-1].candidates
        for beam in state.beams:
            [mine] = [c for c in told if c.rank == beam.rank]
            scores, tip = beam.chunk.scores, beam.chunk.parent
            assert (scores.fused, scores.short, scores.long, scores.parts) == (
                mine.refined.fused,
                mine.refined.short,
                mine.refined.long,
                mine.refined.parts,
            )
            assert beam.chunk.route == (mine.route and Route(mine.route))
            if tip is None:
                continue
            total, count = tip.shorts
            assert beam.chunk.route is sinks.decide(
                scores.short, scores.long, total / count, tip.scores.long, config.memory
            )
            assert beam.chunk.shorts == (total + scores.short, count + 1)
            changed += mine.refined.accepted
    assert changed


def test_the_decoder_goes_on_from_the_refined_latent() -> None:
    tools = tools_with(1e3)
    video, events = made(tools, replace(CONFIG, refine=Refine(strength=0.6)))
    assert of(SurvivorsRefined, events)
    whole, _ = tools.critic.decoder.decode(video.latent, None)
    torch.testing.assert_close(video.frames, whole[0], atol=1e-5, rtol=0)


def test_what_has_changed_is_shown_with_its_pictures() -> None:
    _, events = made(tools_with(1e3), replace(CONFIG, refine=Refine()))
    for shown in of(SurvivorsRefined, events):
        [done] = [d for d in of(ChunkDone, events) if d.chunk == shown.chunk]
        accepted = [i for i, c in enumerate(done.candidates) if c.refined and c.refined.accepted]
        assert [*shown.latents] == [*shown.frames] == accepted


NARROW = Memory(window_frames=6, routing=False)  # a sink, and one chunk beside the one being made


def test_extended_attends_to_more_and_remembers_no_more_than_it_may() -> None:
    config = StreamConfig(
        latent_frames=24, memory=NARROW, search=Search(1, 1), refine=Refine("extended")
    )
    tools, seen = search_tools(), []
    plain_layout = tools.model.layout

    def layout(*where):
        lay_out = plain_layout(*where)

        def seeing(chunks):
            seen.append([chunk.first_frame for chunk in chunks])
            return lay_out(chunks)

        return seeing

    tools.model.layout = layout
    bytes_told: list[int] = []
    for state in stream(
        tools,
        config,
        LATENT_HW,
        lambda e: bytes_told.append(e.kv_bytes) if isinstance(e, ChunkDone) else None,
    ):
        [beam] = state.beams
        assert len(beam.older) == max(0, min(3, state.chunk - 1))
        assert bytes_told[-1] == live_bytes(beam.wide_kv) > live_bytes(beam.kv) * bool(beam.older)
    last = seen[-3:]  # candidates, refiner, context pass
    assert last == [[0], [0, 12, 15, 18], [0]]
    assert bytes_told[-1] == bytes_told[-2]


def test_only_extended_remembers_what_has_left_the_window() -> None:
    plan = {"latent_frames": 15, "memory": NARROW, "search": Search(1, 1)}
    for unit in (None, Refine("iterative"), Refine("ensemble", members=3)):
        config = StreamConfig(**plan, refine=unit)
        assert all(not beam.older for s in states(search_tools(), config) for beam in s.beams)
        assert context_frames(config) == context_frames(replace(config, refine=None))
    wide = StreamConfig(**plan, refine=Refine("extended", wider_chunks=2))
    rotated = 3  # half of the other six: keys only
    assert context_frames(wide) == context_frames(replace(wide, refine=None)) + 6 + rotated


def test_a_new_prompt_forgets_what_was_remembered_under_the_old_one() -> None:
    config = StreamConfig(
        latent_frames=18, memory=NARROW, search=Search(1, 1), refine=Refine("extended")
    )
    rows = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(5))
    tools = replace(search_tools(), switches=[PromptSwitch(4, rows)])
    lengths = [len(state.beams[0].older) for state in states(tools, config)]
    assert lengths == [0, 1, 2, 3, 1, 2]


def test_calls_are_counted_and_each_can_be_cancelled() -> None:
    unit = Refine("ensemble", passes=2, members=2, strength=0.6, vote="mean")
    config = StreamConfig(latent_frames=6, search=Search(1, 1), refine=unit)
    assert unit.schedule(config.schedule).steps == (600, 500, 250)
    assert config.refining_calls == 2 * 2 * 3
    tools, flows = search_tools(), []
    flow = tools.model.flow
    tools.model.flow = lambda noisy, *rest: flows.append(len(noisy)) or flow(noisy, *rest)
    _, events = made(tools, config)
    done = [event.done for event in of(StepDone, events)]
    passes = config.chunks  # of context
    assert config.denoiser_calls == sum(flows) + passes == 2 * (4 + 12 + 1)
    assert done == sorted(done) and done[-1] == config.denoiser_calls - 1
    assert len(done) == len(flows) + passes

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.done >= 6:
            raise Stop

    flows.clear()
    with pytest.raises(Stop):
        generate(tools, config, LATENT_HW, stop)
    assert sum(flows) == 6


class Broken(Brightness):
    """No number for what is scored alone."""

    def __call__(self, clips: Clips) -> Tensor:
        return super().__call__(clips) * (torch.nan if len(clips.frames) == 1 else 1)


def test_a_pass_without_a_finite_score_is_rejected_or_strictly_ends_the_run() -> None:
    tools, config = toy_tools(Broken(), Steadiness()), replace(CONFIG, refine=Refine())
    plain, _ = made(tools, CONFIG)
    video, events = made(tools, config)
    assert torch.equal(video.latent, plain.latent)
    assert {r.accepted for _, r in notes(events)} == {0}
    strict = replace(config, search=replace(CONFIG.search, strict=True))
    failed = "'short.brightness' failed on a refined survivor of chunk 1"
    with pytest.raises(RuntimeError, match=failed):
        made(tools, strict)


def test_a_latent_that_is_not_finite_is_rejected() -> None:
    tools, refining = tools_with(1e3), []
    flow = tools.model.flow

    def broken(noisy: Tensor, timesteps: Tensor, *rest: object) -> Tensor:
        low = float(timesteps[0]) < 500  # a level that only the refiner asks for
        refining.append(low)
        return flow(noisy, timesteps, *rest) * (torch.nan if low else 1)

    tools.model.flow = broken
    plain, _ = made(tools_with(1e3), CONFIG)
    video, events = made(tools, replace(CONFIG, refine=Refine(strength=0.1)))
    assert any(refining) and torch.equal(video.latent, plain.latent)
    assert {r.accepted for _, r in notes(events)} == {0}


class Silent:
    name = "silent"

    def __call__(self, clips: Clips) -> Tensor:
        return torch.full((len(clips.frames),), torch.nan)


def test_a_chunk_that_no_reward_has_a_number_for_is_not_refined() -> None:
    video, events = made(toy_tools(Silent()), replace(CONFIG, memory=NARROW, refine=Refine()))
    assert not notes(events) and not of(SurvivorsRefined, events)


def test_a_refiner_without_rewards_is_an_error() -> None:
    with pytest.raises(ValueError, match="Refiner: no reward.*short_reward or long_reward"):
        check(toy_tools(), StreamConfig(refine=Refine()), LATENT_HW)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "magic"}, "method is 'magic'; one of iterative, ensemble, extended"),
        ({"vote": "loudest"}, "vote is 'loudest'; one of medoid, mean"),
        ({"passes": -1}, "-1 passes"),
        ({"strength": 0.0}, "strength is 0.0; 0.01 to 1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"members": 0}, "members 0"),
        ({"wider_chunks": 0}, "wider chunks 0"),
        (
            {"method": "ensemble", "members": 2},
            "members is 2, .*set members to 3 or more, or vote to mean",
        ),
        ({"method": "ensemble", "members": 1}, "members is 1"),
    ],
)
def test_settings_refuse_what_makes_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"Refiner: .*{message}"):
        Refine(**settings)


def test_two_members_may_vote_by_their_mean_and_other_methods_have_none() -> None:
    assert Refine("ensemble", members=2, vote="mean").tries == 2
    assert Refine("iterative", members=2).tries == Refine("extended", members=1).tries == 1


def test_a_pass_starts_at_its_strength_and_goes_on_down_the_schedule() -> None:
    whole = Schedule()
    assert Refine(strength=0.1).schedule(whole).steps == (100,)
    assert Refine(strength=0.25).schedule(whole).steps == (250,)
    assert Refine(strength=0.3).schedule(whole).steps == (300, 250)
    assert Refine(strength=1.0).schedule(whole).steps == whole.steps


def test_the_medoid_is_the_one_nearest_to_all_others() -> None:
    latents = torch.tensor([0.0, 5.0, 1.0, 2.0]).reshape(4, 1, 1, 1, 1)
    assert vote(latents, "medoid").item() == 1.0
    assert vote(latents, "mean").item() == 2.0
    assert torch.equal(vote(latents[:1], "medoid"), latents[0])


def test_every_pass_draws_its_own_numbers() -> None:
    places = [(s, c, p, m) for s in (42, 43) for c in range(3) for p in range(3) for m in range(3)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert all(1000 < seed_of(*place) < 2**63 for place in places)


def test_the_report_tells_passes_and_scores() -> None:
    report = Report()
    generate(search_tools(), replace(CONFIG, refine=Refine(passes=2)), LATENT_HW, report)
    for line in report.records[1:-1]:
        assert "refine" in line["seconds"]
        for candidate in line["candidates"]:
            refined = candidate["refined"]
            assert (refined is None) == (not candidate["kept"])
            if refined:
                assert refined["passes"] == 2 and 0 <= refined["accepted"] <= 2
                assert refined["parts"].keys() == candidate["parts"].keys()
                for name, gain in refined["gain"].items():
                    assert gain == refined[name] - candidate[name]
