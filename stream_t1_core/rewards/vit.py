"""A plain vision transformer under the key names of timm and DINO: pictures in, tokens out.

DINO's files and the image half of BLIP have this layout. Own code, because the class of this shape
in transformers has changed its key names, and never had DINO's way to stretch its positions. Knows
no files, no preprocessing and no reward.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import require

HEAD_WIDTH = 64  # in every released model of this kind


@dataclass(frozen=True)
class VitShape:
    """Sizes of a vision transformer for square pictures of ``size`` pixels."""

    width: int
    heads: int
    layers: int
    patch: int
    size: int
    epsilon: float = 1e-6

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], path: Path, prefix: str = "") -> "VitShape":
        """Read the sizes off the entries that start with ``prefix``."""
        width, _, patch, _ = require(weights, f"{prefix}patch_embed.proj.weight", path).shape
        places = require(weights, f"{prefix}pos_embed", path).shape[1] - 1
        blocks = f"{prefix}blocks."
        layers = {int(k[len(blocks) :].split(".")[0]) for k in weights if k.startswith(blocks)}
        heads = width // HEAD_WIDTH
        if width != heads * HEAD_WIDTH or places != math.isqrt(places) ** 2 or not layers:
            raise ValueError(
                f"{path}: width {width}, {places} patches, {len(layers)} layers are not those of a "
                f"vision transformer with heads of {HEAD_WIDTH} and square pictures"
            )
        return cls(width, heads, max(layers) + 1, patch, math.isqrt(places) * patch)


class Attention(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)  # (B, N, L, D)
        return self.proj(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.attn = Attention(shape)
        self.norm2 = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.mlp = FeedForward(shape.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch)


class VisionTransformer(nn.Module):
    """Pictures [N, 3, h, w] -> tokens [N, 1 + patches, width], normed; the first is the summary.

    Sides that are no multiple of the patch lose the rest. Other sizes than the trained one get
    stretched positions, by the rule of DINO's own code (a tenth of a patch too far; VBench's
    numbers come from it).
    """

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.shape = shape
        side = shape.size // shape.patch
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, shape.width))
        self.patch_embed = PatchEmbed(shape)
        self.blocks = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embed.proj(pictures)  # (B, width, rows, columns)
        rows, columns = patches.shape[-2:]
        start = self.cls_token.expand(len(pictures), -1, -1)
        x = torch.cat([start, patches.flatten(2).mT], dim=1) + self._positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """[1, 1 + rows * columns, width]."""
        side = self.shape.size // self.shape.patch
        if rows == columns == side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (side, side)).movedim(-1, 1)  # (1, width, ..)
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        stretched = F.interpolate(grid.float(), scale_factor=factors, mode="bicubic")
        rest = stretched.to(grid.dtype).flatten(2).mT
        return torch.cat([self.pos_embed[:, :1], rest], dim=1)
