"""The budget's controller on a simulated machine: plain numbers, a clock that the test turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from stream_t1_core import budget
from stream_t1_core.budget import (
    REACH,
    Allotment,
    Measured,
    Spending,
    allot,
    deadline,
    estimate,
    step,
)
from stream_t1_core.config import (
    FIXED_SINK,
    QUALITY,
    Budget,
    Memory,
    Refine,
    Search,
    StreamConfig,
)
from stream_t1_core.deadline import LATE, Deadline, OutOfTime

CHUNKS, STEPS = 48, 4
SEARCH = Search(beam_width=4, branch_factor=4)  # 16 candidates
SECONDS = {"denoise": 0.1, "decode": 0.1, "score": 0.1, "commit": 0.1, "rest": 0.05}
MOST = 16 * (STEPS * 0.1 + 0.2) + 4 * 0.1 + 0.05  # of a chunk with all candidates
LEAST = STEPS * 0.1 + 0.1 + 0.1 + 0.05  # with one, which nothing needs to score
Load = Callable[[int], float]  # chunk -> how much longer everything takes

LOADS: dict[str, Load] = {
    "spike": lambda chunk: 4.0 if chunk == 20 else 1.0,
    "ramp": lambda chunk: 1 + 2 * min(max(chunk - 10, 0), 20) / 20,
    "sawtooth": lambda chunk: 1 + (chunk % 12) / 12,
    "half the GPU gone": lambda chunk: 2.0 if chunk >= 20 else 1.0,
}


def settings(chunks: int = CHUNKS, search: Search = SEARCH, **budget: object) -> StreamConfig:
    return StreamConfig(latent_frames=3 * chunks, search=search, budget=Budget(**budget))


@dataclass(frozen=True)
class Made:
    allotted: Allotment
    candidates: int
    seconds: float
    calls: int


def run(
    config: StreamConfig,
    load: Load = lambda chunk: 1.0,
    show: Callable[[int], dict[str, object]] = lambda chunk: {},
    quality: Callable[[int], float | None] = lambda chunk: None,
) -> list[Made]:
    """Every chunk on a machine that takes ``SECONDS`` times its load."""
    spending, made, now = Spending(), [], 0.0
    for chunk in range(config.chunks):
        allotted = allot(config, spending, chunk, quality(chunk), False)
        began, slow = now, load(chunk)
        by = deadline(config, spending, allotted, began)
        calls, done, now = _candidates(allotted, by, now, slow)
        beams = min(allotted.beam_width, done)
        judged = done if allotted.rewards else 0
        counts = {"denoise": calls, "decode": done, "score": judged, "commit": beams, "rest": 1}
        now += slow * (SECONDS["commit"] * beams + SECONDS["rest"])
        phases = {name: (slow * SECONDS[name] * count, count) for name, count in counts.items()}
        measured = Measured(done, 0, calls + beams, now - began, phases, **show(chunk))
        made.append(Made(allotted, done, now - began, calls + beams))
        spending = step(config, spending, allotted, measured)
    return made


def _candidates(
    allotted: Allotment, by: Deadline | None, now: float, slow: float
) -> tuple[int, int, float]:
    """Denoiser calls, candidates that are complete, and the time then."""
    pieces = ["denoise"] * STEPS + ["decode"] + ["score"] * allotted.rewards
    calls = done = 0
    with suppress(OutOfTime):
        for _ in range(allotted.candidates):
            late = 0.0 if done else math.inf
            for i, piece in enumerate(pieces):
                if by:
                    by = by.begin(pieces[i:], now, late)
                    late = max(late, LATE)
                now += slow * SECONDS[piece]
                calls += piece == "denoise"
            done += 1
    return calls, done, now


def jumps(made: list[Made]) -> list[int]:
    rungs = [m.allotted.rung for m in made[1:]]
    return [abs(b - a) for a, b in zip(rungs, rungs[1:], strict=False)]


@pytest.fixture
def unsmoothed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Made]]:
    """Runs with the controller to compare with: all that fits, by the last chunk's costs alone."""

    def run_unsmoothed(config: StreamConfig, load: Load) -> list[Made]:
        with monkeypatch.context() as patch:
            for name in ("FULL", "ROOMY", "REACH", "REMEMBERED"):
                patch.setattr(budget, name, 1)
            return run(config, load)

    return run_unsmoothed


def test_quality_is_a_place_on_the_ladder_and_the_same_on_every_machine() -> None:
    for name, candidates in {"low": 4, "medium": 9, "high": 16}.items():
        for load in LOADS.values():
            made = run(settings(target="quality", amount=QUALITY[name]), load)
            assert {m.candidates for m in made} == {candidates}
    allotted = run(settings(target="quality", amount=0.0))[0].allotted
    assert (allotted.candidates, allotted.beam_width, allotted.rewards) == (1, 1, False)


def test_candidates_come_first_and_beams_follow_then_refinement() -> None:
    config = replace(settings(search=Search(2, 2)), refine=Refine(passes=2))
    ladder = []
    for quality in (0, 0.2, 0.4, 0.6, 0.8, 1):
        allotted = allot(config, Spending(), 0, quality, False)
        ladder.append((allotted.candidates, allotted.beam_width, allotted.passes))
    assert ladder == [(1, 1, 0), (2, 1, 0), (3, 2, 0), (4, 2, 0), (4, 2, 1), (4, 2, 2)]


def test_rewards_run_where_they_decide_something() -> None:
    plain = settings(target="quality", amount=0.0)
    assert not allot(plain, Spending(), 3, None, False).rewards
    assert allot(replace(plain, memory=Memory()), Spending(), 3, None, False).rewards
    assert plain.memory == FIXED_SINK


def test_what_a_share_is_counted_in_is_told_with_it() -> None:
    for target, unit in (
        ("quality", "denoiser calls"),
        ("total denoiser calls", "denoiser calls"),
        ("seconds per chunk", "seconds"),
        ("milliseconds per frame", "seconds"),
        ("total seconds", "seconds"),
    ):
        amount = 1.0 if target == "quality" else 480.0
        allotted = allot(settings(target=target, amount=amount), Spending(), 0, None, False)
        assert allotted.unit == unit
        expected = {"quality": 68, "seconds per chunk": 480, "milliseconds per frame": 0.48 * 9}
        assert allotted.due == allotted.share == pytest.approx(expected.get(target, 10))


@pytest.mark.parametrize("amount", [240, 241, 500, 1000, 2000, 5000])
@pytest.mark.parametrize("adaptive", [False, True])
def test_total_calls_are_never_exceeded_and_almost_spent(amount: int, adaptive: bool) -> None:
    config = settings(target="total denoiser calls", amount=amount, adaptive=adaptive)
    made = run(config, show=lambda chunk: {"scores": (0.0, chunk % 3), "motion": chunk % 5})
    spent = sum(m.calls for m in made)
    most = CHUNKS * (16 * STEPS + 4)
    assert spent <= amount
    assert spent >= min(most, amount - STEPS - 1)


def test_the_first_chunk_takes_about_its_time_before_any_cost_is_known() -> None:
    for amount in (1.0, 2.0, 4.0, 8.0, 20.0):
        first, second, *_ = run(settings(target="seconds per chunk", amount=amount))
        assert first.allotted.predicted is None and second.allotted.predicted is not None
        assert LEAST <= first.seconds <= max(amount, LEAST)
        assert first.candidates == 16 or first.seconds > 0.5 * amount or first.candidates == 1


@pytest.mark.parametrize("target", ["seconds per chunk", "total seconds", "milliseconds per frame"])
def test_time_is_kept_and_used(target: str) -> None:
    amount = {"seconds per chunk": 5.0, "total seconds": 5.0 * CHUNKS}.get(target, 5000 / 12)
    made = run(settings(target=target, amount=amount))
    assert all(m.seconds <= 5.01 for m in made if target != "total seconds")
    assert 0.75 * 5 * CHUNKS < sum(m.seconds for m in made) <= 5 * CHUNKS


def test_what_is_predicted_comes_true_on_a_steady_machine() -> None:
    for m in run(settings(target="seconds per chunk", amount=6.0))[1:]:
        assert m.allotted.predicted == pytest.approx(m.seconds)


@pytest.mark.parametrize("name", LOADS)
def test_a_change_of_load_is_followed_in_small_steps_and_no_deadline_is_missed_after(
    name: str,
) -> None:
    """Soft deadlines. A run may be late while it notices a sudden change: a chunk to notice, one
    to believe it, and three more to step down half the ladder."""
    seconds = 1.1 * MOST
    made = run(settings(target="seconds per chunk", amount=seconds), LOADS[name])
    assert max(jumps(made)) <= 16 // REACH
    late = {i for i, m in enumerate(made) if m.seconds > seconds}
    changing = {
        "spike": {20},
        "ramp": set(),
        "sawtooth": set(),
        "half the GPU gone": {20, 21, 22},
    }
    assert late <= changing[name]
    if name == "spike":  # one odd chunk is no reason to do anything
        assert {m.candidates for m in made[2:]} == {made[2].candidates}
    if name == "half the GPU gone":
        assert all(m.seconds >= 0.7 * seconds for m in made[24:])  # and it is not given away


@pytest.mark.parametrize("name", LOADS)
def test_smoothing_moves_less_than_none_and_is_late_for_two_chunks_more_at_most(
    name: str, unsmoothed: Callable[..., list[Made]]
) -> None:
    seconds = 0.8 * MOST
    config = settings(target="seconds per chunk", amount=seconds)
    ours, theirs = run(config, LOADS[name]), unsmoothed(config, LOADS[name])
    assert sum(jumps(ours)) <= sum(jumps(theirs)) and max(jumps(ours)) <= 16 // REACH
    assert sum(m.seconds > seconds for m in ours) <= sum(m.seconds > seconds for m in theirs) + 2
    assert sum(m.candidates for m in ours) >= 0.75 * sum(m.candidates for m in theirs)


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("seconds", [3.0, 5.0, 1.1 * MOST])
def test_a_hard_deadline_is_missed_by_one_call_at_most(name: str, seconds: float) -> None:
    config = settings(target="seconds per chunk", amount=seconds, hard=True)
    for chunk, m in enumerate(run(config, LOADS[name])):
        slow = LOADS[name](chunk)
        assert m.candidates >= 1
        assert m.seconds <= seconds + slow * SECONDS["denoise"] + 1e-9


def test_a_hard_deadline_too_short_for_one_candidate_still_makes_one() -> None:
    made = run(settings(target="seconds per chunk", amount=0.1, hard=True))
    assert {m.candidates for m in made} == {1}


def test_a_slider_is_followed_over_several_chunks() -> None:
    made = run(settings(target="quality", amount=1.0), quality=lambda c: 0.0 if c >= 20 else None)
    assert [m.candidates for m in made[18:26]] == [16, 16, 12, 8, 4, 1, 1, 1]
    assert [m.allotted.beam_width for m in made[18:26]] == [4, 4, 3, 2, 1, 1, 1, 1]


def test_adaptive_gives_more_to_chunks_that_look_hard_and_as_much_in_all() -> None:
    def show(chunk: int) -> dict[str, object]:
        hard = chunk // 8 % 2
        return {"scores": (0.0, 1.0 + 3 * hard), "motion": 0.1 + hard}

    even = run(settings(target="quality", amount=0.5), show=show)
    made = run(settings(target="quality", amount=0.5, adaptive=True), show=show)
    after_hard = [m.candidates for c, m in enumerate(made) if c > 8 and (c - 1) // 8 % 2]
    after_easy = [m.candidates for c, m in enumerate(made) if c > 8 and not (c - 1) // 8 % 2]
    assert sum(after_hard) / len(after_hard) > sum(after_easy) / len(after_easy) + 1
    assert sum(m.calls for m in made) == pytest.approx(sum(m.calls for m in even), abs=30)
    assert sum(m.calls for m in made) <= sum(m.calls for m in even)


def test_a_new_prompt_counts_as_hard() -> None:
    config = settings(target="quality", amount=0.5, adaptive=True)
    spending = Spending(rung=8)
    plain, switched = (allot(config, spending, 5, None, new) for new in (False, True))
    assert switched.candidates > plain.candidates


def test_what_an_earlier_session_took_says_nothing_of_this_machine() -> None:
    config = settings(target="total seconds", amount=400.0)
    first = allot(config, Spending(), 0, None, False)
    after = step(config, Spending(), first, Measured(7, 0, 30, 9.0))
    assert after.seconds == 9.0 and not after.costs
    assert allot(config, after, 1, None, False).predicted is None


@pytest.mark.parametrize(
    ("seen", "next_one"),
    [
        ((2.0,), 2.0),
        ((1.0, 3.0), 2.0),
        ((1.0, 1.0, 9.0), 1.0),  # a spike
        ((1.0, 2.0, 2.0), 2.0),  # a jump
        ((1.0, 1.2, 1.4), 1.6),  # a ramp
        ((1.0, 1.01, 9.0), 1.03),
        ((3.0, 2.0, 1.0), 2.0),
    ],
)
def test_estimates(seen: tuple[float, ...], next_one: float) -> None:
    assert estimate(seen) == pytest.approx(next_one)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"target": "speed"}, "target 'speed'"),
        ({"target": "quality", "amount": 1.2}, "quality is 1.2"),
        ({"target": "total seconds", "amount": 0.0}, "more than 0"),
        ({"target": "quality", "hard": True}, "hard deadline needs a target in seconds"),
        (
            {"target": "seconds per chunk", "amount": 1.0, "hard": True, "adaptive": True},
            "nothing to move",
        ),
        ({"target": "total denoiser calls", "amount": 239.0}, "takes 240"),
    ],
)
def test_errors_name_the_node_and_the_way_out(wrong: dict, told: str) -> None:
    with pytest.raises(ValueError, match=f"Budget: .*{told}"):
        settings(**wrong)


def test_a_budget_needs_a_search() -> None:
    with pytest.raises(ValueError, match="plug a Reward Pruner"):
        StreamConfig(budget=Budget())
