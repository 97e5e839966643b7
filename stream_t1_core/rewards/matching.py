"""What the flow networks RAFT and AMT share: pictures to features, and features to matches.

Under upstream's key names. Knows no files and no flow. Places are pixels of a feature map, x first.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4  # sizes at which matches are looked up, each half of the one before
STRIDE = 8  # pixels of a picture to one of its features
SHORTEST = STRIDE * 2 ** (LEVELS - 1)  # pixels, a picture's least side: one match at the last level

Norm = Callable[[int], nn.Module]
Layer = Callable[[int, int, int, Norm], nn.Module]  # channels in and out, stride


def _shortcut(into: int, out: int, stride: int, norm: Norm) -> nn.Module:
    if stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(into, out, 1, stride), norm(out))


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, into: int, out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(into, out, 3, stride, 1), norm(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, 1, 1), norm(out)
        self.downsample = _shortcut(into, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.downsample(x) + y)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut, the middle one on a quarter of the channels."""

    def __init__(self, into: int, out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        quarter = out // 4
        self.conv1, self.norm1 = nn.Conv2d(into, quarter, 1), norm(quarter)
        self.conv2, self.norm2 = nn.Conv2d(quarter, quarter, 3, stride, 1), norm(quarter)
        self.conv3, self.norm3 = nn.Conv2d(quarter, out, 1), norm(out)
        self.downsample = _shortcut(into, out, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = F.relu(self.norm3(self.conv3(y)))
        return F.relu(self.downsample(x) + y)


class Encoder(nn.Module):
    """Pictures [N, 3, h, w] -> features [N, out, h / 8, w / 8]."""

    def __init__(self, layer: Layer, widths: Sequence[int], out: int, norm: Norm) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1, self.norm1 = nn.Conv2d(3, first, 7, 2, 3), norm(first)
        self.layer1 = nn.Sequential(layer(first, first, 1, norm), layer(first, first, 1, norm))
        self.layer2 = nn.Sequential(layer(first, second, 2, norm), layer(second, second, 1, norm))
        self.layer3 = nn.Sequential(layer(second, third, 2, norm), layer(third, third, 1, norm))
        self.conv2 = nn.Conv2d(third, out, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(pictures)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Correlation:
    """How alike each place of one feature map is to every place of another (Teed and Deng 2020).

    Pictures below 128 pixels make upstream divide by zero at the last level; here they do not.
    """

    def __init__(self, source: Tensor, target: Tensor, radius: int) -> None:
        """Both [N, C, h, w]; ``radius`` of the windows that are looked up."""
        channels, height, width = source.shape[1:]
        alike = source.flatten(2).mT @ target.flatten(2) / math.sqrt(channels)  # (N, h*w, h*w)
        self.levels = [alike.reshape(-1, 1, height, width)]
        for _ in range(LEVELS - 1):
            self.levels.append(F.avg_pool2d(self.levels[-1], 2))
        steps = torch.arange(-radius, radius + 1.0, device=source.device)
        # One window is laid out column by column: x moves slowest.
        self.window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)

    def at(self, places: Tensor) -> Tensor:
        """Windows around a place of the target for each of the source's.

        [N, 2, h, w] -> [N, LEVELS * (2 * radius + 1) ** 2, h, w].
        """
        centres = places.movedim(1, -1)  # (N, h, w, 2)
        found = [
            _sampled(level, centres.reshape(-1, 1, 1, 2) / 2**i + self.window)
            for i, level in enumerate(self.levels)
        ]
        return torch.cat([x.view(*centres.shape[:3], -1) for x in found], dim=-1).movedim(-1, 1)


def places_of(features: Tensor) -> Tensor:
    """Each pixel's own place: [N, C, h, w] -> [N, 2, h, w]."""
    height, width = features.shape[-2:]
    x = torch.arange(width, device=features.device, dtype=features.dtype).expand(height, width)
    y = torch.arange(height, device=features.device, dtype=features.dtype).view(-1, 1).expand_as(x)
    return torch.stack([x, y]).expand(len(features), -1, -1, -1)


def pad_to(pictures: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, slice]]:
    """Sides made multiples by repeating the border, and where the picture lies in it."""
    height, width = pictures.shape[-2:]
    down, across = -height % multiple, -width % multiple
    top, left = down // 2, across // 2
    padded = F.pad(pictures, (left, across - left, top, down - top), mode="replicate")
    return padded, (slice(top, top + height), slice(left, left + width))


def check_size(frames: Tensor, name: str) -> None:
    """Frames [.., H, W, 3]. Raises ValueError for pictures too small to match."""
    height, width = frames.shape[-3:-1]
    if min(height, width) < SHORTEST:
        raise ValueError(
            f"frames of {width} x {height} pixels: {name} matches pictures of {SHORTEST} x "
            f"{SHORTEST} or more; use a larger video"
        )


def _sampled(pictures: Tensor, places: Tensor) -> Tensor:
    """Bilinear values at [N, a, b, 2], nothing outside: [N, 1, h, w] -> [N, 1, a, b]."""
    height, width = pictures.shape[-2:]
    size = places.new_tensor([width, height])
    return F.grid_sample(pictures, (2 * places + 1) / size - 1, align_corners=False)
