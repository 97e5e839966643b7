"""Ways to make a video, measured on the same captions and seeds, and set against each other.

What benchmarks that compare share: their command line, the jobs, the means and differences, and
the page. Knows nothing of how a way makes its video.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stream_t1_core.config import StreamConfig

from .measured import Job, Row, differences, folder_for, means
from .page import Result, publish
from .rows import digest, made_rows, this_machine
from .tiny_runs import FIRST_CLIP

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = ("search", "noise", "memory")
Pairs = Mapping[str, tuple[str, str]]  # what has more and what less, by row


@dataclass(frozen=True)
class Comparison:
    """``about``: the benchmark's docstring; ``way``: what a name stands for; ``config``: what holds
    unless a name says otherwise; ``differences``: pairs by table; ``remarks``: sentences."""

    name: str
    about: str
    way: str
    measure: Callable[[Job], Row]
    names: Collection[str]
    config: StreamConfig
    differences: Mapping[str, Pairs]
    plot: Callable[[Result], "Figure"] | None = None
    remarks: Callable[[Result], Sequence[str]] | None = None


def less(base: str, names: Collection[str]) -> dict[str, Pairs]:
    """What all others have more than ``base``."""
    return {f"less {base}": {name: (name, base) for name in names if name != base}}


def settings(config: StreamConfig) -> dict[str, dict[str, Any] | None]:
    """Unit by unit; None where one is off."""
    units = {name: getattr(config, name) for name in UNITS}
    return {name: unit and asdict(unit) for name, unit in units.items()}


def command_line(about: str, clips: int, adds: bool = True) -> argparse.ArgumentParser:
    """``clips``: captions, unless told otherwise; ``adds``: it publishes rows, and may add some."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=count, default=clips, help=f"captions (default: {clips})")
    parser.add_argument("--processes", type=count, default=os.cpu_count(), help="at a time")
    if adds:
        parser.add_argument(
            "--add",
            action="store_true",
            help="keep the rows in results/rows, whatever version of the code made them",
        )
    return parser


def count(text: str) -> int:
    """A command line's number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give 1 or more")
    return int(text)


def compare(comparison: Comparison, options: argparse.Namespace) -> None:
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    folder = folder_for(comparison.name, options.clips)
    jobs = [(name, clip) for clip in clips for name in comparison.names]
    made = made_rows(
        comparison.name, comparison.measure, jobs, options.processes, add=options.add, folder=folder
    )
    by_name = {name: [made[name, clip].row for clip in clips] for name in comparison.names}
    result = {
        "clips": options.clips,
        "first_clip": FIRST_CLIP,
        "latent_frames": comparison.config.latent_frames,
        "settings": settings(comparison.config),
        "means": {comparison.way: {name: means(of) for name, of in by_name.items()}},
        "differences": {
            table: {row: differences(by_name[a], by_name[b]) for row, (a, b) in pairs.items()}
            for table, pairs in comparison.differences.items()
        },
    }
    makers = Counter((one.machine, one.code) for one in made.values())
    if makers.keys() != {(this_machine(), digest())}:
        result["rows_made_by"] = {f"{on}, code {code}": n for (on, code), n in makers.items()}
    if comparison.remarks:
        result["remarks"] = comparison.remarks(result)
    publish(comparison.name, comparison.about, result, comparison.plot, folder)
