"""Early pruning: who goes, what it saves, what stays as it was, and what cannot work."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import LATENT_HW, Steadiness, search_config, search_tools, toy_tools

from stream_t1_core.check import check
from stream_t1_core.config import Budget, EarlyPruning, Search, StreamConfig
from stream_t1_core.events import CandidatesMade, ChunkDone, Event, RunStarted, StepDone
from stream_t1_core.generate import generate
from stream_t1_core.report import Report
from stream_t1_core.rewards.base import Clips
from stream_t1_core.tools import Tools

pytestmark = pytest.mark.usefixtures("no_grad")

HALF = EarlyPruning(step=1, share=0.5)


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


def config(early: EarlyPruning | None = HALF, **changes: object) -> StreamConfig:
    plan = Search(beam_width=2, branch_factor=3, span_chunks=3, early=early)
    return search_config(**{"latent_frames": 9, "search": plan, **changes})


def run(tools: Tools, settings: StreamConfig) -> tuple[list[Event], int]:
    """Events, and denoiser calls as the model counts them."""
    events: list[Event] = []
    calls = []
    flow, context_pass = tools.model.flow, tools.model.context_pass
    tools.model.flow = lambda noisy, *rest: calls.append(len(noisy)) or flow(noisy, *rest)
    tools.model.context_pass = lambda *args: calls.append(1) or context_pass(*args)
    generate(tools, settings, LATENT_HW, events.append)
    return events, sum(calls)


def of(kind: type, events: list[Event]) -> list:
    return [event for event in events if isinstance(event, kind)]


class Answers:
    """As written, candidate by candidate."""

    name = "answers"

    def __init__(self, *answers: float) -> None:
        self.answers = [*answers]

    def __call__(self, clips: Clips) -> Tensor:
        return torch.tensor([self.answers.pop(0) for _ in clips.frames])


@pytest.mark.parametrize(
    ("step", "share", "left"), [(1, 0.1, 6), (1, 0.95, 2), (2, 0.34, 4), (3, 0.5, 3)]
)
def test_the_share_goes_but_for_the_beam_width_and_calls_are_counted(
    step: int, share: float, left: int
) -> None:
    settings = config(EarlyPruning(step, share), latent_frames=6)
    events, calls = run(search_tools(), settings)
    for chunk in of(ChunkDone, events):
        assert (len(chunk.candidates), len(chunk.pruned_early)) == (left, 6 - left)
    assert calls == settings.denoiser_calls == 2 * (6 * step + left * (4 - step) + 2)
    [started] = of(RunStarted, events)
    assert started.denoiser_calls == calls


def test_those_that_go_on_are_made_as_without_it() -> None:
    whole, _ = run(search_tools(), config(None, latent_frames=3))
    events, _ = run(search_tools(), config(latent_frames=3))
    [all_made], [made] = of(CandidatesMade, whole), of(CandidatesMade, events)
    [all_told], [told] = of(ChunkDone, whole), of(ChunkDone, events)
    seeds = [c.seed for c in all_told.candidates]
    assert {c.seed for c in told.candidates} | {c.seed for c in told.pruned_early} == {*seeds}
    for candidate, latent in zip(told.candidates, made.latents, strict=True):
        expected = all_made.latents[seeds.index(candidate.seed)]
        torch.testing.assert_close(latent, expected, atol=1e-5, rtol=0)


def test_the_worst_by_the_short_reward_go() -> None:
    """Six candidates are looked at, then three are done: nine answers of the short reward."""
    short = Answers(3.0, 1.0, 6.0, 2.0, 5.0, 4.0, 0.0, 0.0, 0.0)
    tools = toy_tools(short, Steadiness())
    events, _ = run(tools, config(latent_frames=3))
    [told] = of(ChunkDone, events)
    assert [c.seed for c in told.candidates] == [44, 46, 47]
    assert [(c.seed, c.score) for c in told.pruned_early] == [(42, 3.0), (43, 1.0), (45, 2.0)]


def test_one_without_a_score_goes_first_and_without_any_all_go_on() -> None:
    nan = float("nan")
    for answers, left in (((nan, 1.0, 2.0, 3.0, 4.0, nan), 3), ((nan,) * 6, 6)):
        tools = toy_tools(Answers(*answers, *(0.0,) * left), Steadiness())
        events, _ = run(tools, config(latent_frames=3))
        [told] = of(ChunkDone, events)
        assert len(told.candidates) == left
    assert not told.pruned_early


def test_a_report_tells_who_was_pruned_early_and_the_seconds_it_took() -> None:
    report = Report()
    generate(search_tools(), config(latent_frames=6), LATENT_HW, report)
    for line in str(report).splitlines()[1:-1]:
        record = json.loads(line)
        assert [set(c) for c in record["pruned_early"]] == 3 * [{"parent", "seed", "score"}]
        assert record["seconds"]["early"] > 0


def test_a_budget_of_calls_buys_more_candidates_for_it() -> None:
    def spent(early: EarlyPruning | None) -> tuple[int, int]:
        budget = Budget("total denoiser calls", 60.0)
        events, calls = run(search_tools(), config(early, budget=budget))
        done = of(ChunkDone, events)
        assert calls == sum(chunk.budget.calls for chunk in done) <= 60
        return sum(len(c.candidates) + len(c.pruned_early) for c in done), calls

    assert spent(HALF)[0] > spent(None)[0]


def test_a_chunk_with_a_deadline_is_not_pruned_early_and_progress_stays_in_bounds() -> None:
    """The first chunk of a budget in seconds: its candidates are made one by one."""
    budget = Budget("seconds per chunk", 1000.0)
    events, _ = run(search_tools(), config(budget=budget))
    first, *later = of(ChunkDone, events)
    assert (len(first.candidates), len(first.pruned_early)) == (6, 0)
    assert all(chunk.pruned_early for chunk in later)
    steps = [event.done for event in of(StepDone, events)]
    [started] = of(RunStarted, events)
    assert steps == sorted(steps) and steps[-1] <= started.denoiser_calls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyPruning(step=0), "Reward Pruner: early step is 0; 1 or more"),
        (lambda: EarlyPruning(share=1.0), r"early share is 1\.0; above 0 and below 1"),
        (lambda: config(EarlyPruning(step=4)), "early step is 4, but the sampler makes 4.*1 to 3"),
        (
            lambda: config(budget=Budget("seconds per chunk", 9.0, hard=True)),
            "Budget: with a hard deadline.*one by one",
        ),
        (
            lambda: check(toy_tools(None, Steadiness()), _unrouted(), LATENT_HW),
            "early pruning goes by the short reward; plug one",
        ),
    ],
)
def test_what_cannot_work_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def _unrouted() -> StreamConfig:
    settings = config()
    return replace(settings, memory=replace(settings.memory, routing=False))
