"""Motion smoothness as VBench measures it: is every second frame where its neighbours lead?

Knows frames and AMT, which makes those frames anew; knows no prompt.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .amt import MULTIPLE, Amt
from .base import Clips, Needs
from .matching import check_size, pad_to
from .vision import device_of, to_bytes


@dataclass(frozen=True, eq=False)
class MotionSmoothness:
    """1 - mean absolute difference of every second frame to one interpolated from its neighbours.

    Unit: none, 1 being full scale; range 0..1, mostly above 0.9. Source: VBench's motion smoothness
    (Huang et al. 2024; AMT-S, Li et al. 2023), (255 - mean absolute error) / 255 of 8-bit frames.
    Limits: a frozen video is smooth: combine it with a motion reward. A last frame without a later
    neighbour does not count. Needs three frames of 64 x 64 pixels.
    """

    module: Amt = field(repr=False)
    name: str = "motion_smoothness"
    needs: Needs = Needs(scale=(0.0, 1.0))

    @classmethod
    def from_file(cls, path: Path | str) -> "MotionSmoothness":
        """From AMT's own file, ``amt-s.pth``."""
        return cls(Amt.from_file(path))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        check_size(clips.frames, self.name)
        frames = clips.frames.shape[1]
        if frames < 3:
            raise ValueError(
                f"{self.name} makes frames from their neighbours and needs 3, the clip has "
                f"{frames}: use longer chunks"
            )
        return torch.stack([self._score(clip) for clip in clips.frames])

    def _score(self, clip: Tensor) -> Tensor:
        """[T, H, W, 3] -> scalar; one frame at a time, since all places are matched with all."""
        errors = [self._error(clip[i : i + 3]) for i in range(0, len(clip) - 2, 2)]
        error = torch.stack(errors).mean()
        # A broken pixel stays visible as NaN, even in a frame that does not count.
        return 1 - error / 255 + 0 * clip.float().mean().to(error.device)

    def _error(self, three: Tensor) -> Tensor:
        """[3, H, W, 3] -> how far the middle one is from its neighbours' halfway, 0..255."""
        pictures = to_bytes(three.to(device_of(self.module)))
        padded, (rows, columns) = pad_to(pictures[::2] / 255, MULTIPLE)
        halfway = self.module(*padded.split(1))[0, :, rows, columns]
        return (pictures[1] - (255 * halfway).floor()).abs().mean()
