"""Imaging quality as VBench measures it: are the frames free of blur, noise and bad exposure?

Knows frames and MUSIQ; knows no prompt, and nothing of time: a clip's score is its frames' mean.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Clips, Needs
from .musiq import Musiq
from .vision import encode_frames, to_bytes

LONGEST = 512  # pixels; longer sides are shrunk to it
AT_ONCE = 8  # frames, of a few hundred patches each


@dataclass(frozen=True, eq=False)
class ImagingQuality:
    """Mean over frames of MUSIQ's rating / 100.

    Unit: none; mostly 0.2..0.8. Source: VBench's imaging quality (Huang et al. 2024; MUSIQ, Ke et
    al. 2021, trained on SPAQ's phone photographs).
    Limits: technical quality alone; a sharp picture of nothing scores well.
    """

    module: Musiq = field(repr=False)
    name: str = "imaging_quality"
    needs: Needs = Needs(video=False, pixels=LONGEST**2, scale=(0.0, 1.0))

    @classmethod
    def from_file(cls, path: Path | str) -> "ImagingQuality":
        """From IQA-PyTorch's file, ``musiq_spaq_ckpt-358bb6af.pth``."""
        return cls(Musiq.from_file(path))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        return encode_frames(clips.frames, self._rate, self.module).mean(dim=1) / 100

    def _rate(self, frames: Tensor) -> Tensor:
        """[n, H, W, 3] -> [n]."""
        return torch.cat([self.module(_shrunk(some)) for some in frames.split(AT_ONCE)])


def _shrunk(frames: Tensor) -> Tensor:
    """[n, H, W, 3] -> [n, 3, h, w] in 0..1, by VBench's transform: bilinear without antialias."""
    pictures = to_bytes(frames)
    longer = max(pictures.shape[-2:])
    if longer > LONGEST:
        size = [int(LONGEST / longer * side) for side in pictures.shape[-2:]]
        pictures = F.interpolate(pictures, size, mode="bilinear").round()
    return pictures / 255
