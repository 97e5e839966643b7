"""How much the next chunk may spend: candidates, beams kept, refinement passes, rewards.

One controller as plain functions: settings and what was measured go in, an allotment comes out. It
knows counts, scores and seconds that it is told; no clock, no tensors, no models. What happens
when time is up within a chunk is in ``deadline.py``.

A run moves on a ladder: first candidates, from one to all that the search allows, with the beams
that its branch factor makes of them; then, where candidates are scored by the frames of a cheaper
decoder, those of the video's own instead; then refinement passes. From one chunk to the next it
moves by a quarter of the ladder at most. Where seconds count it goes down when the next chunk would
take more than ``FULL`` of its time, up when a higher rung would take less than ``ROOMY``, and stays
in between.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median, pstdev
from typing import NamedTuple

from .config import Search, StreamConfig
from .deadline import Deadline
from .rewards.tally import Tallies, Tally, count_in

FULL, ROOMY = 0.95, 0.85  # of a chunk's seconds
REACH = 4  # a run moves by one REACH-th of its ladder a chunk, and by one rung at least
REMEMBERED = 3  # measurements of each cost
GUESS = 30  # how much longer the video's decoder takes than a scoring one, before it has run
SWING = 0.5  # adaptive: a chunk gets this much more or less of an equal share at most


class Rung(NamedTuple):
    candidates: int
    beam_width: int
    passes: int  # of refinement
    as_shown: bool = False  # candidates are judged by the video's decoder, not by a cheaper one


@dataclass(frozen=True)
class Allotment:
    """What a chunk may spend. ``candidates`` are shared out over the beams there are."""

    candidates: int
    beam_width: int
    passes: int  # of refinement
    rewards: bool  # whether they run: not where they decide nothing
    rung: int  # of the ladder, from 0
    due: float  # an equal share of the budget, in ``unit``
    share: float  # its own share; the same unless adaptive
    predicted: float | None  # seconds; None while nothing is measured
    least: float | None = None  # that a chunk can take, in ``unit``; None: not known
    unit: str | None = None  # seconds or denoiser calls; None: in a report from before it was told
    as_shown: bool = False  # whether candidates are judged by the video's decoder instead


@dataclass(frozen=True)
class Measured:
    """What a chunk took and what it showed.

    ``phases``: seconds and how many things they were spent on; none where the chunk was made by an
    earlier session, whose seconds say nothing of this machine now.
    """

    candidates: int
    passes: int
    calls: int
    seconds: float
    phases: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    scores: tuple[float, ...] = ()  # fused, of all candidates that could win
    motion: float | None = None  # of the best one: mean change from frame to frame


@dataclass(frozen=True)
class Spending:
    """What a run has spent of its budget, and what it has learnt by that."""

    rung: int | None = None  # of the last chunk
    calls: int = 0
    seconds: float = 0.0
    due: float = 0.0  # the sum of the equal shares so far
    costs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # latest, by phase
    signals: Tallies = field(default_factory=dict)
    difficulty: float = 0.0  # that the last chunk foretells, -1 to 1
    warned: bool = False  # that it cannot be kept
    errors: Tally = Tally()  # of predicted seconds, as shares of what a chunk took


def allot(
    config: StreamConfig,
    spending: Spending,
    chunk: int,
    quality: float | None,
    switched: bool,
    ahead: int | None = None,
) -> Allotment:
    """The next chunk's part. ``quality``: where the slider is now, if it was moved.

    ``switched``: another prompt begins with this chunk. ``ahead``: chunks that the video's decoder
    must go over before it can judge the next one; None: candidates are judged by no other.
    """
    rungs = _ladder(config, ahead is not None)
    due = _due(config, rungs, spending, chunk, quality)
    share = due
    if config.budget.adaptive:
        share = _adapted(config, rungs, spending, chunk, due, switched)
    if not config.budget.timed:
        rung = _within_reach(_by_calls(config, rungs, share, quality), spending, rungs)
        rung = min(rung, _affordable(config, rungs, spending, chunk))
    elif not spending.costs:
        begun = len(rungs) - 1 if ahead is None else config.plan.candidates - 1
        rung = begun if spending.rung is None else spending.rung
    else:
        rung = _in_time(config, rungs, spending, share, ahead)
    candidates, beam_width, passes, as_shown = rungs[rung]
    rewards = judged(config, candidates, passes)
    return Allotment(
        candidates,
        beam_width,
        passes,
        rewards,
        rung,
        due,
        share,
        _predicted(config, rungs[rung], spending, ahead) if spending.costs else None,
        _least(config, rungs[0], spending),
        config.budget.unit,
        as_shown and rewards,
    )


def step(
    config: StreamConfig, spending: Spending, allotted: Allotment, measured: Measured
) -> Spending:
    """The next state, after a chunk."""
    rung = allotted.rung
    if config.budget.timed and allotted.predicted is None:  # as far as it came
        all_made = measured.candidates == allotted.candidates
        as_shown = allotted.as_shown and all_made
        rung = min(rung, measured.candidates - 1 + as_shown + measured.passes)
    costs = dict(spending.costs)
    for phase, (seconds, count) in measured.phases.items():
        if count:
            costs[phase] = (*costs.get(phase, ()), seconds / count)[-REMEMBERED:]
    after = replace(
        spending,
        rung=rung,
        calls=spending.calls + measured.calls,
        seconds=spending.seconds + measured.seconds,
        due=spending.due + allotted.due,
        costs=costs,
    )
    return _foretold(after, measured, allotted.as_shown) if config.budget.adaptive else after


def deadline(
    config: StreamConfig, spending: Spending, allotted: Allotment, since: float, settling: int = 1
) -> Deadline | None:
    """When a chunk that began at ``since`` must be done; None where it may take what it takes.

    A first chunk has one too, so that it takes about its time before any cost is known.
    ``settling``: chunks that may settle with it, each decoded for the video, where that is apart.
    """
    if not config.budget.timed or not (config.budget.hard or allotted.predicted is None):
        return None
    dearest = {name: max(seen) for name, seen in spending.costs.items()}
    if allotted.as_shown and "video" not in dearest:
        dearest["video"] = GUESS * dearest.get("decode", 0.0)
    after = ("commit",) * allotted.beam_width + ("video",) * settling + ("rest",)
    part = 1.0 if dearest else ROOMY  # where a run begins, it stays
    return Deadline(since + part * allotted.share, dearest, after)


def judged(config: StreamConfig, candidates: int, passes: int) -> bool:
    """Whether rewards have something to decide."""
    return candidates > 1 or passes > 0 or config.memory.routing or config.budget.adaptive


def estimate(seen: Sequence[float]) -> float:
    """What the next measurement will be: the median, which one odd value does not move.

    Where the latest rise one after the other it is further up, as far as both rises agree.
    """
    middle = median(seen)
    if len(seen) < 3 or not seen[0] < seen[1] < seen[2]:
        return middle
    return middle + 2 * min(seen[1] - seen[0], seen[2] - seen[1])


def _ladder(config: StreamConfig, cheap: bool) -> list[Rung]:
    """Every rung, the cheapest first. ``cheap``: candidates have a decoder of their own."""
    most, branches = config.plan.candidates, config.plan.branch_factor
    rungs = [Rung(n, math.ceil(n / branches), 0) for n in range(1, most + 1)]
    passes = config.refine.passes if config.refine else 0
    first = 0 if cheap else 1
    return rungs + [Rung(most, config.plan.beam_width, p, cheap) for p in range(first, passes + 1)]


def _calls(config: StreamConfig, rung: Rung) -> int:
    """Denoiser calls of a chunk, counted as in ``StreamConfig.denoiser_calls``."""
    refining = config.refining_calls * rung.passes // config.refine.passes if rung.passes else 0
    tried = _search(config, rung).calls(rung.candidates, len(config.schedule.steps))
    return tried + rung.beam_width * (refining + 1)


def _search(config: StreamConfig, rung: Rung) -> Search:
    return replace(config.search, beam_width=rung.beam_width)


def _due(
    config: StreamConfig,
    rungs: list[Rung],
    spending: Spending,
    chunk: int,
    quality: float | None,
) -> float:
    """An equal share for every chunk that is left: seconds or denoiser calls."""
    budget, left = config.budget, config.chunks - chunk
    if budget.target == "quality":
        return _calls(config, rungs[_meant(config, rungs, quality)])
    if budget.target == "total denoiser calls":
        return (budget.amount - spending.calls) / left
    if budget.target == "total seconds":
        return (budget.amount - spending.seconds) / left
    if budget.target == "milliseconds per frame":
        first = 0 if config.first_frame(chunk) else 3  # a video's first latent frame is one frame
        frames = 4 * config.frames_per_chunk - first
        return budget.amount / 1000 * frames
    return budget.amount


def _meant(config: StreamConfig, rungs: list[Rung], quality: float | None) -> int:
    """The rung that a quality is."""
    wanted = config.budget.amount if quality is None else quality
    return round(wanted * (len(rungs) - 1))


def _by_calls(config: StreamConfig, rungs: list[Rung], share: float, quality: float | None) -> int:
    """The highest rung that fits; of two that take the same calls, for decoding takes none, the one
    that a quality is.
    """
    rung = _last(rungs, lambda r: _calls(config, r) <= share)
    if config.budget.target != "quality":
        return rung
    meant = _meant(config, rungs, quality)
    return meant if _calls(config, rungs[meant]) == _calls(config, rungs[rung]) else rung


def _adapted(
    config: StreamConfig,
    rungs: list[Rung],
    spending: Spending,
    chunk: int,
    due: float,
    switched: bool,
) -> float:
    """More than an equal share of the rest for a chunk that looks hard, less for an easy one."""
    left = config.chunks - chunk
    remaining = due * left
    if not config.budget.target.startswith("total"):
        used = spending.seconds if config.budget.timed else spending.calls
        remaining += spending.due - used
    if left == 1:
        return remaining
    return remaining / left * (1 + SWING * (1.0 if switched else spending.difficulty))


def _affordable(config: StreamConfig, rungs: list[Rung], spending: Spending, chunk: int) -> int:
    """The highest rung that leaves enough denoiser calls for the chunks after this one."""
    if config.budget.target != "total denoiser calls":
        return len(rungs) - 1
    later = (config.chunks - chunk - 1) * _calls(config, rungs[0])
    free = config.budget.amount - spending.calls - later
    return _last(rungs, lambda rung: _calls(config, rung) <= free)


def _in_time(
    config: StreamConfig,
    rungs: list[Rung],
    spending: Spending,
    seconds: float,
    ahead: int | None,
) -> int:
    full = _last(rungs, lambda r: _predicted(config, r, spending, ahead) <= FULL * seconds)
    roomy = _last(rungs, lambda r: _predicted(config, r, spending, ahead) <= ROOMY * seconds)
    wanted = full if full < spending.rung else max(spending.rung, roomy)
    return _within_reach(wanted, spending, rungs)


def _within_reach(wanted: int, spending: Spending, rungs: list[Rung]) -> int:
    if spending.rung is None:
        return wanted
    reach = max(1, len(rungs) // REACH)
    return max(spending.rung - reach, min(spending.rung + reach, wanted))


def _predicted(config: StreamConfig, rung: Rung, spending: Spending, ahead: int | None) -> float:
    """Seconds that a chunk will take; a cost that was never met counts nothing yet."""
    search = _search(config, rung)
    finished = search.finished(rung.candidates)
    scored = finished if judged(config, rung.candidates, rung.passes) else 0
    decodes = ahead + scored if rung.as_shown and scored else 0  # besides what settles
    counts = {
        "denoise": search.calls(rung.candidates, len(config.schedule.steps)),
        "early": rung.candidates if finished < rung.candidates else 0,
        "decode": finished,
        "score": scored,
        "refine": rung.beam_width * rung.passes,
        "commit": rung.beam_width,
        "video": 1 + decodes,
        "rest": 1,
    }
    costs = {name: estimate(seen) for name, seen in spending.costs.items()}
    if decodes and "video" not in costs:  # nothing has settled yet
        costs["video"] = GUESS * costs.get("decode", 0.0)
    return sum(seconds * counts[name] for name, seconds in costs.items())


def _least(config: StreamConfig, lowest: Rung, spending: Spending) -> float | None:
    """What a chunk takes at the lowest rung; seconds by the fastest chunk of two or three.

    So neither a first chunk that warms up nor a spike makes it look more than it is.
    """
    if not config.budget.timed:
        return _calls(config, lowest)
    if len(spending.costs.get("denoise", ())) < 2:
        return None
    fastest = {phase: (min(seen),) for phase, seen in spending.costs.items()}
    return _predicted(config, lowest, replace(spending, costs=fastest), None)


def _foretold(spending: Spending, measured: Measured, as_shown: bool) -> Spending:
    """What this chunk says of the next: it is hard where candidates differ, move, or got worse.

    Scores of frames by one decoder are compared with such scores only.
    """
    seen, kind = {}, " as shown" if as_shown else ""
    if measured.scores:
        spread, fall = pstdev(measured.scores), -max(measured.scores)
        seen = {f"spread{kind}": spread, f"fall{kind}": fall}
    if measured.motion is not None:
        seen["motion"] = measured.motion
    signals = count_in(spending.signals, {name: [value] for name, value in seen.items()})
    away = [signals[name].standardise(value) for name, value in seen.items()]
    difficulty = max(-1.0, min(1.0, fmean(away))) if away else 0.0
    return replace(spending, signals=signals, difficulty=difficulty)


def _last(rungs: list[Rung], fits: Callable[[Rung], bool]) -> int:
    """The highest rung that fits; the lowest where none does."""
    return max((i for i, rung in enumerate(rungs) if fits(rung)), default=0)
