"""Candidates scored by one decoder, the video decoded by another: once, and as the latent says."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_kept import CUES, Stop, prompted
from test_long_streams import given, settled_frames
from torch import Tensor
from toys import LATENT_HW, search_config, search_tools, shown_tools, toy_decoder

from stream_t1_core.config import Budget, Refine, Search, StreamConfig
from stream_t1_core.events import CandidatesMade, ChunkDone, Event, FramesSettled, StepDone
from stream_t1_core.finish import finish
from stream_t1_core.generate import generate, stream
from stream_t1_core.kept import AskedReel, kept
from stream_t1_core.show import Behind
from stream_t1_core.tools import Tools

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def decoded(latent: Tensor) -> Tensor:
    """Frames [T, H, W, 3] of a whole video, chunk by chunk."""
    state, pieces = None, []
    for chunk in latent.split(3, dim=2):
        frames, state = toy_decoder().decode(chunk, state)
        pieces.append(frames[0])
    return torch.cat(pieces)


def count_rows(tools: Tools) -> tuple[Tools, list[int]]:
    """The tools, and a list that grows by the batch of every decode for the video."""
    rows: list[int] = []
    plain = tools.decoder.decode
    tools.decoder.decode = lambda latents, state: rows.append(len(latents)) or plain(latents, state)
    return tools, rows


@pytest.mark.parametrize("whole", [True, False])
def test_the_video_is_decoded_once_by_its_own_decoder(whole: bool) -> None:
    tools, rows = count_rows(shown_tools())
    events: list[Event] = []
    config = search_config(latent_frames=15, whole=whole)
    video = generate(tools, config, LATENT_HW, events.append)
    latent, frames = settled_frames(events)
    assert rows == [1] * config.chunks
    assert torch.equal(frames, decoded(latent[None]))
    if whole:
        assert torch.equal(video.latent, latent[None]) and torch.equal(video.frames, frames)
    done = [event for event in events if isinstance(event, ChunkDone)]
    assert all(event.seconds["video"] >= 0 for event in done)
    made = [event for event in events if isinstance(event, CandidatesMade)]
    assert not any(torch.equal(frames[:9], shown) for shown in made[0].frames)


def test_the_last_chunk_is_cut_where_the_video_ends() -> None:
    video = generate(shown_tools(), search_config(latent_frames=10), LATENT_HW)
    assert video.latent.shape[2] == 10
    assert torch.equal(video.frames, decoded(video.latent))


def test_a_decoder_for_the_video_that_is_the_scoring_one_changes_nothing() -> None:
    """Up to the rounding of batches: the video's decoder has one path at a time."""
    config = search_config(latent_frames=9, refine=Refine())
    plain = search_tools()
    both = replace(plain, decoder=toy_decoder())
    a, b = generate(plain, config, LATENT_HW), generate(both, config, LATENT_HW)
    assert torch.equal(a.latent, b.latent)
    torch.testing.assert_close(a.frames, b.frames, atol=1e-3, rtol=0)


def test_isolated_scores_come_from_the_scoring_decoder_too() -> None:
    tools, rows = count_rows(shown_tools())
    video = generate(tools, search_config(latent_frames=9, isolated=True), LATENT_HW)
    assert rows == [1]
    torch.testing.assert_close(video.frames, decoded(video.latent), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("pictures", [True, False])
def test_given_footage_is_shown_as_it_was_given(frames: int, pictures: bool) -> None:
    start = given(search_tools(), frames)
    start = start if pictures else replace(start, frames=None)
    config = search_config(latent_frames=frames + 8, given_frames=frames)
    video = generate(replace(shown_tools(), start=start), config, LATENT_HW)
    whole, _ = toy_decoder().decode(video.latent, None)
    expected = torch.cat([start.frames, whole[0, len(start.frames) :]]) if pictures else whole[0]
    torch.testing.assert_close(video.frames, expected, atol=1e-5, rtol=0)
    if pictures:
        assert torch.equal(video.frames[: len(start.frames)], start.frames)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("frames", [0, 4])
def test_frames_that_are_made_behind_the_search_are_the_same(
    whole: bool, frames: int, pool: ThreadPoolExecutor
) -> None:
    tools = shown_tools()
    if frames:
        tools = replace(tools, start=given(search_tools(), frames))
    config = search_config(latent_frames=frames + 17, given_frames=frames, whole=whole)

    def run(tools: Tools) -> list[Event]:
        events: list[Event] = []
        generate(tools, config, LATENT_HW, events.append)
        return events

    at_once, (behind, rows) = run(tools), count_rows(replace(tools, behind=Behind(pool)))
    late = run(behind)
    assert rows == [1] * (config.chunks + math.ceil(frames / 3))
    pairs = zip(*map(settled_frames, (at_once, late)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_next_chunk_does_not_wait_for_the_frames(pool: ThreadPoolExecutor) -> None:
    """The first chunk's frames are held back until the second one is being denoised."""
    tools = replace(shown_tools(), behind=Behind(pool))
    denoised, in_time, plain = threading.Event(), [], tools.decoder.decode

    def decode(latents: Tensor, state: object) -> tuple[Tensor, object]:
        in_time.append(denoised.wait(timeout=60))
        return plain(latents, state)

    tools.decoder.decode = decode
    config = StreamConfig(latent_frames=9, search=Search(1, 2))

    def emit(event: Event) -> None:
        if isinstance(event, StepDone) and event.done > config.denoiser_calls // config.chunks:
            denoised.set()

    generate(tools, config, LATENT_HW, emit)
    assert in_time == [True] * 3


def test_a_decoder_that_fails_behind_the_search_ends_the_run(pool: ThreadPoolExecutor) -> None:
    tools = replace(shown_tools(), behind=Behind(pool))

    def decode(latents: Tensor, state: object) -> tuple[Tensor, object]:
        raise RuntimeError("no memory left for decoding")

    tools.decoder.decode = decode
    states = []
    with pytest.raises(RuntimeError, match="no memory left for decoding"):
        for state in stream(tools, search_config(latent_frames=30), LATENT_HW):
            states.append(state)
    assert 0 < len(states) < 10  # what was made is there


def test_a_budget_does_without_it(pool: ThreadPoolExecutor) -> None:
    """It counts what the video's frames take, and may judge by them."""
    tools = replace(shown_tools(), behind=Behind(pool))
    threads, plain = set(), tools.decoder.decode

    def decode(latents: Tensor, state: object) -> tuple[Tensor, object]:
        threads.add(threading.current_thread())
        return plain(latents, state)

    tools.decoder.decode = decode
    generate(tools, search_config(budget=Budget("quality", 0.5)), LATENT_HW)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_was_stopped_shows_the_same_frames(
    tmp_path: Path, snapshot: bool, late: bool, pool: ThreadPoolExecutor
) -> None:
    config = search_config(latent_frames=12, whole=not snapshot)

    def run(name: str, stop_at: float = math.inf, tools: Tools | None = None) -> list[tuple]:
        settled, tools = [], tools or shown_tools()
        tools = replace(tools, behind=Behind(pool) if late else None)
        reel = AskedReel(tmp_path / name, snapshot=snapshot)
        asked = (reel, config, CUES, None, {}, tools.model.backbone, LATENT_HW)
        with kept(*asked, scoring="TAEHV") as going:
            tools = prompted(tools, going.cues)

            def emit(event: Event) -> None:
                going(event)
                if isinstance(event, FramesSettled):
                    settled.append((event.first, event.frames))
                if isinstance(event, StepDone) and event.done >= stop_at:
                    raise Stop

            with suppress(Stop):
                for state in stream(tools, going.config, LATENT_HW, emit, going.replay):
                    going.keep(state)
                finish(state, tools, going.config, emit)
        return settled

    whole, before = run("whole"), run("cut", stop_at=45)
    after = run("cut")
    found = before + after if snapshot else after  # without one, all chunks are told again
    assert [first for first, _ in found] == [first for first, _ in whole]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(found, whole, strict=True))
    if snapshot:
        with pytest.raises(ValueError, match="was made with a scoring_vae: plug it in again"):
            run("cut", tools=search_tools())


def test_a_reel_knows_what_its_candidates_were_scored_by(tmp_path: Path) -> None:
    tools, config = shown_tools(), search_config(latent_frames=6)
    asked = (AskedReel(tmp_path / "reel"), config, CUES, None, {}, tools.model.backbone, LATENT_HW)
    with kept(*asked, scoring="TAEHV") as going:
        for _ in stream(prompted(tools, going.cues), config, LATENT_HW, going, going.replay):
            pass
    with pytest.raises(ValueError, match="scoring_vae"), kept(*asked):
        pass


def test_a_budget_counts_what_the_video_takes() -> None:
    """A clock that only the video's decoder moves: four seconds a chunk that settles, and once it
    is known what it takes, as there is time, four for each of two candidates."""
    now = [0.0]
    tools = replace(shown_tools(), clock=lambda: now[0])
    plain = tools.decoder.decode

    def slow(latents: Tensor, state: object) -> tuple[Tensor, object]:
        now[0] += 4.0
        return plain(latents, state)

    tools.decoder.decode = slow
    events: list[Event] = []
    budget = Budget("seconds per chunk", 100.0)
    config = StreamConfig(latent_frames=15, search=Search(1, 2), budget=budget)
    generate(tools, config, LATENT_HW, events.append)
    done = [event for event in events if isinstance(event, ChunkDone)]
    assert [event.seconds["video"] for event in done] == [4.0] + [12.0] * 4
    assert [event.budget.allotted["predicted"] for event in done] == [None] + [12.0] * 4
