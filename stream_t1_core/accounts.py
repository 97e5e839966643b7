"""Between a chunk that is made and the budget: what it took and showed, as the controller reads it.

A chunk of an earlier session counts too, by its record: what it spent, and what it foretells, but
not what its parts cost, for that was another machine or another hour.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor

from .budget import Allotment, Measured, Spending, allot, deadline, step
from .config import StreamConfig
from .events import BudgetReport, BudgetTotals, CandidateReport, PrunedEarly
from .show import Showing, not_shown
from .state import Beam, StreamState
from .work import Work

log = logging.getLogger(__name__)


def within(work: Work, state: StreamState, allotted: Allotment | None) -> Work:
    """The chunk as it is made with this allotment."""
    if allotted is None:
        return work
    tools, search = work.tools, replace(work.config.search, beam_width=allotted.beam_width)
    if not allotted.rewards:
        tools = tools.without_rewards()
    elif allotted.as_shown:
        span = work.config.plan.span_chunks
        tools = replace(tools, showing=Showing(state.shown, tools.decoder, span))
    work = replace(work, tools=tools, config=replace(work.config, search=search))
    return with_passes(work, allotted.passes)


def with_passes(work: Work, passes: int) -> Work:
    """The same with so many refinement passes, where there is a refiner."""
    refine = work.config.refine and replace(work.config.refine, passes=passes)
    return replace(work, config=replace(work.config, refine=refine))


def open_chunk(state: StreamState, work: Work) -> Allotment | None:
    """What a chunk may spend, and in its meter until when; None without a budget."""
    tools, config, meter = work.tools, work.config, work.meter
    if config.budget is None:
        return None
    spending, switched = state.spending, tools.new_prompt is not None
    paths = not_shown(state) if tools.decoder and not config.isolated else None
    ahead = None if paths is None else sum(paths)
    allotted = allot(config, spending, state.chunk, tools.quality(), switched, ahead)
    settling = 1 + max(paths or [0])
    meter.deadline = deadline(config, spending, allotted, meter.since, settling)
    if warning := _out_of_reach(config, spending, state.chunk, allotted):
        log.warning("Stream-T1: %s", warning)
    return allotted


def close_chunk(
    work: Work,
    before: StreamState,
    after: StreamState,
    allotted: Allotment,
    candidates: Sequence[CandidateReport],
    pruned_early: Sequence[PrunedEarly],
) -> tuple[Spending, BudgetReport]:
    """After a chunk: what is spent now, and what is told of it. ``work``: as it was opened."""
    config, meter, beams = work.config, work.meter, after.beams
    settled = len(after.shown.frames) - len(before.shown.frames) if after.shown else 0
    refined = [c.refined.passes for c in candidates if c.refined]
    counts = {
        "denoise": meter.calls_in["denoise"],
        "early": len(candidates) + len(pruned_early),
        "decode": len(candidates),
        "score": len(candidates) if allotted.rewards else 0,
        "refine": sum(refined),
        "commit": len(beams),
        "video": settled + meter.decodes,
    }
    phases = {name: (seconds, counts[name]) for name, seconds in meter.seconds.items()}
    elapsed = meter.elapsed
    phases["rest"] = (elapsed - sum(meter.seconds.values()), 1)
    warning = _out_of_reach(config, before.spending, before.chunk, allotted)
    passes = max(refined, default=0)
    told = BudgetReport(asdict(allotted), elapsed, meter.calls, passes, warning)
    measured = _measured(told, candidates, beams, phases)
    return _after(config, before.spending, told, measured), told


def read_back(
    config: StreamConfig,
    spending: Spending,
    told: BudgetReport | None,
    candidates: Sequence[CandidateReport],
    beams: Sequence[Beam],
) -> Spending:
    """After a chunk that was made before; one that was made without a budget does not count."""
    if config.budget is None or told is None:
        return spending
    return _after(config, spending, told, _measured(told, candidates, beams, {}))


def total(config: StreamConfig, spending: Spending) -> BudgetTotals | None:
    """What is told at the end of a run; None without a budget."""
    if config.budget is None:
        return None
    errors = spending.errors
    return BudgetTotals(spending.calls, spending.seconds, errors.mean if errors.count else None)


def _out_of_reach(
    config: StreamConfig, spending: Spending, chunk: int, allotted: Allotment
) -> str | None:
    """Why the budget cannot be kept, in words; None where it can, or where that was said before."""
    budget, least, due = config.budget, allotted.least, allotted.due
    if spending.warned or least is None or least <= due:
        return None
    if budget.target.startswith("total"):
        used = spending.seconds if budget.timed else spending.calls
        needed = used + least * (config.chunks - chunk)
    else:
        needed = budget.amount * least / due
    cheaper = "the pictures smaller" if budget.timed else "the video shorter"
    return (
        f"Budget: {budget.amount:g} {budget.target} cannot be kept: even with one candidate for "
        f"each chunk from {chunk + 1} on, about {math.ceil(100 * needed) / 100:.10g} are needed. "
        f"Give that or more, or make {cheaper} or the denoising steps fewer; this run goes down to "
        "one candidate a chunk and overspends"
    )


def _after(
    config: StreamConfig, spending: Spending, told: BudgetReport, measured: Measured
) -> Spending:
    allotted = Allotment(**told.allotted)
    errors = spending.errors
    if allotted.predicted is not None and told.seconds:
        errors = errors.add([abs(allotted.predicted - told.seconds) / told.seconds])
    after = step(config, spending, allotted, measured)
    return replace(after, warned=spending.warned or told.warning is not None, errors=errors)


def _measured(
    told: BudgetReport,
    candidates: Sequence[CandidateReport],
    beams: Sequence[Beam],
    phases: Mapping[str, tuple[float, int]],
) -> Measured:
    scores = ()
    if told.allotted["rewards"]:
        scores = tuple(c.fused for c in candidates if c.fused is not None)
    return Measured(
        len(candidates),
        told.passes,
        told.calls,
        told.seconds,
        phases,
        scores,
        _motion(beams[0].chunk.frames),
    )


def _motion(frames: Tensor | None) -> float | None:
    """Mean change from frame to frame of frames [T, H, W, 3]."""
    return None if frames is None else frames.diff(dim=0).abs().mean().item()
