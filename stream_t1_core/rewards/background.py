"""Background consistency as VBench measures it: do a video's frames stay alike in CLIP's eyes?

Knows a CLIP hub folder, of which it loads the image half. Knows no prompt, and tells a background
from its foreground no more than upstream does: it looks at whole frames.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .base import Footage, FootageReward, Needs
from .clip import CLIP_B, embed_pictures, image_tower
from .dino import likeness
from .vision import encode_frames, vbench_pixels


@dataclass(frozen=True, eq=False)
class BackgroundConsistency(FootageReward):
    """Mean over later frames of (max(0, cos to the one before) + max(0, cos to the first)) / 2.

    Unit: cosine of CLIP's image embeddings; range 0..1, mostly above 0.9. Source: VBench's
    background consistency (Huang et al. 2024; CLIP ViT-B/32), on the clip it is given.
    Limits: a frozen video is perfect: combine it with a motion reward. With another CLIP its
    numbers compare with nobody's. Needs two frames.
    """

    module: nn.Module = field(repr=False)
    size: int  # pixels, side of the squares that the model reads
    name: str = "background_consistency"

    @classmethod
    def from_folder(cls, folder: Path | str) -> "BackgroundConsistency":
        """From the hub folder of CLIP ViT-B/32."""
        tower = image_tower(Path(folder), CLIP_B)
        return cls(tower, tower.config.image_size)

    @property
    def needs(self) -> Needs:
        return Needs(pixels=self.size**2, scale=(0.0, 1.0))

    @torch.inference_mode()
    def of_footage(self, footage: Footage) -> Tensor:
        marks = footage.marks(self._marks)
        if marks.shape[1] < 2:
            raise ValueError(f"{self.name} compares frames, the clip has one: use longer chunks")
        return likeness(marks)

    def _marks(self, frames: Tensor) -> Tensor:
        return encode_frames(frames[None], self._embed, self.module)[0]

    def _embed(self, frames: Tensor) -> Tensor:
        """[n, H, W, 3] -> unit vectors [n, D]."""
        return embed_pictures(self.module, vbench_pixels(frames, self.size))
