"""What early pruning saves, and what it costs in quality, on the tiny model.

Run ``python -m benchmarks.early_pruning``; it writes
``benchmarks/results/early_pruning.{json,md,png}``. The search of ``benchmarks/systems.py`` with its
worst candidates dropped after one or two of four steps, beside searches that try fewer from the
start: what is dropped must lose less than what is never tried. Captions, judge, costs and intervals
are those of ``benchmarks/systems.py``; differences are to the search without early pruning. ``calls
saved`` counts denoiser calls; the look at the estimates is in the milliseconds.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stream_t1_core.config import EarlyPruning
from training.measure import SHORT_FRAMES

from .measured import RESULTS, Job, Mean, Row, differences, markdown, means, rows, write
from .system import System, measure
from .systems import UNITS
from .tiny_runs import FIRST_CLIP

WHOLE = "2 x 4, all to the end"
SAVED = "calls saved (%)"


def _searching(**changed: object) -> System:
    return replace(UNITS, search=replace(UNITS.search, **changed))


FEWER = {f"2 x {m} from the start": _searching(branch_factor=m) for m in (1, 2, 3)}
EARLY = {
    f"{share:.0%} dropped after step {step}": _searching(early=EarlyPruning(step, share))
    for step in (1, 2)
    for share in (0.25, 0.5, 0.75)
}
SYSTEMS = {WHOLE: UNITS, **FEWER, **EARLY}


def measure_one(job: Job) -> Row:
    row = measure(SYSTEMS[job[0]], job[1], SHORT_FRAMES)
    whole = UNITS.config(SHORT_FRAMES, 0).denoiser_calls
    return row | {SAVED: 100 * (1 - row["denoiser calls"] / whole)}


def plot(less: Mapping[str, Mapping[str, Mean]], path: Path) -> None:
    """What is lost over what is saved, a line for each way to save."""
    from matplotlib import pyplot

    lines = {"fewer from the start": [*FEWER]}
    lines |= {f"dropped after step {s}": [n for n in EARLY if n.endswith(str(s))] for s in (1, 2)}
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, key in zip(axes, ("oracle pass rate", "PSNR (dB)", "long reward"), strict=True):
        for label, names in lines.items():
            found = [(less[name][SAVED].mean, less[name][key]) for name in names]
            found.sort(key=lambda pair: pair[0])
            saved, y = [x for x, _ in found], [v.mean for _, v in found]
            spread = [[v.mean - v.low for _, v in found], [v.high - v.mean for _, v in found]]
            axis.errorbar(saved, y, spread, marker="o", capsize=3, label=label)
        axis.axhline(0, color="0.6", linewidth=1)
        axis.set_title(f"{key}, less {WHOLE}", fontsize=10)
        axis.set_xlabel(SAVED)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Calls saved and quality lost by early pruning.")
    parser.add_argument("--clips", type=int, default=64, help="captions")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [(name, clip) for clip in clips for name in SYSTEMS]
    found = rows("early_pruning", measure_one, jobs, options.processes)
    by_name = {name: [found[name, clip] for clip in clips] for name in SYSTEMS}
    table = {name: means(of) for name, of in by_name.items()}
    less = {n: differences(of, by_name[WHOLE]) for n, of in by_name.items() if n != WHOLE}
    columns = [key for key in table[WHOLE] if not key.startswith("second ")]
    parts = ((table, "search"), (less, f"less {WHOLE}"))
    words = "\n".join(markdown(part, corner, columns) for part, corner in parts)
    told = {"clips": options.clips, "latent_frames": SHORT_FRAMES}
    write("early_pruning", {**told, "searches": table, f"less {WHOLE}": less}, words)
    plot(less, RESULTS / "early_pruning.png")


if __name__ == "__main__":
    main()
