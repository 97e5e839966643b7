"""Does the search help, and which unit does what? The tiny model, systems side by side.

Run ``python -m benchmarks.systems`` for clips of 81 frames, with ``--long`` for 481; it writes
``benchmarks/results/systems{,_long}.{json,md,png}``. Every system makes the same captions, which
training never saw, from the same seeds. All but plain streaming and best of 4 make about as many
denoiser calls; best of 4 takes about the seconds of a search, for whole videos are made one after
the other and a search's candidates in one batch. Costs are processor time of one thread. In
brackets: 95 % intervals over captions; differences are taken caption by caption.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from stream_t1_core.config import FIXED_SINK, Memory, NoisePropagation, Search
from training.measure import LONG_FRAMES, SHORT_FRAMES

from .measured import RESULTS, Job, Mean, Row, differences, markdown, means, rows, write
from .system import System, measure
from .tiny_runs import FIRST_CLIP

FULL, PLAIN = "Stream-T1", "plain streaming"
BEAM = Search(beam_width=2, branch_factor=4, standardise=True)
UNITS = System(BEAM, NoisePropagation(), Memory())
SYSTEMS = {
    PLAIN: System(None),
    "best of 4 videos": System(None, videos=4),
    "best of 7 videos": System(None, videos=7),
    "greedy, 1 x 8": System(replace(BEAM, beam_width=1, branch_factor=8)),
    "beam 2 x 4, no units": System(BEAM),
    FULL: UNITS,
    "without noise propagation": replace(UNITS, noise=None),
    "without reward pruning": replace(UNITS, lot=True),
    "without memory sinking": replace(UNITS, memory=FIXED_SINK),
    "without any sink": replace(UNITS, memory=Memory(sink_frames=0, routing=False)),
}


def measure_short(job: Job) -> Row:
    return measure(SYSTEMS[job[0]], job[1], SHORT_FRAMES)


def measure_long(job: Job) -> Row:
    return measure(SYSTEMS[job[0]], job[1], LONG_FRAMES)


def plot(
    table: Mapping[str, Mapping[str, Mean]], less: Mapping[str, Mapping[str, Mean]], path: Path
) -> None:
    """What each system has more than plain streaming, and how videos fare with time."""
    from matplotlib import pyplot

    shown = ("oracle pass rate", "PSNR (dB)", "long reward")
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 4.2), layout="constrained")
    names = [*less][::-1]
    for axis, key in zip(axes, shown, strict=False):
        for place, name in enumerate(names):
            found = less[name][key]
            colour = "tab:orange" if name == FULL else "tab:blue"
            axis.plot([found.low, found.high], [place, place], color=colour)
            axis.plot(found.mean, place, "o", color=colour)
        axis.axvline(0, color="0.6", linewidth=1)
        axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
        axis.set_title(f"{key}, less {PLAIN}", fontsize=10)
        axis.grid(alpha=0.3, axis="x")
    for name in (PLAIN, "best of 7 videos", "beam 2 x 4, no units", FULL):
        rates = [v.mean for key, v in table[name].items() if key.endswith(": right")]
        axes[3].plot(range(1, len(rates) + 1), rates, marker=".", label=name)
    axes[3].set_title("oracle pass rate of each second", fontsize=10)
    axes[3].set_xlabel("second")
    axes[3].grid(alpha=0.3)
    axes[3].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Systems side by side on the tiny model.")
    parser.add_argument("--clips", type=int, default=64, help="captions")
    parser.add_argument("--long", action="store_true", help="481 frames instead of 81")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    name, run = ("systems_long", measure_long) if options.long else ("systems", measure_short)
    clips = range(FIRST_CLIP, FIRST_CLIP + options.clips)
    found = rows(name, run, [(s, clip) for clip in clips for s in SYSTEMS], options.processes)
    by_system = {s: [found[s, clip] for clip in clips] for s in SYSTEMS}
    table = {s: means(of) for s, of in by_system.items()}
    less = {s: differences(of, by_system[PLAIN]) for s, of in by_system.items() if s != PLAIN}
    ours = {
        f"{FULL} less {s}": differences(by_system[FULL], of)
        for s, of in by_system.items()
        if s not in (FULL, PLAIN)
    }
    columns = [key for key in table[FULL] if not key.startswith("second ")]
    parts = ((table, "system"), (less, f"less {PLAIN}"), (ours, "difference"))
    words = "\n".join(markdown(part, corner, columns) for part, corner in parts)
    frames = LONG_FRAMES if options.long else SHORT_FRAMES
    told = {"clips": options.clips, "latent_frames": frames, "beam": vars(BEAM)}
    write(name, {**told, "systems": table, "less plain": less, "Stream-T1 less": ours}, words)
    plot(table, less, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
