"""Sharpness of single frames. Knows luma only; nothing of time or content."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Clips
from .flow import grey

STILL_VARIANCE = 1e-4  # of luma in 0..1; a flatter picture has no edges to judge


@dataclass(frozen=True)
class Sharpness:
    """Strength of the finest detail against all contrast: rms of the Laplacian / rms of the luma.

    Unit: none, percent; range 0..800, mean over frames. A brighter or more contrasty picture does
    not score higher. Source: variance of the Laplacian (Pech-Pacheco et al. 2000), divided by the
    luma's variance. Limits: noise and checkerboards look sharp, so use a small weight; numbers
    depend on the resolution, so compare candidates of one run only; flat pictures score near 0.
    """

    name: str = "sharpness"

    def __call__(self, clips: Clips) -> Tensor:
        per_clip = [torch.stack([_detail(frame) for frame in clip]) for clip in clips.frames]
        return 100 * torch.stack(per_clip).mean(dim=1)


def _detail(frame: Tensor) -> Tensor:
    """[H, W, 3] -> scalar."""
    luma = grey(frame.float().movedim(-1, 0)[None])[0, 0]  # [H, W]
    middle = luma[1:-1, 1:-1]
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    laplacian = around - 4 * middle
    contrast = luma.var(correction=0) + STILL_VARIANCE
    return (laplacian.square().mean() / contrast).sqrt()
