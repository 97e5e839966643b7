"""Aesthetic quality as VBench measures it: LAION's first predictor, a single linear layer.

Knows a CLIP hub folder, of which it loads the image half, and the predictor's own small file. Knows
no prompt, and nothing of time: a clip's score is its frames' mean. ``aesthetic.py`` has the second
predictor, the better known as a reward.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Clips, Needs
from .clip import CLIP_L, embed_pictures, image_tower
from .vision import encode_frames, vbench_pixels
from .weights import fill, find_file, read_weights

WEIGHTS = "sa_0_4_vit_l_14_linear.pth"
ORIGIN = "https://github.com/LAION-AI/aesthetic-predictor"


@dataclass(frozen=True, eq=False)
class AestheticQuality:
    """Mean over frames of the predicted rating / 10.

    Unit: none; mostly 0.4..0.7. Source: VBench's aesthetic quality (Huang et al. 2024; LAION
    aesthetic predictor v1 on the unit image embedding of CLIP ViT-L/14).
    Limits: as the aesthetic reward's; with another CLIP its numbers mean nothing.
    """

    module: nn.ModuleDict = field(repr=False)
    size: int  # pixels, side of the squares that the model reads
    name: str = "aesthetic_quality"

    @classmethod
    def from_files(cls, clip_folder: Path | str, head: Path | str) -> "AestheticQuality":
        """From the hub folder of CLIP ViT-L/14 and the predictor's file."""
        head = Path(head)
        find_file(head.parent, [head.name], f"{ORIGIN} (there: {WEIGHTS})")
        tower = image_tower(Path(clip_folder), CLIP_L)
        with torch.device("meta"):
            linear = nn.Linear(tower.config.projection_dim, 1)
        linear = fill(linear, read_weights(head), head)
        return cls(nn.ModuleDict({"tower": tower, "head": linear}), tower.config.image_size)

    @property
    def needs(self) -> Needs:
        return Needs(video=False, pixels=self.size**2, scale=(0.0, 1.0))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        return encode_frames(clips.frames, self._rate, self.module).mean(dim=1) / 10

    def _rate(self, frames: Tensor) -> Tensor:
        """[n, H, W, 3] -> [n]."""
        head = self.module["head"]
        marks = embed_pictures(self.module["tower"], vbench_pixels(frames, self.size))
        return F.linear(marks, head.weight.float(), head.bias.float())[:, 0]
