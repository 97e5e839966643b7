"""Early pruning: look at what candidates would become, and drop the worst before they cost more.

The clean estimate of an early step is blurred, but it tells what goes where. It knows candidates
and the critic; no model and no steps.
"""

import logging
from collections.abc import Sequence

from .config import StreamConfig
from .events import PrunedEarly
from .scoring import Critic, early_scores
from .state import Candidate

log = logging.getLogger(__name__)


def prune_early(
    candidates: Sequence[Candidate], chunk: int, critic: Critic, config: StreamConfig
) -> tuple[list[Candidate], tuple[PrunedEarly, ...]]:
    """Candidates that go on, and what is told of the others; both in the order tried.

    Their latents are clean estimates. One without a score goes first; where none has one, all stay.
    """
    scores = early_scores(candidates, chunk, critic, config)
    if all(score is None for score in scores):
        log.warning("Stream-T1: chunk %d: no short reward to prune early by; all go on", chunk)
        return list(candidates), ()

    def standing(index: int) -> tuple[bool, float]:
        return scores[index] is None, -(scores[index] or 0.0)

    ranked = sorted(range(len(candidates)), key=standing)
    kept = {*ranked[: config.plan.finished(len(candidates))]}
    pruned = tuple(
        PrunedEarly(c.parent_rank, c.seed, scores[i])
        for i, c in enumerate(candidates)
        if i not in kept
    )
    return [c for i, c in enumerate(candidates) if i in kept], pruned
