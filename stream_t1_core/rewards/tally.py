"""What a run has seen of each reward so far, to put rewards of different scales side by side.

Knows numbers and names only. The order in which values come in is the order in which candidates
are tried, so the same run gives the same numbers.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Count, mean and summed squared distance from the mean (Welford 1962)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: Iterable[float]) -> "Tally":
        """With these values too; those that are not finite do not count."""
        count, mean, squares = self.count, self.mean, self.squares
        for value in filter(math.isfinite, values):
            count += 1
            away = value - mean
            mean += away / count
            squares += away * (value - mean)
        return Tally(count, mean, squares)

    def standardise(self, value: float) -> float:
        """Distance from the mean in standard deviations; 0 while all values were the same."""
        spread = math.sqrt(self.squares / self.count) if self.count else 0.0
        return (value - self.mean) / spread if spread > 1e-9 * abs(self.mean) else 0.0


Tallies = Mapping[str, Tally]


def count_in(seen: Tallies, values: Mapping[str, Iterable[float]]) -> Tallies:
    """``seen`` with more values, by name."""
    return {**seen, **{name: seen.get(name, Tally()).add(new) for name, new in values.items()}}
