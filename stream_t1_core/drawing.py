"""What the pack's pictures are drawn with: a pen, its colours, and a panel for one curve.

Pillow's own font, so that the same picture comes out everywhere. It knows numbers and text, and
nothing of where they come from; text is drawn as it is, whatever it says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

FONT_SIZE = 13
GROUND, INK, FAINT, WHOLE = (255, 255, 255), (40, 40, 40), (222, 222, 222), (130, 130, 130)
COLOURS = ((31, 119, 180), (214, 90, 20), (44, 140, 60), (180, 40, 60), (120, 80, 170))
ABOVE, BELOW = 30, 22  # of the plot inside its panel
LONGEST = 1000  # characters that are looked at when text is made to fit


@dataclass(frozen=True, eq=False)
class Pen:
    draw: "ImageDraw"
    fonts: dict[int, "FreeTypeFont"] = field(default_factory=dict, repr=False)  # by size

    def font(self, size: int) -> "FreeTypeFont":
        from PIL import ImageFont

        if size not in self.fonts:
            self.fonts[size] = ImageFont.load_default(size)
        return self.fonts[size]

    def text(
        self,
        at: Point,
        text: str,
        anchor: str,
        fill: Colour = INK,
        size: int = FONT_SIZE,
        bold: bool = False,
    ) -> None:
        """One line of text; Pillow's font has no bold, so that is drawn twice, a pixel apart."""
        for shift in (0, 1) if bold else (0,):
            place = (at[0] + shift, at[1])
            self.draw.text(place, text, fill=fill, font=self.font(size), anchor=anchor)

    def dashes(self, left: float, right: float, y: float) -> None:
        for x in range(int(left), int(right), 8):
            self.draw.line([(x, y), (min(x + 4, right), y)], fill=WHOLE)

    def fitted(self, text: str, width: float, size: int = FONT_SIZE) -> str:
        """Text as one line of at most ``width`` pixels; what cannot be printed is left out."""
        line = "".join(c if c.isprintable() else " " for c in text[:LONGEST])
        line = " ".join(line.split())
        font = self.font(size)
        if len(text) <= LONGEST and font.getlength(line) <= width:
            return line
        while line and font.getlength(line + "...") > width:
            line = line[: -max(1, len(line) // 20)]
        return line.rstrip() + "..."


@dataclass(frozen=True)
class Curve:
    """A number for each chunk, NaN where there is none."""

    heading: str
    colour: Colour
    chunks: Sequence[float]
    note: str = ""  # at the right of the heading
    whole: float = math.nan  # one number for the whole, as a dashed line


def draw_panel(pen: Pen, curve: Curve, box: tuple[float, float, float, float]) -> None:
    """A curve in ``box`` (left, top, right, bottom); its axis numbers stand left of that."""
    left, top, right, bottom = box
    upper, lower = top + ABOVE, bottom - BELOW
    pen.draw.rectangle([(left, top + 11), (left + 9, top + 20)], fill=curve.colour)
    room = right - left - 32 - pen.font(FONT_SIZE).getlength(curve.note)
    pen.text((left + 16, top + 16), pen.fitted(curve.heading, room), "lm")
    pen.text((right, top + 16), curve.note, "rm")
    shown = [score for score in (curve.whole, *curve.chunks) if math.isfinite(score)]
    ticks = axis_ticks(min(shown), max(shown)) if shown else []
    least, span = (ticks[0], ticks[-1] - ticks[0]) if ticks else (0.0, 1.0)

    def y(value: float) -> float:
        return lower - (value - least) / span * (lower - upper)

    def x(chunk: int) -> float:
        return left + (chunk + 0.5) / len(curve.chunks) * (right - left)

    for value in ticks:
        pen.draw.line([(left, y(value)), (right, y(value))], fill=FAINT)
        pen.text((left - 6, y(value)), f"{value:.6g}", "rm")
    for chunk in _labelled(len(curve.chunks)):
        pen.text((x(chunk), lower + 11), str(chunk + 1), "mm")
    if not shown:
        pen.text(((left + right) / 2, (upper + lower) / 2), "no score", "mm", WHOLE)
    if math.isfinite(curve.whole):
        pen.dashes(left, right, y(curve.whole))
    for run in _unbroken(curve.chunks):
        points = [(x(chunk), y(curve.chunks[chunk])) for chunk in run]
        pen.draw.line(points, fill=curve.colour, width=2)
        for px, py in points:
            pen.draw.ellipse([(px - 2, py - 2), (px + 2, py + 2)], fill=curve.colour)
    pen.draw.rectangle([(left, upper), (right, lower)], outline=INK)


def axis_ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that enclose ``low`` and ``high``, evenly spaced."""
    if high - low < max(1e-6 * max(abs(low), abs(high)), 1e-300):
        room = 0.05 * max(abs(low), abs(high)) or 1.0
        low, high = low - room, high + room
    power = 10 ** math.floor(math.log10((high - low) / 4))
    for step in (1, 2, 2.5, 5, 10, 20):
        first, last = math.floor(low / (step * power)), math.ceil(high / (step * power))
        if last - first <= 4:
            break
    last = max(last, first + 2)
    return [step * power * i for i in range(first, last + 1)]


def pixels(image: "Image") -> Tensor:
    """An RGB image as [1, H, W, 3] in 0..1."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(1, image.height, image.width, 3).float() / 255


def _labelled(count: int) -> list[int]:
    """Which chunks get their number, from 1, written: all, or those with a round one."""
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, count) if count / n <= 16)
    return [chunk for chunk in range(count) if (chunk + 1) % every == 0]


def _unbroken(scores: Sequence[float]) -> list[list[int]]:
    """Indices of finite scores, in runs without a gap."""
    runs: list[list[int]] = [[]]
    for i, score in enumerate(scores):
        if math.isfinite(score):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
