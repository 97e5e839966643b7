"""Draw an evaluation: a panel for each reward, with its score of every chunk and of the whole.

Rewards have scales of their own, so panels do. A missing score is a gap in the line. It knows an
``Evaluation`` and nothing of how it came about; the same one gives the same picture.
"""

import math

from torch import Tensor

from .drawing import COLOURS, GROUND, INK, Curve, Pen, draw_panel, pixels
from .evaluate import Evaluation, Marks

WIDTH = 640
PANEL = 132  # pixels from one panel's top to the next one's
LEFT, RIGHT = 72, 20  # beside the panels
FOOT = 26  # for the legend below all panels


def draw_curves(evaluation: Evaluation) -> Tensor:
    """The picture as [1, H, 640, 3] in 0..1."""
    from PIL import Image, ImageDraw

    curves = [
        _curve(marks, f"{marks.name} (weight {marks.weight:g})", COLOURS[i % len(COLOURS)])
        for i, marks in enumerate(evaluation.marks)
    ]
    if len(curves) > 1:
        curves.append(_curve(evaluation.total, "total (weighted sum)", INK))
    height = PANEL * len(curves) + FOOT
    image = Image.new("RGB", (WIDTH, height), GROUND)
    pen = Pen(ImageDraw.Draw(image))
    for i, curve in enumerate(curves):
        draw_panel(pen, curve, (LEFT, PANEL * i, WIDTH - RIGHT, PANEL * (i + 1)))
    _legend(pen, height - FOOT // 2)
    return pixels(image)


def _curve(marks: Marks, heading: str, colour: tuple[int, int, int]) -> Curve:
    whole = f"video {marks.video:.4g}" if math.isfinite(marks.video) else "video: no score"
    return Curve(heading, colour, marks.chunks, whole, marks.video)


def _legend(pen: Pen, y: int) -> None:
    pen.draw.line([(LEFT, y), (LEFT + 20, y)], fill=INK, width=2)
    pen.draw.ellipse([(LEFT + 8, y - 2), (LEFT + 12, y + 2)], fill=INK)
    pen.text((LEFT + 28, y), "each chunk, by number", "lm")
    pen.dashes(LEFT + 200, LEFT + 224, y)
    pen.text((LEFT + 230, y), "the whole video", "lm")
