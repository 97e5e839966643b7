"""Two rewards that look at optical flow: does each frame follow from the last, and does it move?

They know luma and colour of neighbouring frames. Pictures are shrunk to 128 pixels, so faults finer
than that are not seen. A clip of one frame shows no motion and scores 0. Flow costs far more than
what is read from it, so both read the same: a search with both pays for one.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Footage, FootageReward
from .flow import flow, grey, inside, shrink, warp

SLICE_FRAMES = 16  # frames looked at together: bounds the memory of long clips
HIDDEN_WEIGHT = 0.25  # of a pixel that forward and backward flow disagree about


def error_and_speed(clip: Tensor) -> Tensor:
    """Of every two neighbouring frames of [T, H, W, 3]: [T - 1, 2].

    Warping error in percent of full scale, and mean speed in percent of the diagonal per frame.
    """
    found = []
    for start in range(0, len(clip) - 1, SLICE_FRAMES):
        pictures = shrink(clip[start : start + SLICE_FRAMES + 1])
        # Sampling at a NaN position can give a sound pixel, so add what keeps NaN in sight.
        found.append(_measured(pictures[:-1], pictures[1:]) + 0 * pictures.mean())
    return torch.cat(found) if found else clip.new_zeros(0, 2)


@dataclass(frozen=True)
class TemporalConsistency(FootageReward):
    """Minus the warping error: how much each frame differs from the next one, moved back onto it.

    Unit: percent of full scale, mean absolute RGB difference; range -100..0. Source: the warping
    error of Lai et al. 2018 (Learning Blind Video Temporal Consistency), with the occlusion test
    of Sundaram et al. 2010 and a flow without weights. Ours differs in one point: a hidden pixel
    counts a quarter instead of nothing, so that a picture which falls apart cannot hide behind the
    mask. Limits: a still clip scores best (pair it with MotionAmount); motion costs a little where
    it hides something.
    """

    name: str = "temporal_consistency"

    def of_footage(self, footage: Footage) -> Tensor:
        return -footage.mean_of_pairs(error_and_speed)[:, 0]


@dataclass(frozen=True)
class MotionAmount(FootageReward):
    """Mean speed of the pixels, up to a target: frozen does not win, wild gains nothing.

    Unit: percent of the frame's diagonal per second; range 0..``target``. Source: mean optical flow
    as in VBench's dynamic degree, which takes the fastest 5 % of a learned flow and a yes or no.
    Limits: flat areas count as still, so a small plain object scores low: choose the target by what
    the scene can reach. Noise and flicker can pass for a little motion.
    """

    target: float = 5.0
    name: str = "motion_amount"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target) and self.target > 0):
            raise ValueError(
                f"target of motion_amount is {self.target}: "
                "give a positive speed in percent of the diagonal per second"
            )

    def of_footage(self, footage: Footage) -> Tensor:
        speed = footage.mean_of_pairs(error_and_speed)[:, 1]
        return (speed * footage.fps).clamp(max=self.target)


def _measured(now: Tensor, after: Tensor) -> Tensor:
    """[N, 3, h, w] twice -> [N, 2]."""
    both = flow(grey(torch.cat([now, after])), grey(torch.cat([after, now])))
    forward, backward = both.chunk(2)
    error = (warp(after, forward) - now).abs().mean(dim=1)  # [N, h, w]
    back = warp(backward, forward)
    mismatch = (forward + back).square().sum(dim=1)
    length = forward.square().sum(dim=1)  # of the flow, squared
    tolerance = 0.01 * (length + back.square().sum(dim=1)) + 0.5
    seen = (mismatch <= tolerance) & inside(forward)
    weight = torch.where(seen, 1.0, HIDDEN_WEIGHT)
    warping = 100 * (error * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))
    speed = 100 * length.sqrt().mean(dim=(1, 2)) / math.hypot(*now.shape[-2:])
    return torch.stack([warping, speed], dim=1)
