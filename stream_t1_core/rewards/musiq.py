"""MUSIQ, a learned quality of still pictures of any size and shape.

Ke et al. 2021 under the key names of IQA-PyTorch's files: each 32 x 32 patch of the picture, and of
two smaller copies, becomes a token through a short ResNet; a transformer reads them all. Knows
pictures and one weight file; knows no videos and no rewards.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import load_network

WEIGHTS = "musiq_spaq_ckpt-358bb6af.pth"
ORIGIN = "https://github.com/chaofengc/IQA-PyTorch/releases/tag/v0.1-weights"
SMALLER = (224, 384)  # pixels, longer side of the copies
PATCH = 32
GRID = 10  # places that a picture's rows and columns are hashed to
STEM = 64
WIDTH, HEADS, LAYERS, HIDDEN = 384, 6, 14, 1152


class StandardConv(nn.Conv2d):
    """Without bias; each output's weights have mean 0 and deviation 1. Padded as TensorFlow's."""

    def __init__(self, into: int, out: int, size: int, stride: int = 1) -> None:
        super().__init__(into, out, size, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        spread, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        x = _padded(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, (self.weight - mean) / (spread + 1e-5), stride=self.stride)


class Bottleneck(nn.Module):
    """[N, 64, h, w] -> [N, 256, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        out = 4 * STEM
        self.conv1, self.gn1 = StandardConv(STEM, STEM, 1), nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv2, self.gn2 = StandardConv(STEM, STEM, 3), nn.GroupNorm(32, STEM, eps=1e-4)
        self.conv3, self.gn3 = StandardConv(STEM, out, 1), nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj, self.gn_proj = StandardConv(STEM, out, 1), nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.gn1(self.conv1(x)))
        y = F.relu(self.gn2(self.conv2(y)))
        return F.relu(self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)  # (B, N, L, D)
            for part in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH, eps=1e-6), Attention()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-6), FeedForward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Places(nn.Module):
    """An embedding for each place of the grid."""

    def __init__(self) -> None:
        super().__init__()
        self.position_emb = nn.Parameter(torch.empty(1, GRID * GRID, WIDTH))


class Scales(nn.Module):
    """An embedding for each size of the picture, smallest first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale_emb = nn.Parameter(torch.empty(len(SMALLER) + 1, WIDTH))


class Encoder(nn.Module):
    """Tokens of each size of the pictures, [N, rows * columns, 384] -> the summary token [N, 384].

    Upstream fills the smaller copies up with tokens that nothing looks at; here there are none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.posembed_input, self.scaleembed_input = Places(), Scales()
        self.cls = nn.Parameter(torch.empty(1, 1, WIDTH))
        layers = {f"encoderblock_{i}": Layer() for i in range(LAYERS)}
        self.transformer = nn.ModuleDict(layers)
        self.encoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, sizes: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Of each size its tokens and their places [rows * columns], smallest first."""
        x = [self.cls.expand(len(sizes[0][0]), -1, -1)]
        places, scales = self.posembed_input.position_emb[0], self.scaleembed_input.scale_emb
        for scale, (tokens, at) in zip(scales, sizes, strict=True):
            x.append(tokens + places[at] + scale)
        x = torch.cat(x, dim=1)
        for layer in self.transformer.values():
            x = layer(x)
        return self.encoder_norm(x)[:, 0]


class Musiq(nn.Module):
    """Pictures [N, 3, H, W] in 0..1 -> quality [N], about 0..100 with the weights of SPAQ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root, self.gn_root = StandardConv(3, STEM, 7, 2), nn.GroupNorm(32, STEM, eps=1e-6)
        self.block1 = Bottleneck()
        self.embedding = nn.Linear(4 * STEM * (PATCH // 4) ** 2, WIDTH)
        self.transformer_encoder = Encoder()
        self.head = nn.Linear(WIDTH, 1)

    @classmethod
    def from_file(cls, path: Path | str) -> "Musiq":
        """From IQA-PyTorch's file of the network trained on SPAQ."""
        return load_network(cls, path, f"{ORIGIN} (there: {WEIGHTS})")

    def forward(self, pictures: Tensor) -> Tensor:
        pictures = 2 * pictures - 1
        copies = [_with_longer_side(side, pictures) for side in SMALLER]
        sizes = [(self._tokens(copy), _places(copy)) for copy in [*copies, pictures]]
        return self.head(self.transformer_encoder(sizes))[:, 0]

    def _tokens(self, pictures: Tensor) -> Tensor:
        """[N, 3, h, w] -> [N, rows * columns, 384]."""
        patches = F.unfold(_padded(pictures, PATCH, PATCH), PATCH, stride=PATCH).mT
        x = patches.reshape(-1, 3, PATCH, PATCH)
        x = F.relu(self.gn_root(self.conv_root(x)))
        x = self.block1(F.max_pool2d(_padded(x, 3, 2), 3, 2))  # (N * L, 256, 8, 8)
        return self.embedding(x.movedim(1, -1).reshape(*patches.shape[:2], -1))


def _padded(x: Tensor, size: int, stride: int) -> Tensor:
    """Zeros around, so that a window every ``stride`` covers all; an odd one at the far side."""
    pad: list[int] = []
    for side in (x.shape[-1], x.shape[-2]):
        more = max(0, (-(-side // stride) - 1) * stride + size - side)
        pad += [more // 2, more - more // 2]
    return F.pad(x, pad)


def _with_longer_side(side: int, pictures: Tensor) -> Tensor:
    ratio = side / max(pictures.shape[-2:])
    size = tuple(max(1, round(length * ratio)) for length in pictures.shape[-2:])
    return F.interpolate(pictures, size, mode="bicubic")


def _places(pictures: Tensor) -> Tensor:
    """Where on the grid each patch lies, row by row: [rows * columns]."""
    rows, columns = (-(-side // PATCH) for side in pictures.shape[-2:])
    down = torch.arange(rows, device=pictures.device) * GRID // rows
    across = torch.arange(columns, device=pictures.device) * GRID // columns
    return (down[:, None] * GRID + across).flatten()
