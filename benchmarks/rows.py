"""Rows that a benchmark measures, one for each job: kept while it runs, published when it is done.

``rows`` runs the jobs on all cores and writes each row down as it is done, so a benchmark that was
stopped goes on where it was. Rows count only for the code and weights that made them. Published
ones lie in ``benchmarks/results/rows/NAME.csv``: a line for each job, with the code and the machine
that made it; with ``--add`` those count too, so that days of measuring may lie weeks apart. Knows
nothing of what a row says.
"""

import csv
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from .measured import RESULTS, ROOT, Job, Row, cpu_name

KEPT = ROOT / ".host" / "rows"
MADE_OF = ("stream_t1_core", "training", "benchmarks", "tiny_model")
SUFFIXES = (".py", ".safetensors", ".json", ".txt")
# no row depends on these
TELLING = ("columns.py", "compare.py", "measured.py", "page.py", "plots.py", "rows.py")
FIRST_COLUMNS = ("way", "clip", "code", "machine")

T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    """A published row, and what made it. ``code``: the start of a SHA-256 of code and weights."""

    row: Row
    code: str
    machine: str


def rows(
    name: str, measure: Callable[[Job], T], jobs: Sequence[Job], processes: int | None = None
) -> dict[Job, T]:
    """The row of every job, as JSON keeps it; ``measure`` runs in processes of one thread each."""
    path = KEPT / f"{name}-{digest()}.jsonl"
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


def made_rows(
    name: str,
    measure: Callable[[Job], Row],
    jobs: Sequence[Job],
    processes: int | None = None,
    *,
    add: bool,
    folder: Path,
) -> dict[Job, Made]:
    """The row of every job, published in ``folder``. ``add``: published rows are kept."""
    published = read_published(name, RESULTS) | read_published(name, folder) if add else {}
    left = [job for job in jobs if job not in published]
    found = rows(name, measure, left, processes) if left else {}
    made = published | {job: Made(row, digest(), this_machine()) for job, row in found.items()}
    publish_rows(name, made, folder)
    return {job: made[job] for job in jobs}


def publish_rows(name: str, made: Mapping[Job, Made], folder: Path) -> None:
    """As ``rows/NAME.csv``, numbers with six figures."""
    keys = dict.fromkeys(key for one in made.values() for key in one.row)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*FIRST_COLUMNS, *keys])
    for (way, clip), one in made.items():
        values = [f"{one.row[key]:.6g}" if key in one.row else "" for key in keys]
        lines.writerow([way, clip, one.code, one.machine, *values])
    path = folder / "rows" / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), encoding="utf-8")


def read_published(name: str, folder: Path) -> dict[Job, Made]:
    path = folder / "rows" / f"{name}.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        found = {}
        for line in csv.DictReader(file):
            way, clip, code, machine = (line.pop(key) for key in FIRST_COLUMNS)
            row = {key: float(value) for key, value in line.items() if value}
            found[way, int(clip)] = Made(row, code, machine)
        return found


def this_machine() -> str:
    return f"{cpu_name()}, torch {torch.__version__}"


def digest() -> str:
    """Of all code and weights that a row may depend on."""
    found = hashlib.sha256()
    for folder in MADE_OF:
        for path in sorted((ROOT / folder).rglob("*")):
            measures = "results" not in path.parts and path.name not in TELLING
            if measures and path.suffix in SUFFIXES:
                found.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _read(path: Path) -> dict[Job, Any]:
    """Whole lines only: the last one may be cut off."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    path.write_text("".join(json.dumps(row) + "\n" for row in told), encoding="utf-8")
    return {(name, clip): row for name, clip, row in told}
