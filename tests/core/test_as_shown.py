"""A budget that has candidates judged by the decoder of the video, not by the one for scoring."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from test_kept import CUES, Stop, prompted
from test_long_streams import given
from test_show import decoded
from torch import Tensor
from toys import LATENT_HW, search_config, search_tools, shown_tools, toy_scorer

from stream_t1_core.budget import GUESS, Spending, allot
from stream_t1_core.config import FIXED_SINK, Budget, Refine, Search, StreamConfig
from stream_t1_core.events import (
    CandidateReport,
    CandidatesMade,
    ChunkDone,
    Event,
    FramesSettled,
    StepDone,
)
from stream_t1_core.finish import finish
from stream_t1_core.generate import generate, stream
from stream_t1_core.kept import AskedReel, kept
from stream_t1_core.scoring import AS_SHOWN
from stream_t1_core.tools import Tools

pytestmark = pytest.mark.usefixtures("no_grad")

CALL, DECODE = 1.0, 0.25  # seconds on the simulated machine: a denoiser call, decoding to score
STANDARDISED = Search(beam_width=2, branch_factor=2, span_chunks=3, standardise=True)
COSTS = {"denoise": (1.0,), "decode": (0.25,), "score": (0.0,), "commit": (1.0,), "rest": (0.0,)}


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def events_of(tools: Tools, config: StreamConfig) -> tuple[list[CandidatesMade], list[ChunkDone]]:
    events: list[Event] = []
    generate(tools, config, LATENT_HW, events.append)
    made = [event for event in events if isinstance(event, CandidatesMade)]
    return made, [event for event in events if isinstance(event, ChunkDone)]


def qualities(tools: Tools, *each: float) -> Tools:
    by_chunk = iter(each)
    return replace(tools, quality=lambda: next(by_chunk))


def assert_same_scores(one: CandidateReport, other: CandidateReport) -> None:
    """Up to the rounding of batches: the video's decoder makes one candidate at a time."""
    assert (one.parent, one.seed, one.rank, one.route) == (
        other.parent,
        other.seed,
        other.rank,
        other.route,
    )
    assert one.parts == pytest.approx(other.parts, abs=1e-3)
    assert one.fused == pytest.approx(other.fused, abs=1e-3)
    assert (one.refined is None) == (other.refined is None)
    if one.refined:
        assert one.refined.parts == pytest.approx(other.refined.parts, abs=1e-3)


def test_it_comes_after_all_candidates_and_before_refinement() -> None:
    config = search_config(budget=Budget(), refine=Refine(passes=2), search=Search(1, 3))
    ladder = [allot(config, Spending(), 0, i / 5, False, 0) for i in range(6)]
    assert [(a.candidates, a.as_shown, a.passes) for a in ladder] == [
        (1, False, 0),
        (2, False, 0),
        (3, False, 0),
        (3, True, 0),
        (3, True, 1),
        (3, True, 2),
    ]
    plain = [allot(config, Spending(), 0, i / 4, False) for i in range(5)]
    assert [(a.candidates, a.as_shown, a.passes) for a in plain] == [
        (1, False, 0),
        (2, False, 0),
        (3, False, 0),
        (3, False, 1),
        (3, False, 2),
    ]


def test_what_takes_no_denoiser_calls_is_had_where_all_candidates_are() -> None:
    for amount, candidates, as_shown in ((80, 4, False), (7 * 18 - 1, 3, False), (7 * 18, 4, True)):
        config = search_config(budget=Budget("total denoiser calls", amount))
        rung = 4 if as_shown else min(3, candidates - 1)
        told = allot(config, Spending(rung=rung), 0, None, False, 0)
        assert told.as_shown == as_shown


def test_one_candidate_that_nothing_judges_is_not_decoded_for_it() -> None:
    config = search_config(budget=Budget(amount=1.0), search=Search(1, 1), memory=FIXED_SINK)
    told = allot(config, Spending(), 0, None, False, 0)
    assert (told.rung, told.rewards, told.as_shown) == (1, False, False)


def test_it_is_predicted_from_what_settling_took_and_guessed_before() -> None:
    config = search_config(budget=Budget("seconds per chunk", 1000.0))
    spending = Spending(rung=3, costs={**COSTS, "video": (5.0,)})
    told = allot(config, spending, 3, None, False, 2)
    assert told.as_shown
    calls, decodes = 4 * 4 + 2, 4 + 2 + 1  # candidates, what is not settled yet, what settles
    assert told.predicted == calls + 4 * 0.25 + 5.0 * decodes
    unknown = allot(config, replace(spending, costs=COSTS), 3, None, False, 2)
    assert unknown.as_shown  # paths that never agree are no reason to wait for ever
    assert unknown.predicted == calls + 4 * 0.25 + GUESS * 0.25 * decodes
    scarce = replace(config, budget=Budget("seconds per chunk", 30.0))
    assert not allot(scarce, replace(spending, rung=4), 3, None, False, 2).as_shown


@pytest.mark.parametrize("refine", [None, Refine()])
@pytest.mark.parametrize(("whole", "span"), [(True, 3), (False, 3), (True, 1), (False, 1)])
def test_a_run_with_enough_is_the_one_without_a_decoder_for_scoring(
    refine: Refine | None, whole: bool, span: int
) -> None:
    search = replace(STANDARDISED, span_chunks=span)
    config = search_config(search=search, refine=refine, whole=whole, latent_frames=18)
    config = replace(config, budget=Budget(amount=1.0))
    pictures, chunks = events_of(shown_tools(), config)
    plain_pictures, plain_chunks = events_of(search_tools(), config)
    for chunk, plain in zip(chunks, plain_chunks, strict=True):
        assert chunk.budget.allotted["as_shown"] and not plain.budget.allotted["as_shown"]
        assert chunk.seconds["video"] > 0
        for one, other in zip(chunk.candidates, plain.candidates, strict=True):
            assert_same_scores(one, other)
    for made, plain in zip(pictures, plain_pictures, strict=True):
        for one, other in zip(made.frames, plain.frames, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@pytest.mark.parametrize("search", [STANDARDISED, replace(STANDARDISED, standardise=False)])
@pytest.mark.parametrize("seed", range(3))
def test_the_last_choice_is_by_the_videos_own_frames_too(seed: int, search: Search) -> None:
    config = search_config(search=search, latent_frames=9, seed=seed, budget=Budget(amount=1.0))
    ours, plain = (generate(t(), config, LATENT_HW) for t in (shown_tools, search_tools))
    assert ours.final_scores == pytest.approx(plain.final_scores, abs=2e-2)
    assert ours.best_beam == plain.best_beam and torch.equal(ours.latent, plain.latent)


@pytest.mark.parametrize("pictures", [True, False])
def test_given_footage_is_judged_as_it_is_shown(pictures: bool) -> None:
    start = given(search_tools(), 4)
    start = start if pictures else replace(start, frames=None)
    config = search_config(latent_frames=10, given_frames=4, budget=Budget(amount=1.0))
    _, chunks = events_of(replace(shown_tools(), start=start), config)
    _, plain = events_of(replace(search_tools(), start=start), config)
    for one, other in zip(chunks, plain, strict=True):
        assert one.budget.allotted["as_shown"]
        for a, b in zip(one.candidates, other.candidates, strict=True):
            assert_same_scores(a, b)


def test_with_less_the_decoder_for_scoring_goes_on_where_it_would_be() -> None:
    config = search_config(latent_frames=9, search=Search(1, 2), budget=Budget())
    made, done = events_of(qualities(shown_tools(), 1.0, 0.5, 1.0), config)
    assert [chunk.budget.allotted["as_shown"] for chunk in done] == [True, False, True]
    assert [len(chunk.candidates) for chunk in done] == [2, 2, 2]
    routes = {candidate.route for chunk in done[1:] for candidate in chunk.candidates}
    assert routes == {"drop"}  # the memory has nothing to compare their scores with
    by_video, by_scorer = search_tools().critic.decoder, toy_scorer()
    states: list = [None, None]
    for event, chunk in zip(made, done, strict=True):
        as_shown = chunk.budget.allotted["as_shown"]
        decoder, state = (by_video, states[0]) if as_shown else (by_scorer, states[1])
        for latent, frames in zip(event.latents, event.frames, strict=True):
            expected, _ = decoder.decode(latent[None], state)
            torch.testing.assert_close(frames, expected[0], atol=1e-3, rtol=0)
        best = event.latents[[c.rank for c in chunk.candidates].index(0)][None]
        states = [d.decode(best, s)[1] for d, s in zip((by_video, by_scorer), states, strict=True)]


def test_what_rewards_say_of_one_decoder_is_not_compared_with_what_they_say_of_the_other() -> None:
    config = search_config(latent_frames=9, search=STANDARDISED, budget=Budget())
    *_, state = stream(qualities(shown_tools(), 1.0, 0.75, 1.0), config, LATENT_HW)
    counts = {name: tally.count for name, tally in state.seen.items()}
    names = ("short.brightness", "long.steadiness")
    assert counts == {AS_SHOWN + name: 8 for name in names} | {name: 4 for name in names}
    video = finish(state, shown_tools(), config, lambda event: None)
    assert torch.equal(video.frames, decoded(video.latent))


def test_a_run_that_does_not_keep_the_video_keeps_what_it_may_look_back_on() -> None:
    config = search_config(latent_frames=27, whole=False, search=Search(1, 1, span_chunks=3))
    for budget in (Budget(amount=1.0), None):
        *_, state = stream(shown_tools(), replace(config, budget=budget), LATENT_HW)
        remembered = [chunk.first_frame for chunk in state.beams[0].chunk.path()]
        assert 0 < remembered[0] < remembered[-1] == 24
        assert [*state.shown.frames] == ([0, *remembered] if budget else [])


@dataclass(eq=False)
class Machine:
    """Tools whose work turns their clock; from ``slow_from`` on all takes twice as long."""

    slow_from: float = math.inf
    video: float = 1.5  # seconds of the video's decoder, a path and chunk
    now: float = 0.0

    def tools(self) -> Tools:
        tools = shown_tools()
        model, scorer, decoder = tools.model, tools.critic.decoder, tools.decoder
        flow, context_pass = model.flow, model.context_pass
        score, show = scorer.decode, decoder.decode
        model.flow = lambda noisy, *rest: self._work(CALL * len(noisy)) or flow(noisy, *rest)
        model.context_pass = lambda *args: self._work(CALL) or context_pass(*args)
        scorer.decode = lambda x, state: self._work(DECODE * len(x)) or score(x, state)
        decoder.decode = lambda x, state: self._work(self.video * len(x)) or show(x, state)
        return replace(tools, clock=lambda: self.now)

    def _work(self, seconds: float) -> None:
        self.now += seconds * (2 if self.now >= self.slow_from else 1)


def test_what_it_takes_is_predicted() -> None:
    config = search_config(latent_frames=24, budget=Budget("seconds per chunk", 60.0))
    _, done = events_of(Machine().tools(), config)
    told = [chunk.budget.allotted for chunk in done]
    assert not told[0]["as_shown"] and sum(each["as_shown"] for each in told) >= 4
    for before, chunk in zip(done, done[1:], strict=False):
        if before.budget.allotted["as_shown"]:
            # a chunk that settles nothing, or two, differs from what is predicted by just that
            away = (chunk.budget.seconds - chunk.budget.allotted["predicted"]) / 1.5
            assert away == pytest.approx(round(away), abs=1e-6) and abs(away) <= 2


def test_it_is_given_up_before_any_candidate_when_the_machine_gets_slower() -> None:
    config = search_config(latent_frames=30, budget=Budget("seconds per chunk", 36.0))
    _, done = events_of(Machine(slow_from=140.0).tools(), config)
    told = [chunk.budget.allotted for chunk in done]
    assert any(each["as_shown"] for each in told) and not told[-1]["as_shown"]
    last = max(i for i, each in enumerate(told) if each["as_shown"])
    assert told[last + 1]["candidates"] >= 3


@pytest.mark.parametrize("slow_from", [20.0, 75.0, 93.5, 101.0, 1e9])
def test_a_hard_deadline_holds(slow_from: float) -> None:
    """Late by one call at most, and by as much as decoding what settles, which must be, takes
    longer than was known when the last candidate was begun."""
    seconds, events = 36.0, []
    budget = Budget("seconds per chunk", seconds, hard=True)
    config = search_config(latent_frames=18, budget=budget)
    machine = Machine(slow_from)
    generate(machine.tools(), config, LATENT_HW, events.append)
    done = [i for i, event in enumerate(events) if isinstance(event, ChunkDone)]
    for at, next_one in zip(done, [*done[1:], len(events)], strict=True):
        chunk, then = events[at], events[at:next_one]
        settled = sum(isinstance(event, FramesSettled) for event in then)
        longer = 0.0 if slow_from > machine.now else settled * machine.video
        late = chunk.budget.seconds - seconds
        assert late <= 2 * CALL + longer or len(chunk.candidates) == 1
    assert slow_from < 60 or any(events[at].budget.allotted["as_shown"] for at in done)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("stop_at", [19, 40, 60])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, snapshot: bool, stop_at: int
) -> None:
    config = search_config(latent_frames=12, whole=not snapshot, search=STANDARDISED)
    config = replace(config, refine=Refine(), budget=Budget(amount=1.0))

    def run(name: str, stop_at: float = math.inf) -> tuple[dict[int, Tensor], list[ChunkDone]]:
        settled, done, tools = {}, [], shown_tools()
        asked = AskedReel(tmp_path / name, snapshot=snapshot)
        place = (asked, config, CUES, None, {}, tools.model.backbone, LATENT_HW)
        with kept(*place, scoring="TAEHV") as going:
            # by the chunk at hand: the third is not judged by the video's decoder
            quality = {1: 0.6, 2: 0.6}
            tools = replace(tools, quality=lambda: quality.get(chunk[0], 1.0))
            tools, chunk = prompted(tools, going.cues), [len(going.replay.chunks)]

            def emit(event: Event) -> None:
                going(event)
                if isinstance(event, FramesSettled):
                    settled[event.first] = event.frames
                if isinstance(event, ChunkDone):
                    done.append(event)
                    chunk[0] = event.chunk + 1
                if isinstance(event, StepDone) and event.done >= stop_at:
                    raise Stop

            with suppress(Stop):
                for state in stream(tools, going.config, LATENT_HW, emit, going.replay):
                    going.keep(state)
                finish(state, tools, going.config, emit)
        return settled, done

    whole, told = run("whole")
    assert [chunk.budget.allotted["as_shown"] for chunk in told] == [True, True, False, True]
    before, _ = run("cut", stop_at)
    after, again = run("cut")
    found = before | after
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[first], whole[first]) for first in whole)
    assert [chunk.candidates for chunk in again] == [chunk.candidates for chunk in told]
