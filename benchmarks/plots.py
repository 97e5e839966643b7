"""Pictures of means with their intervals. Knows nothing of what is measured."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .columns import head
from .measured import Difference, Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Cells = Mapping[str, Mean]
PANEL = 4.2, 3.4  # inches, width and height


def panels(count: int) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels, three beside each other."""
    from matplotlib.figure import Figure

    rows = count // 3
    figure = Figure((3 * PANEL[0], rows * PANEL[1]), layout="constrained")
    axes = list(figure.subplots(rows, 3).flat)
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def curves(
    axes: Sequence["Axes"], lines: Mapping[str, Sequence[Cells]], x: str, keys: Sequence[str]
) -> None:
    """Each key over ``x`` in a panel of its own; a line joins its rows in order of ``x``."""
    for axis, key in zip(axes, keys, strict=True):
        for label, rows in lines.items():
            ordered = sorted(rows, key=lambda row: row[x].mean)
            y = [row[key] for row in ordered]
            spread = [[v.mean - v.low for v in y], [v.high - v.mean for v in y]]
            places = [row[x].mean for row in ordered]
            axis.errorbar(places, [v.mean for v in y], spread, marker="o", capsize=3, label=label)
        if any(isinstance(row[key], Difference) for rows in lines.values() for row in rows):
            axis.axhline(0, color="0.6", linewidth=1)
        axis.set_title(head(key), fontsize=10)
        axis.set_xlabel(x)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=5)


def ladder(axis: "Axes", found: Mapping[str, Mean | None], marked: str = "") -> None:
    """Names down the side, each with its mean and interval; ``marked`` in another colour."""
    for place, (name, value) in enumerate(found.items()):
        if value:
            colour = "tab:orange" if name == marked else "tab:blue"
            axis.plot([value.low, value.high], [place, place], color=colour)
            axis.plot(value.mean, place, "o", color=colour)
    axis.set_yticks(range(len(found)), [*found])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.locator_params(axis="x", nbins=5)
    axis.grid(alpha=0.3, axis="x")
    if any(isinstance(value, Difference) for value in found.values()):
        axis.axvline(0, color="0.6", linewidth=1)
