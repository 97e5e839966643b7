"""Rows that a benchmark measures, one for each job, and what is said of them.

``rows`` runs the jobs on all cores and writes each row down as it is done, so a benchmark that was
stopped goes on where it was. Rows count only for the code and weights that made them. ``interval``
is the one way in which benchmarks here say how sure a mean is. Knows nothing of videos; what a
column means is in ``columns.py``.
"""

import hashlib
import json
import math
import multiprocessing
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from .columns import head

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".host" / "rows"
RESULTS = ROOT / "benchmarks" / "results"
MADE_OF = ("stream_t1_core", "training", "benchmarks", "tiny_model")
SUFFIXES = (".py", ".safetensors", ".json", ".txt")
TELLING = ("columns.py", "compare.py", "page.py", "plots.py")  # no row depends on them
RESAMPLES = 10_000

T = TypeVar("T")
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


def rows(
    name: str, measure: Callable[[Job], T], jobs: Sequence[Job], processes: int | None = None
) -> dict[Job, T]:
    """The row of every job, as JSON keeps it; ``measure`` runs in processes of one thread each."""
    path = KEPT / f"{name}-{_digest()}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _read(path)
    left = [job for job in jobs if job not in done]
    spawn = multiprocessing.get_context("spawn")
    with (
        path.open("a", encoding="utf-8") as file,
        ProcessPoolExecutor(
            processes or os.cpu_count(), spawn, torch.set_num_threads, (1,)
        ) as pool,
    ):
        for job, row in zip(left, pool.map(measure, left), strict=True):
            done[job] = row
            file.write(json.dumps([*job, row]) + "\n")
            file.flush()
            print(f"\r{len(done)} of {len(jobs)} clips", end="", flush=True)
    print()
    return {job: done[job] for job in jobs}


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
    return {key: interval([row[key] for row in of]) for key in of[0]}


def differences(more: Sequence[Row], less: Sequence[Row]) -> dict[str, Difference]:
    """What one has more than the other, caption by caption."""
    pairs = list(zip(more, less, strict=True))
    return {
        key: Difference(**vars(interval([a[key] - b[key] for a, b in pairs])))
        for key in more[0]
        if key in less[0]
    }


def markdown(table: Mapping[str, Mapping[str, Mean]], corner: str, columns: Sequence[str]) -> str:
    """A row for each name, with mean and interval."""
    lines = [[corner, *map(head, columns)], ["---"] * (1 + len(columns))]
    for name, cells in table.items():
        lines.append([name, *(str(cells[key]) if key in cells else "" for key in columns)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


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
    print(words)


def _figure(value: float, places: int) -> str:
    """With so many places; one figure of what would read as 0 and is not."""
    fixed = f"{value:.{places}f}"
    return fixed if float(fixed) or not value else f"{value:.1g}"


def _read(path: Path) -> dict[Job, Any]:
    """Whole lines only: the last one may be cut off."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return {(name, clip): row for name, clip, row in told}


def _digest() -> str:
    """Of all code and weights that a row may depend on."""
    found = hashlib.sha256()
    for folder in MADE_OF:
        for path in sorted((ROOT / folder).rglob("*")):
            measures = "results" not in path.parts and path.name not in TELLING
            if measures and path.suffix in SUFFIXES:
                found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]
