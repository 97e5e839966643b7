"""Drift: do exposure and colour stay those of the first chunk? Knows colour statistics only."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Footage, FootageReward
from .flow import grey, shrink


@dataclass(frozen=True)
class ColourDrift(FootageReward):
    """Minus the distance of each frame's colour statistics from those of ``clips.first``.

    Statistics: mean and standard deviation of luma Y (BT.601) and of the differences R - Y and
    B - Y, on frames shrunk to 128 pixels. Unit: percent of full scale, mean absolute distance over
    the six and over frames; range -100..0. Source: colour moments, as Reinhard et al. 2001 match.
    Limits: a scene meant to change its light, or a big object coming in, pays as well; where in the
    picture a colour is does not count.
    """

    name: str = "colour_drift"

    def of_footage(self, footage: Footage) -> Tensor:
        pairs = zip(footage.marks(_statistics), footage.first_marks(_statistics), strict=True)
        distances = [(clip - first.mean(dim=0)).abs().mean() for clip, first in pairs]
        return -100 * torch.stack(distances)


def _statistics(clip: Tensor) -> Tensor:
    """[T, H, W, 3] -> [T, 6], frame by frame to keep memory small."""
    return torch.cat([_moments(shrink(frame[None])) for frame in clip])


def _moments(picture: Tensor) -> Tensor:
    """[1, 3, h, w] -> [1, 6]."""
    red, _, blue = picture.split(1, dim=1)
    luma = grey(picture)
    opponent = torch.cat([luma, red - luma, blue - luma], dim=1).flatten(2)  # [1, 3, h * w]
    spread, mean = torch.std_mean(opponent, dim=2, correction=0)
    return torch.cat([mean, spread], dim=1)
