"""How quality grows with the search, and how much its settings matter, on the tiny model.

Run ``python -m benchmarks.scaling``; it writes ``benchmarks/results/scaling.{json,md,png}``. First
beams and branches from 1 to 4 and refinement passes, then one setting at a time away from the
defaults, all with the three units. Clips of 241 frames, so that the window and the sinks matter.
Differences are to 2 x 2, the default.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_t1_core.config import Memory, NoisePropagation, Refine, Search

from .columns import head
from .compare import Comparison, command_line, compare, less
from .measured import Difference, Job, Row
from .page import Result, told_apart
from .plots import curves, ladder, panels
from .system import System, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 61  # latent
CALLS = "denoiser calls"
TOLD = ("every second right", "PSNR (dB)", "SSIM", "long reward")
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


def remarks(result: Result) -> list[str]:
    """What is better or worse than the default, column by column."""
    table = f"less {DEFAULT}"
    return [told_apart(table, result["differences"][table], key) for key in TOLD]


def plot(result: Result) -> "Figure":
    """What each search and each setting has more than the default. Above, over denoiser calls: a
    line for each number of beams, one for refining passes."""
    (table,) = result["means"].values()
    more = result["differences"][f"less {DEFAULT}"]
    default = dict.fromkeys(table[DEFAULT], Difference(0.0, 0.0, 0.0))
    cells = {name: {**more.get(name, default), CALLS: table[name][CALLS]} for name in table}
    ways = {f"{k} beam{'s' * (k > 1)}": [f"{k} x {m}" for m in (1, 2, 4)] for k in (1, 2, 4)}
    ways["2 x 2, refined"] = [DEFAULT, *PASSES]
    lines = {label: [cells[name] for name in names] for label, names in ways.items()}
    keys = ("oracle pass rate", "PSNR (dB)", "long reward")
    figure, axes = panels(6)
    curves(axes[:3], lines, CALLS, keys)
    for axis, key in zip(axes[3:], keys, strict=True):
        ladder(axis, {name: more[name][key] for name in SETTINGS})
        axis.tick_params(labelleft=axis is axes[3], labelsize=8)
    for axis, key in zip(axes, (*keys, *keys), strict=True):
        axis.set_title(f"{head(key)}, less {DEFAULT}", fontsize=10)
    return figure


COMPARISON = Comparison(
    name="scaling",
    about=__doc__,
    way="search",
    measure=measure_one,
    names=SYSTEMS,
    config=BASE.config(FRAMES, seed=0),
    differences=less(DEFAULT, SYSTEMS),
    plot=plot,
    remarks=remarks,
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=16).parse_args())
