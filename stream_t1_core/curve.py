"""Draw an evaluation: a panel for each reward, with its score of every chunk and of the whole.

Rewards have scales of their own, so panels do. A missing score is a gap in the line. It knows an
``Evaluation`` and nothing of how it came about; the same one gives the same picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .evaluate import Evaluation, Marks

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]

WIDTH = 640
PANEL = 132  # pixels from one panel's top to the next one's
LEFT, RIGHT, ABOVE, BELOW = 72, 20, 30, 22  # of the plot inside its panel
FOOT = 26  # for the legend below all panels
FONT_SIZE = 13
GROUND, INK, FAINT, WHOLE = (255, 255, 255), (40, 40, 40), (222, 222, 222), (130, 130, 130)
COLOURS = ((31, 119, 180), (214, 90, 20), (44, 140, 60), (180, 40, 60), (120, 80, 170))


def draw_curves(evaluation: Evaluation) -> Tensor:
    """The picture as [1, H, 640, 3] in 0..1."""
    from PIL import Image, ImageDraw, ImageFont

    panels = [
        (marks, f"{marks.name}  (weight {marks.weight:g})", COLOURS[i % len(COLOURS)])
        for i, marks in enumerate(evaluation.marks)
    ]
    if len(panels) > 1:
        panels.append((evaluation.total, "total  (weighted sum)", INK))
    height = PANEL * len(panels) + FOOT
    image = Image.new("RGB", (WIDTH, height), GROUND)
    pen = _Pen(ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE))
    for i, (marks, heading, colour) in enumerate(panels):
        _panel(pen, marks, heading, colour, PANEL * i)
    _legend(pen, height - FOOT // 2)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(1, height, WIDTH, 3).float() / 255


@dataclass(frozen=True)
class _Pen:
    draw: "ImageDraw"
    font: "FreeTypeFont"

    def text(self, at: tuple[float, float], text: str, anchor: str, fill: Colour = INK) -> None:
        self.draw.text(at, text, fill=fill, font=self.font, anchor=anchor)

    def dashes(self, left: float, right: float, y: float) -> None:
        for x in range(int(left), int(right), 8):
            self.draw.line([(x, y), (min(x + 4, right), y)], fill=WHOLE)


def _panel(pen: _Pen, marks: Marks, heading: str, colour: Colour, top: int) -> None:
    left, right = LEFT, WIDTH - RIGHT
    upper, lower = top + ABOVE, top + PANEL - BELOW
    pen.draw.rectangle([(left, top + 11), (left + 9, top + 20)], fill=colour)
    pen.text((left + 16, top + 16), heading, "lm")
    whole = f"video {marks.video:.4g}" if math.isfinite(marks.video) else "video: no score"
    pen.text((right, top + 16), whole, "rm")
    shown = [score for score in (marks.video, *marks.chunks) if math.isfinite(score)]
    ticks = axis_ticks(min(shown), max(shown)) if shown else []
    bottom, span = (ticks[0], ticks[-1] - ticks[0]) if ticks else (0.0, 1.0)

    def y(value: float) -> float:
        return lower - (value - bottom) / span * (lower - upper)

    def x(chunk: int) -> float:
        return left + (chunk + 0.5) / len(marks.chunks) * (right - left)

    for value in ticks:
        pen.draw.line([(left, y(value)), (right, y(value))], fill=FAINT)
        pen.text((left - 6, y(value)), f"{value:.6g}", "rm")
    for chunk in _labelled(len(marks.chunks)):
        pen.text((x(chunk), lower + 11), str(chunk), "mm")
    if not shown:
        pen.text(((left + right) / 2, (upper + lower) / 2), "no score", "mm", WHOLE)
    if math.isfinite(marks.video):
        pen.dashes(left, right, y(marks.video))
    for run in _unbroken(marks.chunks):
        points = [(x(chunk), y(marks.chunks[chunk])) for chunk in run]
        pen.draw.line(points, fill=colour, width=2)
        for px, py in points:
            pen.draw.ellipse([(px - 2, py - 2), (px + 2, py + 2)], fill=colour)
    pen.draw.rectangle([(left, upper), (right, lower)], outline=INK)


def _legend(pen: _Pen, y: int) -> None:
    pen.draw.line([(LEFT, y), (LEFT + 20, y)], fill=INK, width=2)
    pen.draw.ellipse([(LEFT + 8, y - 2), (LEFT + 12, y + 2)], fill=INK)
    pen.text((LEFT + 28, y), "each chunk, by number", "lm")
    pen.dashes(LEFT + 200, LEFT + 224, y)
    pen.text((LEFT + 230, y), "the whole video", "lm")


def axis_ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that enclose ``low`` and ``high``, evenly spaced."""
    if high - low < 1e-6 * max(abs(low), abs(high)) or high == low:
        room = 0.05 * max(abs(low), abs(high)) or 1.0
        low, high = low - room, high + room
    power = 10 ** math.floor(math.log10((high - low) / 4))
    for step in (1, 2, 2.5, 5, 10, 20):
        first, last = math.floor(low / (step * power)), math.ceil(high / (step * power))
        if last - first <= 4:
            break
    last = max(last, first + 2)
    return [step * power * i for i in range(first, last + 1)]


def _labelled(count: int) -> range:
    """Which chunks get their number written: all, or every so many."""
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, count) if count / n <= 16)
    return range(0, count, every)


def _unbroken(scores: Sequence[float]) -> list[list[int]]:
    """Indices of finite scores, in runs without a gap."""
    runs: list[list[int]] = [[]]
    for i, score in enumerate(scores):
        if math.isfinite(score):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
