"""Random numbers of a candidate: drawn from its seed, mixed with its parent's noise.

All draws come from a CPU generator in float32, so that every card gives the same candidates.
"""

import math

import torch
from torch import Tensor

from .config import NoisePropagation


def draw(seed: int, steps: int, shape: tuple[int, int, int, int]) -> Tensor:
    """``steps`` tensors [steps, C, F, H, W] for one candidate of ``shape`` (C, F, H, W).

    The first is the initial eps, the others re-noise the estimate between steps. The generator
    runs frame by frame, channel by channel, as in the released code.
    """
    channels, frames, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(steps, frames, channels, height, width, generator=generator)
    return draws.transpose(1, 2).contiguous()  # (steps, C, F, H, W)


def propagate(eps: Tensor, parent_noise: Tensor | None, unit: NoisePropagation | None) -> Tensor:
    """Initial noise of a chunk: fresh, or mixed with the parent's (Stream-T1, noise propagation).

    ``noise_n = beta * noise_(n-1) + sqrt(1 - beta^2) * eps``; ``noise_(n-1)`` is itself mixed.
    """
    if unit is None or parent_noise is None:
        return eps
    return unit.beta * parent_noise + math.sqrt(1 - unit.beta**2) * eps
