"""Reward Pruning: of a chunk's scored candidates the best go on, or those that someone chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import search, sinks
from .config import StreamConfig
from .events import CandidateReport, PrunedEarly
from .kv import Route
from .rewards.tally import Tallies
from .scoring import Scoring
from .state import Candidate
from .work import Work


@dataclass(frozen=True, eq=False)
class Pruned:
    """Who goes on, best first, and what is known and told of all candidates."""

    survivors: Sequence[Candidate] = field(repr=False)
    reports: tuple[CandidateReport, ...]  # in the order tried
    chosen: str | None  # who chose, if not the scores
    early: tuple[PrunedEarly, ...]  # given up before they were done; not in ``reports``
    seen: Tallies = field(repr=False)
    left_out: Mapping[str, str]

    def told_of(self, committed: int) -> tuple[CandidateReport, ...]:
        """The reports, where there was time to commit so many survivors."""
        return tuple(
            report if report.rank is None or report.rank < committed else replace(report, rank=None)
            for report in self.reports
        )


def prune(scored: Scoring, early: tuple[PrunedEarly, ...], work: Work) -> Pruned:
    """Keep the best, with what will become of each when it leaves the window."""
    candidates = [add_route(c, work.config) for c in scored.candidates]
    kept, chosen = best_of(candidates, work.chunk, work.config), None
    if work.tools.director is not None:
        reports = _reports(candidates, kept)
        with work.meter.waiting():
            kept, chosen = work.tools.director(work.chunk, reports, kept, work.emit)
    survivors, reports = [candidates[i] for i in kept], _reports(candidates, kept)
    return Pruned(survivors, reports, chosen, early, scored.seen, scored.left_out)


def add_route(candidate: Candidate, config: StreamConfig) -> Candidate:
    """Decide what will become of this chunk when it leaves the window."""
    tip = candidate.parent.chunk
    if not config.memory.routing or tip is None or candidate.failure:
        return candidate
    scores = candidate.scores
    total, count = tip.shorts
    alike = tip.scores.as_shown == scores.as_shown
    if None in (scores.short, scores.long, tip.scores.long) or not count or not alike:
        # given, a reward left out, or frames by another decoder: nothing to go by
        return replace(candidate, route=Route.DROP)
    route = sinks.decide(scores.short, scores.long, total / count, tip.scores.long, config.memory)
    return replace(candidate, route=route)


def best_of(candidates: Sequence[Candidate], chunk: int, config: StreamConfig) -> list[int]:
    """Indices of those with the best scores, best first."""
    fused = [None if c.failure else c.scores.fused for c in candidates]
    kept = search.keep_best(fused, config.plan.beam_width)
    if not kept:
        reasons = "; ".join(f"seed {c.seed}: {c.failure}" for c in candidates)
        raise RuntimeError(
            f"chunk {chunk}: no candidate can go on ({reasons}). Try another seed; if it happens "
            "again, check the model's precision (bfloat16 or float32) and the rewards' inputs"
        )
    return kept


def _reports(candidates: Sequence[Candidate], kept: list[int]) -> tuple[CandidateReport, ...]:
    return tuple(_report(c, kept, i) for i, c in enumerate(candidates))


def _report(candidate: Candidate, kept: list[int], index: int) -> CandidateReport:
    scores = candidate.scores
    return CandidateReport(
        parent=candidate.parent_rank,
        seed=candidate.seed,
        short=scores.short,
        long=scores.long,
        fused=None if candidate.failure else scores.fused,
        parts=scores.parts,
        standard=scores.standard,
        route=candidate.route.value if candidate.route else None,
        rank=kept.index(index) if index in kept else None,
        failure=candidate.failure,
    )
