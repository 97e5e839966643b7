"""How quality grows with the search, and how much its settings matter, on the tiny model.

Run ``python -m benchmarks.scaling``; it writes ``benchmarks/results/scaling.{json,md,png}``. First
beams and branches from 1 to 4 and refinement passes, then one setting at a time away from the
defaults, all with the three units. Clips of 241 frames, so that the window and the sinks matter.
Captions, judge, costs and intervals are those of ``benchmarks/systems.py``; differences are to
2 x 2, the default.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stream_t1_core.config import Memory, NoisePropagation, Refine, Search

from .measured import RESULTS, Job, Mean, Row, differences, markdown, means, rows, write
from .system import System, measure
from .tiny_runs import FIRST_CLIP

FRAMES = 61  # latent
DEFAULT = "2 x 2"
BASE = System(Search(2, 2, standardise=True), NoisePropagation(), Memory())
SIZES = {
    f"{k} x {m}": replace(BASE, search=replace(BASE.search, beam_width=k, branch_factor=m))
    for k in (1, 2, 4)
    for m in (1, 2, 4)
}
PASSES = {f"2 x 2, {n} passes": replace(BASE, refine=Refine(passes=n)) for n in (1, 2, 4)}


def _memory(**changed: float) -> System:
    return replace(BASE, memory=replace(BASE.memory, **changed))


SETTINGS = {
    **{f"beta {b}": replace(BASE, noise=NoisePropagation(b)) for b in (-0.5, 0.1, 0.5)},
    **{f"tau {t}": replace(BASE, search=replace(BASE.search, tau=t)) for t in (0.0, 0.7, 1.0)},
    **{f"short gate {g}": _memory(short_gate=g) for g in (-1.0, 1.0)},
    **{f"long gate {g}": _memory(long_gate=g) for g in (0.0, 1.0)},
    **{f"alpha {a}": _memory(alpha=a) for a in (0.5, 0.9)},
    **{f"window {w}": _memory(window_frames=w) for w in (9, 18)},
    **{f"sinks up to {s}": _memory(max_sink_frames=s) for s in (3, 9)},
}
SYSTEMS = {**SIZES, **PASSES, **SETTINGS}


def measure_one(job: Job) -> Row:
    return measure(SYSTEMS[job[0]], job[1], FRAMES)


def plot(table: Mapping[str, Mapping[str, Mean]], path: Path) -> None:
    """Quality over denoiser calls, a line for each number of beams and one for passes."""
    from matplotlib import pyplot

    lines = {f"{k} beams": [f"{k} x {m}" for m in (1, 2, 4)] for k in (1, 2, 4)}
    lines["refinement"] = [DEFAULT, *PASSES]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, key in zip(axes, ("oracle pass rate", "PSNR (dB)", "long reward"), strict=True):
        for label, names in lines.items():
            x = [table[name]["denoiser calls"].mean for name in names]
            y = [table[name][key] for name in names]
            spread = [[v.mean - v.low for v in y], [v.high - v.mean for v in y]]
            axis.errorbar(x, [v.mean for v in y], spread, marker="o", capsize=3, label=label)
        axis.set_title(key, fontsize=10)
        axis.set_xlabel("denoiser calls")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Size and settings of the search.")
    parser.add_argument("--clips", type=int, default=16, help="captions")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    jobs = [(name, clip) for clip in clips for name in SYSTEMS]
    found = rows("scaling", measure_one, jobs, options.processes)
    by_name = {name: [found[name, clip] for clip in clips] for name in SYSTEMS}
    table = {name: means(of) for name, of in by_name.items()}
    less = {n: differences(of, by_name[DEFAULT]) for n, of in by_name.items() if n != DEFAULT}
    columns = [key for key in table[DEFAULT] if not key.startswith("second ")]
    parts = ((table, "search"), (less, f"less {DEFAULT}"))
    words = "\n".join(markdown(part, corner, columns) for part, corner in parts)
    told = {"clips": options.clips, "latent_frames": FRAMES}
    write("scaling", {**told, "searches": table, f"less {DEFAULT}": less}, words)
    plot(table, RESULTS / "scaling.png")


if __name__ == "__main__":
    main()
