"""When time is up within a chunk: the work that is left against the seconds that are left.

Candidates are then made one by one to their scores, and one that cannot be done in time is given
up between two pieces of work; those that are complete go on, one at least. What a piece takes is
known from earlier chunks or from the candidates before it. It is told the time and has no clock.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

LATE = 0.5  # denoiser calls that a chunk may be late by for a candidate that has begun


class OutOfTime(Exception):
    """There is no time for the next piece of work."""


@dataclass(frozen=True)
class Deadline:
    """``end``, by the caller's clock. Pieces of work have the names of phases.

    ``costs``: seconds of one piece, as far as known. ``after``: pieces that end the chunk.
    """

    end: float
    costs: Mapping[str, float]
    after: Sequence[str] = ()
    slower: float = 1.0  # than known: the last piece, and so all that are to come
    doing: tuple[str, float] | None = None  # the piece that is being done, and when it began

    def begin(self, pieces: Sequence[str], now: float, late: float = math.inf) -> "Deadline":
        """The first of these pieces begins now, the others follow, then those that end the chunk.

        Raises OutOfTime where they would make the chunk late by more than ``late`` denoiser calls.
        """
        told = self._ended(now)
        left = told._seconds([*pieces, *self.after])
        if now + left > self.end + late * told._seconds(["denoise"]):
            raise OutOfTime
        return replace(told, doing=(pieces[0], now))

    def passes(self, most: int, survivors: int, now: float) -> int:
        """Refinement passes of all survivors that there is time for; one to learn what it takes."""
        free = self.end - now - self._seconds(self.after)
        if not self.costs.get("refine"):
            return min(most, 1 if free > 0 else 0)
        return max(0, min(most, int(free / (self._seconds(["refine"]) * survivors))))

    def _ended(self, now: float) -> "Deadline":
        """With what the piece that was being done has told."""
        if self.doing is None:
            return self
        piece, since = self.doing
        known = self.costs.get(piece)
        if not known:
            return replace(self, costs={**self.costs, piece: now - since}, doing=None)
        return replace(self, slower=max(1.0, (now - since) / known), doing=None)

    def _seconds(self, pieces: Sequence[str]) -> float:
        """A context pass costs about a denoiser call; what is unknown otherwise counts nothing."""
        costs = {"commit": self.costs.get("denoise", 0.0), **self.costs}
        return self.slower * sum(costs.get(piece, 0.0) for piece in pieces)
