"""What is said of rows that were measured: means, differences, and how sure they are.

``interval`` is the one way in which benchmarks here say how sure a mean is. Knows nothing of
videos; what a column means is in ``columns.py``, where rows come from in ``rows.py``.
"""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .columns import head

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TRIED = ROOT / ".host" / "results"  # of fewer captions than are published
RESAMPLES = 10_000

Row = dict[str, float]
Job = tuple[str, int]  # what is compared, and the number of the clip


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % interval, written to two figures of the interval's width."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.high == self.low:
            return f"{self.mean:g}"
        places = min(5, max(0, 1 - math.floor(math.log10(self.high - self.low))))
        mean, low, high = (_figure(x, places) for x in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"

    @property
    def told(self) -> dict[str, float]:
        return {key: round(value, 5) for key, value in vars(self).items()}


class Difference(Mean):
    """The mean of differences; bold where its interval is clear of 0."""

    @property
    def clear(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"**{super().__str__()}**" if self.clear else super().__str__()


def interval(values: Sequence[float]) -> Mean:
    """The mean, and where 95 % of the means of resampled values lie (percentile bootstrap).

    Values are one for each caption; for a difference, give the differences caption by caption.
    """
    import numpy as np  # not everywhere that a benchmark runs

    array = np.asarray(values, dtype=np.float64)
    picked = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    low, high = np.quantile(array[picked].mean(axis=1), (0.025, 0.975))
    return Mean(float(array.mean()), float(low), float(high))


def means(of: Sequence[Row]) -> dict[str, Mean]:
    return {key: interval([row[key] for row in of]) for key in in_all(of)}


def differences(more: Sequence[Row], less: Sequence[Row]) -> dict[str, Difference]:
    """What one has more than the other, caption by caption."""
    pairs = list(zip(more, less, strict=True))
    return {
        key: Difference(**vars(interval([a[key] - b[key] for a, b in pairs])))
        for key in in_all([*more, *less])
    }


def in_all(of: Sequence[Row]) -> list[str]:
    """Columns that every row has: other versions of the code may have made others."""
    return [key for key in of[0] if all(key in row for row in of)]


def markdown(table: Mapping[str, Mapping[str, Mean]], corner: str, columns: Sequence[str]) -> str:
    """A row for each name, with mean and interval."""
    lines = [[corner, *map(head, columns)], ["---"] * (1 + len(columns))]
    for name, cells in table.items():
        lines.append([name, *(str(cells[key]) if key in cells else "" for key in columns)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def folder_for(name: str, clips: int) -> Path:
    """Where results of so many captions go: not over published ones of more."""
    told = RESULTS / f"{name}.json"
    published = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    return RESULTS if clips >= published.get("clips", 0) else TRIED


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "machine": cpu_name(),
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write(name: str, result: Mapping[str, Any], words: str, folder: Path = RESULTS) -> None:
    """Results as JSON and, for people, as Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps({**machine(), **result}, indent=1, default=lambda mean: mean.told)
    (folder / f"{name}.json").write_text(told + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(words, encoding="utf-8")
    print(f"{words}\nwritten to {folder / name}.md")


def _figure(value: float, places: int) -> str:
    """With so many places; one figure of what would read as 0 and is not."""
    fixed = f"{value:.{places}f}"
    return fixed if float(fixed) or not value else f"{value:.1g}"
