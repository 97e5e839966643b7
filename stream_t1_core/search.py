"""Chunk beam search: which candidates to try, how two scores become one, which to keep.

Plain numbers only; no tensors and no models. Source: Stream-T1, reward pruning, as released.
"""

from collections.abc import Sequence


def share_out(candidates: int, beams: int) -> list[int]:
    """Candidates of each beam, best beam first: as many each, the best ones get what is over."""
    each, over = divmod(candidates, beams)
    return [each + (rank < over) for rank in range(beams)]


def seeds(
    chunk: int,
    parent_seeds: Sequence[int | None],
    base: int,
    branches: Sequence[int],
    repeat_parent: bool,
) -> list[tuple[int, int]]:
    """(parent's rank, seed) of every candidate of a chunk, in the order they are tried.

    ``parent_seeds`` are the beams' own last seeds, best beam first, ``branches`` how many
    candidates each gets. With ``repeat_parent`` (noise
    propagation) a beam's first branch draws from its parent's seed again.
    """
    if chunk == 0:
        return [(0, base + i) for i in range(branches[0])]
    return [
        (
            rank,
            parent if repeat_parent and branch == 0 else base + 1000 * chunk + 100 * rank + branch,
        )
        for rank, parent in enumerate(parent_seeds)
        for branch in range(branches[rank])
    ]


def short_weight(chunk: int, chunks: int, tau: float) -> float:
    """Weight of the short reward: rises with the chunk's place in the video, up to ``tau``.

    Stream-T1 writes n/N; the released code, and so this, has n/(N-1) with n from 0. A video of
    one chunk is judged by the long reward alone.
    """
    return min(chunk / (chunks - 1), tau) if chunks > 1 else 0.0


def fuse(short: float | None, long: float | None, weight: float) -> float:
    """``weight * short + (1 - weight) * long``; with one reward only, that reward."""
    if short is None or long is None:
        return next((score for score in (short, long) if score is not None), 0.0)
    return weight * short + (1 - weight) * long


def keep_best(fused: Sequence[float | None], count: int) -> list[int]:
    """Indices of the ``count`` best, best first; ties go to the earlier; None cannot win."""
    alive = [i for i, score in enumerate(fused) if score is not None]
    return sorted(alive, key=lambda i: -fused[i])[:count]


def choose(final: Sequence[float | None]) -> int:
    """Index of the beam with the greatest final score, the first of equals; 0 if none has one."""
    best = keep_best(final, 1)
    return best[0] if best else 0
