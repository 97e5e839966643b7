"""Does the search help, and which unit does what? The tiny model, systems side by side.

Run ``python -m benchmarks.systems`` for clips of 81 frames, with ``--long`` for 481; it writes
``benchmarks/results/systems{,_long}.{json,md,png}``. All but plain streaming and best of 4 make
about as many denoiser calls; best of 4 takes about the seconds of a search, for whole videos are
made one after the other and a search's candidates in one batch. Best of N keeps the video that the
search's own rewards rank first. ``without reward pruning`` draws survivors and video by lot;
``without memory sinking`` keeps the first chunk as a fixed sink.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stream_t1_core.config import FIXED_SINK, Memory, NoisePropagation, Search
from training.measure import LONG_FRAMES, SHORT_FRAMES

from .columns import SECOND, head
from .compare import Comparison, command_line, compare, less
from .measured import Job, Mean, Row
from .page import Result, verdict
from .plots import PANEL, ladder
from .system import System, measure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FULL, PLAIN = "Stream-T1", "plain streaming"
BEST, NO_UNITS = ("best of 4 videos", "best of 7 videos"), "beam 2 x 4, no units"
BEAM = Search(beam_width=2, branch_factor=4, standardise=True)
UNITS = System(BEAM, NoisePropagation(), Memory())
SYSTEMS = {
    PLAIN: System(None),
    BEST[0]: System(None, videos=4),
    BEST[1]: System(None, videos=7),
    "greedy, 1 x 8": System(replace(BEAM, beam_width=1, branch_factor=8)),
    NO_UNITS: System(BEAM),
    FULL: UNITS,
    "without noise propagation": replace(UNITS, noise=None),
    "without reward pruning": replace(UNITS, lot=True),
    "without memory sinking": replace(UNITS, memory=FIXED_SINK),
    "without any sink": replace(UNITS, memory=Memory(sink_frames=0, routing=False)),
}
OURS = f"{FULL} less"
SHOWN = ("oracle pass rate", "PSNR (dB)", "short reward", "long reward")
APART = "candidates apart (%)"


def measure_short(job: Job) -> Row:
    return measure(SYSTEMS[job[0]], job[1], SHORT_FRAMES)


def measure_long(job: Job) -> Row:
    return measure(SYSTEMS[job[0]], job[1], LONG_FRAMES)


def remarks(result: Result) -> Sequence[str]:
    """What the search adds to whole videos, and the units to the search."""
    found = result["differences"][OURS]
    return [verdict(f"{OURS} {other}", found[other]) for other in (*BEST, NO_UNITS)]


def plot(result: Result) -> "Figure":
    """Above, what each system has more than plain streaming, by the oracle, by the nearest drawn
    clip and by the rewards that the search went by; and how far apart candidates are. Below, the
    oracle pass rate of each second, beside plain streaming's in grey: most objects leave by an edge
    in the second to fourth second and come in by the other."""
    from matplotlib.figure import Figure

    (table,) = result["means"].values()
    more = result["differences"][f"less {PLAIN}"]
    figure = Figure((5 * PANEL[0], 3 * PANEL[1]), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 2))
    axes = above.subplots(1, 5, sharey=True)
    for axis, key in zip(axes, SHOWN, strict=False):
        ladder(axis, {name: row[key] for name, row in more.items()}, FULL)
        axis.set_title(f"{head(key)}, less {PLAIN}", fontsize=10)
    ladder(axes[-1], {name: table[name].get(APART) for name in more}, FULL)
    axes[-1].set_title(APART, fontsize=10)
    plain = _seconds(table[PLAIN])
    numbers = range(1, len(plain) + 1)
    axes = below.subplots(2, 5, sharex=True, sharey=True).flat
    for axis, (name, row) in zip(axes, table.items(), strict=True):
        colour, seconds = "tab:orange" if name == FULL else "tab:blue", _seconds(row)
        low, high = [s.low for s in seconds], [s.high for s in seconds]
        axis.plot(numbers, [s.mean for s in plain], color="0.5")
        axis.plot(numbers, [s.mean for s in seconds], color=colour)
        axis.fill_between(numbers, low, high, color=colour, alpha=0.2)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    below.supxlabel("second", fontsize=10)
    below.supylabel("oracle pass rate of that second", fontsize=10)
    return figure


def _seconds(row: Mapping[str, Mean]) -> list[Mean]:
    """How many clips are right in each second."""
    return [value for key, value in row.items() if key.startswith(SECOND) and "right" in key]


def main() -> None:
    parser = command_line(__doc__, clips=64)
    parser.add_argument("--long", action="store_true", help="481 frames instead of 81")
    options = parser.parse_args()
    against = {other: (FULL, other) for other in SYSTEMS if other not in (FULL, PLAIN)}
    comparison = Comparison(
        name="systems_long" if options.long else "systems",
        about=__doc__,
        way="system",
        measure=measure_long if options.long else measure_short,
        names=SYSTEMS,
        config=UNITS.config(LONG_FRAMES if options.long else SHORT_FRAMES, seed=0),
        differences={**less(PLAIN, SYSTEMS), OURS: against},
        plot=plot,
        remarks=remarks,
    )
    compare(comparison, options)


if __name__ == "__main__":
    main()
