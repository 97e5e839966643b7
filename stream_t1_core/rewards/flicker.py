"""Flicker: light and colour that jump to and fro. Knows frame colours only; uses no flow."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Clips
from .flow import shrink

CELLS = 4  # the picture is cut into CELLS x CELLS cells; motion inside one cancels out


@dataclass(frozen=True)
class Flicker:
    """Minus how far each cell's colour jumps off the line between the frames around it.

    Unit: percent of full scale, mean of |c[t] - (c[t-1] + c[t+1]) / 2| over RGB, 4 x 4 cells and
    time; range -100..0. Source: VBench's temporal flickering is the mean absolute difference of
    neighbouring frames, which every motion and fade pays for. Ours looks at cell means and their
    second difference, so steady motion and slow fades cost next to nothing.
    Limits: flicker finer than a cell is left to temporal consistency; fewer than 3 frames score 0.
    """

    name: str = "flicker"

    def __call__(self, clips: Clips) -> Tensor:
        return torch.stack([_steadiness(clip) for clip in clips.frames])


def _steadiness(clip: Tensor) -> Tensor:
    """[T, H, W, 3] -> scalar."""
    cells = torch.stack([_cells(frame) for frame in clip])  # [T, 3, CELLS, CELLS]
    if len(clip) < 3:
        return 0 * cells.mean()  # a broken frame stays visible as NaN
    jump = cells[1:-1] - (cells[:-2] + cells[2:]) / 2
    return -100 * jump.abs().mean()


def _cells(frame: Tensor) -> Tensor:
    """[H, W, 3] -> [3, CELLS, CELLS]."""
    return F.adaptive_avg_pool2d(shrink(frame[None])[0], CELLS)
