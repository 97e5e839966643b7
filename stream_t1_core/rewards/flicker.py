"""Flicker: light and colour that jump to and fro, by our measure and by VBench's.

Knows frame colours only; uses no flow.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Clips, Footage, FootageReward
from .flow import shrink
from .vision import to_bytes

CELLS = 4  # the picture is cut into CELLS x CELLS cells; motion inside one cancels out


@dataclass(frozen=True)
class Flicker(FootageReward):
    """Minus how far each cell's colour jumps off the line between the frames around it.

    Unit: percent of full scale, mean of |c[t] - (c[t-1] + c[t+1]) / 2| over RGB, 4 x 4 cells and
    time; range -100..0. Source: VBench's temporal flickering is the mean absolute difference of
    neighbouring frames, which every motion and fade pays for. Ours looks at cell means and their
    second difference, so steady motion and slow fades cost next to nothing.
    Limits: flicker finer than a cell is left to temporal consistency; fewer than 3 frames score 0.
    """

    name: str = "flicker"

    def of_footage(self, footage: Footage) -> Tensor:
        return torch.stack([_steadiness(clip) for clip in footage.marks(_cells)])


@dataclass(frozen=True)
class TemporalFlickering:
    """How alike neighbouring frames are: 1 - their mean absolute difference, 1 being full scale.

    Unit: none; range 0..1, mostly above 0.9. Source: VBench's temporal flickering (Huang et al.
    2024), (255 - mean absolute error) / 255 of 8-bit frames, mean over neighbours.
    Limits: meant for scenes that should not move: every motion and fade pays. Needs two frames.
    """

    name: str = "temporal_flickering"

    def __call__(self, clips: Clips) -> Tensor:
        if clips.frames.shape[1] < 2:
            raise ValueError(f"{self.name} compares frames, the clip has one: use longer chunks")
        return torch.stack([1 - _change(clip) / 255 for clip in clips.frames])


def _change(clip: Tensor) -> Tensor:
    """[T, H, W, 3] -> scalar in 0..255; a pair at a time to keep memory small."""
    pairs = zip(clip, clip[1:], strict=False)
    return torch.stack(
        [to_bytes(torch.stack(pair)).diff(dim=0).abs().mean() for pair in pairs]
    ).mean()


def _steadiness(cells: Tensor) -> Tensor:
    """[T, n] -> scalar."""
    if len(cells) < 3:
        return 0 * cells.mean()  # a broken frame stays visible as NaN
    jump = cells[1:-1] - (cells[:-2] + cells[2:]) / 2
    return -100 * jump.abs().mean()


def _cells(clip: Tensor) -> Tensor:
    """[T, H, W, 3] -> [T, 3 * CELLS * CELLS], frame by frame to keep memory small."""
    pooled = [F.adaptive_avg_pool2d(shrink(frame[None])[0], CELLS) for frame in clip]
    return torch.stack(pooled).flatten(1)
