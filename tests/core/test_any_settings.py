"""Whatever settings are accepted together make a video, and the same one in every way to run it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_kept import Stop, prompted, rows
from test_long_streams import given, settled_frames
from toys import LATENT_HW, search_tools, shown_tools

from stream_t1_core.config import (
    POSITIONS,
    REFINE_METHODS,
    Budget,
    EarlyPruning,
    Memory,
    NoisePropagation,
    Refine,
    Schedule,
    Search,
    StreamConfig,
)
from stream_t1_core.cues import Cue
from stream_t1_core.events import Event, StepDone
from stream_t1_core.finish import finish
from stream_t1_core.generate import stream
from stream_t1_core.kept import AskedReel, kept
from stream_t1_core.kv import KVPlace
from stream_t1_core.show import Behind
from stream_t1_core.tools import Tools


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def draw_config(one: random.Random) -> StreamConfig:
    """Any settings that are accepted, without budgets of time: those depend on the machine."""
    while True:
        with suppress(ValueError):
            return _draw_config(one)


def _draw_config(one: random.Random) -> StreamConfig:
    size, some = one.choice((1, 2, 3, 3)), one.choice
    sink, given_frames = size * some((0, 1, 1, 2)), some((0, 0, 1, 2, 3, 4, 7))
    early = EarlyPruning(some((1, 2)), some((0.25, 0.5, 0.9)))
    search = Search(
        beam_width=some((1, 2, 3)),
        branch_factor=some((1, 2, 3)),
        span_chunks=some((1, 2, 10)),
        standardise=some((True, False)),
        early=some((None, None, early)),
    )
    return StreamConfig(
        latent_frames=given_frames + one.randint(1, 5 * size),
        given_frames=given_frames,
        frames_per_chunk=size,
        seed=one.randrange(1000),
        schedule=Schedule(some(((1000, 750, 500, 250), (1000, 500), (1000,)))),
        noise=some((None, NoisePropagation())),
        search=search,
        memory=Memory(
            window_frames=sink + size * one.randint(1, 2),
            sink_frames=sink,
            max_sink_frames=sink + size * one.randint(0, 3),
            short_gate=some((0.0, 50.0)),
            long_gate=some((-3.0, 0.0, 0.2)),
            routing=some((True, True, False)),
        ),
        refine=some((None, Refine(some(REFINE_METHODS), one.randint(0, 2), some((0.01, 0.6))))),
        budget=some((None, Budget(amount=one.random(), adaptive=some((True, False))))),
        isolated=some((False, False, True)),
        positions=some(POSITIONS),
        trained_frames=some((6, 240)),
        whole=some((True, False)),
    )


@pytest.mark.parametrize("seed", range(60))
def test_stopped_or_decoded_late_it_is_the_same_video(seed: int, tmp_path: Path) -> None:
    one = random.Random(seed)
    config = draw_config(one)
    plain = one.choice((search_tools, shown_tools))()
    plain = replace(plain, model=plain.model.with_kv_at(one.choice([*KVPlace])))
    if config.given_frames:
        start = given(search_tools(), config.given_frames)
        plain = replace(plain, start=one.choice((start, replace(start, frames=None))))
    chunks = sorted(one.sample(range(1, 6), one.randint(0, 2)))
    later = [
        Cue(chunk, rows(chunk), f"prompt {chunk}", one.choice((True, False))) for chunk in chunks
    ]
    cues = (Cue(0, rows(0), "prompt", False), *later)

    def run(tools: Tools, name: str, stop_at: float = math.inf) -> list[Event]:
        events: list[Event] = []
        video = None
        reel = AskedReel(tmp_path / name, snapshot=not config.whole)
        asked = (reel, config, cues, tools.start, {}, tools.model.backbone, LATENT_HW)
        with kept(*asked, scoring="TAEHV" if tools.decoder else None) as going:
            tools = prompted(tools, going.cues)

            def emit(event: Event) -> None:
                going(event)
                events.append(event)
                if isinstance(event, StepDone) and event.done == stop_at:
                    raise Stop

            with suppress(Stop):
                for state in stream(tools, going.config, LATENT_HW, emit, going.replay):
                    going.keep(state)
                video = finish(state, tools, going.config, emit)
        assert (video is None) == (stop_at < math.inf)
        if video and config.whole:
            latent, frames = settled_frames(events)
            assert torch.equal(video.latent[0], latent)
            torch.testing.assert_close(video.frames, frames, atol=1e-5, rtol=0)
        return events

    told = run(plain, "whole")
    latent, frames = settled_frames(told)
    assert latent.shape[1] == config.latent_frames and torch.isfinite(latent).all()
    assert len(frames) == 4 * config.latent_frames - 3 and torch.isfinite(frames).all()
    steps = [event.done for event in told if isinstance(event, StepDone)]
    with ThreadPoolExecutor(1) as pool:
        late = replace(plain, behind=Behind(pool))
        before = run(late, "stopped", stop_at=one.choice(steps))
        after = run(late, "stopped")
    again = after if config.whole else before + after  # with a snapshot nothing is told twice
    assert all(map(torch.equal, settled_frames(again), (latent, frames)))
