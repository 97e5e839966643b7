"""Between a chunk that is made and the budget: what it took and showed, as the controller reads it.

A chunk of an earlier session counts too, by its record: what it spent, and what it foretells, but
not what its parts cost, for that was another machine or another hour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from torch import Tensor

from .budget import Allotment, Measured, Spending, allot, deadline, step
from .config import StreamConfig
from .events import BudgetReport, CandidateReport, PrunedEarly
from .meter import Meter
from .state import Beam, StreamState
from .tools import Tools


def within(config: StreamConfig, allotted: Allotment | None) -> StreamConfig:
    """The settings that hold for a chunk with this allotment."""
    if allotted is None:
        return config
    search = replace(config.search, beam_width=allotted.beam_width)
    return with_passes(replace(config, search=search), allotted.passes)


def with_passes(config: StreamConfig, passes: int) -> StreamConfig:
    """The same with so many refinement passes, where there is a refiner."""
    return replace(config, refine=config.refine and replace(config.refine, passes=passes))


def open_chunk(
    state: StreamState, tools: Tools, config: StreamConfig, meter: Meter
) -> Allotment | None:
    """What the next chunk may spend, and in ``meter`` until when; None without a budget."""
    if config.budget is None:
        return None
    spending, switched = state.spending, tools.new_prompt is not None
    allotted = allot(config, spending, state.chunk, tools.quality(), switched)
    meter.deadline = deadline(config, spending, allotted, meter.since)
    return allotted


def close_chunk(
    config: StreamConfig,
    before: StreamState,
    after: StreamState,
    allotted: Allotment,
    meter: Meter,
    candidates: Sequence[CandidateReport],
    pruned_early: Sequence[PrunedEarly],
) -> tuple[Spending, BudgetReport]:
    """After a chunk: what is spent now, and what is told of it."""
    beams = after.beams
    refined = [c.refined.passes for c in candidates if c.refined]
    counts = {
        "denoise": meter.calls_in["denoise"],
        "early": len(candidates) + len(pruned_early),
        "decode": len(candidates),
        "score": len(candidates) if allotted.rewards else 0,
        "refine": sum(refined),
        "commit": len(beams),
        "video": len(after.shown.frames) - len(before.shown.frames) if after.shown else 0,
    }
    phases = {name: (seconds, counts[name]) for name, seconds in meter.seconds.items()}
    elapsed = meter.elapsed
    phases["rest"] = (elapsed - sum(meter.seconds.values()), 1)
    told = BudgetReport(asdict(allotted), elapsed, meter.calls, max(refined, default=0))
    measured = _measured(told, candidates, beams, phases)
    return step(config, before.spending, allotted, measured), told


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
    measured = _measured(told, candidates, beams, {})
    return step(config, spending, Allotment(**told.allotted), measured)


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
