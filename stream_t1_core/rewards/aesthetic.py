"""LAION aesthetic predictor v2 as a reward: how much would people like the look of each frame?

Knows a CLIP hub folder, of which it loads the image half, and the predictor's own small file.
Knows no prompt, and nothing of time: a clip's score is its frames' mean.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .base import Clips, Needs
from .clip import CLIP_L, embed_pictures, image_tower, preprocess_of
from .linears import LinearHead, head_widths
from .vision import Preprocess, encode_frames
from .weights import fill, find_file, read_weights

HEAD = "sac+logos+ava1-l14-linearMSE.pth"
HEAD_ORIGIN = "https://github.com/christophschuhmann/improved-aesthetic-predictor"


@dataclass(frozen=True, eq=False)
class Aesthetic:
    """Mean over frames of the predicted rating.

    Unit: rating; mostly 1..10. Source: LAION aesthetic predictor v2 (Schuhmann 2022) on the unit
    image embedding of CLIP ViT-L/14.
    Limits: the taste of the raters of SAC, Logos and AVA; does not know what was asked for. It was
    trained on OpenAI's CLIP: with another of the same size its numbers mean nothing.
    """

    module: nn.Module = field(repr=False)
    preprocess: Preprocess
    name: str = "aesthetic"

    @classmethod
    def from_files(cls, clip_folder: Path | str, head: Path | str) -> "Aesthetic":
        """From the hub folder of CLIP ViT-L/14 and the head's file."""
        folder, head = Path(clip_folder), Path(head)
        find_file(head.parent, [head.name], f"{HEAD_ORIGIN} (there: {HEAD})")
        tower, head_weights = image_tower(folder, CLIP_L), read_weights(head)
        widths = head_widths(head_weights, head)
        if widths[0] != tower.config.projection_dim:
            raise ValueError(
                f"{head} reads embeddings of {widths[0]} numbers, the CLIP in {folder} gives "
                f"{tower.config.projection_dim}: {HEAD} belongs to {CLIP_L}"
            )
        with torch.device("meta"):
            linears = LinearHead(widths)
        module = nn.ModuleDict({"tower": tower, "head": fill(linears, head_weights, head)})
        return cls(module, preprocess_of(folder, tower.config.image_size))

    @property
    def needs(self) -> Needs:
        return Needs(video=False, pixels=self.preprocess.size**2, scale=(1.0, 10.0))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        return encode_frames(clips.frames, self._rate, self.module).mean(dim=1)

    def _rate(self, frames: Tensor) -> Tensor:
        """[n, H, W, 3] -> [n]."""
        return self.module["head"](embed_pictures(self.module["tower"], self.preprocess(frames)))
