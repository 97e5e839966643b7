"""Runs on a budget: the real loop at toy size, on a clock that only its own work turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import pytest
import torch
from toys import LATENT_HW, search_config, search_tools

from stream_t1_core import snapshot
from stream_t1_core.config import FIXED_SINK, Budget, Refine, StreamConfig
from stream_t1_core.events import ChunkDone, Event, RunStarted, StepDone
from stream_t1_core.generate import generate, run_chunk, stream
from stream_t1_core.report import Report
from stream_t1_core.tools import Tools

pytestmark = pytest.mark.usefixtures("no_grad")

CALL, DECODE = 1.0, 0.5  # seconds on the simulated machine: a denoiser call, a candidate's decoding


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


@dataclass(eq=False)
class Machine:
    """Tools whose work turns their clock; all takes ``load(seconds so far)`` times longer."""

    load: Callable[[float], float] = lambda seconds: 1.0
    decode: float = DECODE
    now: float = 100.0
    calls: int = 0

    def tools(self, **changed: object) -> Tools:
        tools = search_tools()
        model, decoder = tools.model, tools.critic.decoder
        flow, context_pass, decode = model.flow, model.context_pass, decoder.decode
        model.flow = lambda noisy, *rest: self._work(len(noisy)) or flow(noisy, *rest)
        model.context_pass = lambda *args: self._work(1) or context_pass(*args)
        decoder.decode = lambda x, state: self._decoded(len(x)) or decode(x, state)
        return replace(tools, clock=lambda: self.now, **changed)

    def _work(self, calls: int) -> None:
        self.now += CALL * calls * self.load(self.now - 100.0)
        self.calls += calls

    def _decoded(self, candidates: int) -> None:
        self.now += self.decode * candidates * self.load(self.now - 100.0)


def settings(latent_frames: int = 15, **budget: object) -> StreamConfig:
    return search_config(latent_frames=latent_frames, budget=Budget(**budget))


def chunks_of(tools: Tools, config: StreamConfig) -> list[ChunkDone]:
    events: list[Event] = []
    generate(tools, config, LATENT_HW, events.append)
    return [event for event in events if isinstance(event, ChunkDone)]


def test_the_highest_quality_is_the_whole_search_bit_for_bit() -> None:
    plain = search_config(latent_frames=9)
    whole = generate(search_tools(), plain, LATENT_HW)
    same = generate(search_tools(), replace(plain, budget=Budget(amount=1.0)), LATENT_HW)
    assert torch.equal(same.latent, whole.latent) and torch.equal(same.frames, whole.frames)


def test_beams_shrink_to_the_best_and_grow_again_with_the_slider() -> None:
    quality = iter([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    tools = replace(search_tools(), quality=lambda: next(quality))
    config = replace(settings(latent_frames=21), memory=FIXED_SINK)
    done = chunks_of(tools, config)
    assert [len(chunk.candidates) for chunk in done] == [4, 3, 2, 1, 2, 3, 4]
    assert [len(chunk.sinks) for chunk in done] == [2, 2, 1, 1, 1, 2, 2]
    assert [c.parent for c in done[1].candidates] == [0, 0, 1]
    assert [c.parent for c in done[3].candidates] == [0]
    assert [c.parent for c in done[5].candidates] == [0, 0, 0]  # from one beam, more of it
    assert done[3].candidates[0].short is None  # nothing to choose: no reward ran
    assert len({c.seed for c in done[5].candidates}) == 3


def test_total_calls_are_counted_as_they_are_made() -> None:
    machine = Machine()
    config = settings(target="total denoiser calls", amount=60)
    done = chunks_of(machine.tools(), config)
    assert machine.calls == sum(chunk.budget.calls for chunk in done) <= 60
    assert machine.calls > 60 - 5
    on_another = chunks_of(Machine(load=lambda seconds: 3.0).tools(), config)
    for here, there in zip(done, on_another, strict=True):
        assert here.candidates == there.candidates


@pytest.mark.parametrize("decode", [0.5, 3.0])
@pytest.mark.parametrize("slow_from", [4.5, 9.0, 11.9, 15.0, 20.0, 25.0, 30.2, 47.0, 1e9])
def test_a_hard_deadline_holds_when_the_machine_slows_down_at_any_time(
    slow_from: float, decode: float
) -> None:
    """Late by one call at most, but for the one candidate that there must be; the first chunk,
    whose costs nobody knows, too."""
    seconds, slow = 5.2 * (4 * CALL + decode), 2.0
    machine = Machine(lambda now: slow if now >= slow_from else 1.0, decode)
    done = chunks_of(
        machine.tools(), settings(target="seconds per chunk", amount=seconds, hard=True)
    )
    for chunk in done:
        assert chunk.budget.seconds <= seconds + slow * CALL or len(chunk.candidates) == 1
    assert {len(chunk.candidates) for chunk in done} - {1}


def test_candidates_with_a_deadline_are_those_without_one() -> None:
    """Denoised, decoded and scored one by one or together: the same video and scores."""
    plain = chunks_of(search_tools(), search_config(latent_frames=9))
    timed = chunks_of(
        Machine().tools(),
        settings(latent_frames=9, target="seconds per chunk", amount=1e6, hard=True),
    )
    for one, other in zip(plain, timed, strict=True):
        for a, b in zip(one.candidates, other.candidates, strict=True):
            assert (a.parent, a.seed, a.rank, a.route) == (b.parent, b.seed, b.rank, b.route)
            assert b.parts == pytest.approx(a.parts) and b.fused == pytest.approx(a.fused)


@pytest.mark.parametrize("slow_from", [60.0, 71.0, 75.0, 77.5, 80.0])
def test_a_hard_deadline_holds_while_refining(slow_from: float) -> None:
    seconds, slow = 40.0, 5.0
    machine = Machine(lambda now: slow if now >= slow_from else 1.0)
    config = settings(latent_frames=9, target="seconds per chunk", amount=seconds, hard=True)
    done = chunks_of(machine.tools(), replace(config, refine=Refine(passes=8)))
    assert max(chunk.budget.passes for chunk in done) > 0
    for chunk in done:
        assert chunk.budget.seconds <= seconds + slow * CALL


def test_what_is_told_of_a_chunk_is_what_it_took() -> None:
    machine, report = Machine(), Report()
    config = settings(target="seconds per chunk", amount=19.0)
    generate(machine.tools(), config, LATENT_HW, report)
    told = [json.loads(line) for line in str(report).splitlines()]
    budgets = [record["budget"] for record in told if record["event"] == "chunk_done"]
    assert budgets[0]["allotted"]["predicted"] is None
    assert {budget["allotted"]["unit"] for budget in budgets} == {"seconds"}
    assert sum(budget["seconds"] for budget in budgets) == pytest.approx(machine.now - 100.0)
    for budget in budgets[2:]:
        assert budget["allotted"]["predicted"] == pytest.approx(budget["seconds"])
    assert told[0]["settings"]["budget"]["target"] == "seconds per chunk"


def test_the_end_tells_what_all_chunks_took_and_how_good_predictions_were() -> None:
    machine, report = Machine(load=lambda calls: 2.0 if calls >= 40 else 1.0), Report()
    generate(machine.tools(), settings(target="seconds per chunk", amount=19.0), LATENT_HW, report)
    *chunks, done = report.records[1:]
    told = [(c["budget"]["seconds"], c["budget"]["allotted"]["predicted"]) for c in chunks]
    off = [abs(predicted - took) / took for took, predicted in told if predicted is not None]
    assert done["budget"]["calls"] == machine.calls == sum(c["budget"]["calls"] for c in chunks)
    assert done["budget"]["seconds"] == pytest.approx(machine.now - 100.0)
    assert done["budget"]["error"] == pytest.approx(fmean(off)) and max(off) > 0.1
    assert len(off) == len(chunks) - 1


def test_the_end_tells_nothing_of_a_budget_there_was_not_or_of_predictions() -> None:
    ends = []
    for config in (search_config(latent_frames=3), settings(latent_frames=3)):
        report = Report()
        generate(search_tools(), config, LATENT_HW, report)
        ends.append(report.records[-1]["budget"])
    assert ends[0] is None
    assert ends[1]["calls"] == 14 and ends[1]["error"] is None


@pytest.mark.parametrize(
    ("target", "amount", "needed"),
    [
        ("seconds per chunk", 3.0, 5.5),  # four steps, a context pass, a decoding
        ("milliseconds per frame", 250.0, 458.34),
        ("total seconds", 15.0, 27.5),
    ],
)
def test_a_target_that_the_machine_cannot_reach_is_warned_of_once(
    target: str, amount: float, needed: float, caplog: pytest.LogCaptureFixture
) -> None:
    done = chunks_of(Machine().tools(), settings(target=target, amount=amount))
    told = [chunk.budget.warning for chunk in done]
    assert [words is not None for words in told] == [False, False, True, False, False]
    for words in (told[2], *(record.getMessage() for record in caplog.records)):
        assert f"Budget: {amount:g} {target} cannot be kept: even with one candidate" in words
        assert f"each chunk from 3 on, about {needed:g} are needed. Give that or more" in words
    assert len(caplog.records) == 1
    assert done[2].budget.allotted["least"] == pytest.approx(5.5)


def test_a_slow_first_chunk_is_no_reason_to_warn(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(load=lambda seconds: 10.0 if seconds < 46.0 else 1.0)
    done = chunks_of(machine.tools(), settings(target="seconds per chunk", amount=6.0))
    assert done[0].budget.seconds > 50.0 and not caplog.records
    assert [chunk.budget.warning for chunk in done] == [None] * 5


def test_calls_that_earlier_chunks_have_spent_are_missing_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when a Reel goes on under a smaller budget; before a run begins too few are refused."""
    config = settings(target="total denoiser calls", amount=90.0)
    first, second, *_ = stream(search_tools(), config, LATENT_HW)
    less = settings(target="total denoiser calls", amount=25.0)
    assert first.spending.calls == 18 and second.spending.calls == 36
    after = run_chunk(first, search_tools(), less, LATENT_HW, lambda event: None)
    run_chunk(after, search_tools(), less, LATENT_HW, lambda event: None)
    (record,) = caplog.records
    assert "Budget: 25 total denoiser calls cannot be kept" in record.getMessage()
    assert "from 2 on, about 38 are needed" in record.getMessage()


def test_without_a_budget_none_is_told() -> None:
    (done,) = chunks_of(search_tools(), search_config(latent_frames=3))
    assert done.budget is None


def test_refinement_is_the_first_to_go() -> None:
    config = replace(settings(latent_frames=9, amount=1.0), refine=Refine(passes=2))
    quality = iter([1.0, 0.8, 0.5])
    done = chunks_of(replace(search_tools(), quality=lambda: next(quality)), config)
    assert [chunk.budget.passes for chunk in done] == [2, 1, 0]
    assert [len(chunk.candidates) for chunk in done] == [4, 4, 4]


def test_progress_rises_and_stays_within_what_was_announced() -> None:
    events: list[Event] = []
    generate(search_tools(), settings(amount=0.2), LATENT_HW, events.append)
    steps = [event.done for event in events if isinstance(event, StepDone)]
    (started,) = (event for event in events if isinstance(event, RunStarted))
    assert steps == sorted(set(steps)) and steps[-1] < started.denoiser_calls


def test_a_state_remembers_what_it_spent() -> None:
    config = settings(latent_frames=9, adaptive=True)
    *_, state = stream(search_tools(), config, LATENT_HW)
    tensors, about = snapshot.save(state)
    again = snapshot.load(tensors, json.loads(json.dumps(about)), "cpu")
    assert again.spending == state.spending and again.spending.calls > 0
