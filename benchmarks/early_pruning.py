"""What early pruning saves, and what it costs in quality, on the tiny model.

Run ``python -m benchmarks.early_pruning``; it writes
``benchmarks/results/early_pruning.{json,md,png}``. The search of ``benchmarks/systems.py`` with its
worst candidates dropped after one or two of four steps, beside searches that try fewer from the
start: what is dropped must lose less than what is never tried. The look at the estimates costs no
denoiser call; its time is in the milliseconds.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_t1_core.config import EarlyPruning
from training.measure import SHORT_FRAMES

from .compare import Comparison, command_line, compare, less
from .measured import Job, Row
from .page import Result
from .plots import curves, panels
from .system import System, measure
from .systems import UNITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def plot(result: Result) -> "Figure":
    """What is lost over what is saved, a line for each way to save."""
    more = result["differences"][f"less {WHOLE}"]
    ways = {"fewer from the start": [*FEWER]}
    ways |= {f"dropped after step {s}": [n for n in EARLY if n.endswith(str(s))] for s in (1, 2)}
    lines = {label: [more[name] for name in names] for label, names in ways.items()}
    figure, axes = panels(3)
    figure.suptitle(f"less {WHOLE}", fontsize=11)
    curves(axes, lines, SAVED, ("oracle pass rate", "PSNR (dB)", "long reward"))
    return figure


COMPARISON = Comparison(
    name="early_pruning",
    about=__doc__,
    way="search",
    measure=measure_one,
    names=SYSTEMS,
    config=UNITS.config(SHORT_FRAMES, seed=0),
    differences=less(WHOLE, SYSTEMS),
    plot=plot,
)

if __name__ == "__main__":
    compare(COMPARISON, command_line(__doc__, clips=64).parse_args())
