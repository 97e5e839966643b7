"""Frames as vision models want them: resized, cropped, normalised, a batch at a time.

Knows pictures and numbers; knows no model. Upstream resizes 8-bit pictures with Pillow. Here the
same is done with tensors on the model's device: 8-bit steps, filter and clamping as Pillow's, one
axis after the other. Largest difference seen: 1 of 255 (tests/core/test_clip_rewards.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batching import in_batches

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
FRAMES_AT_ONCE = 64  # bounds memory on devices that never report that it ran out


@dataclass(frozen=True)
class Preprocess:
    """Shorter side to ``size``, the middle ``size`` x ``size``, normalised per channel."""

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, frames: Tensor) -> Tensor:
        """[N, H, W, 3] in 0..1 -> [N, 3, size, size]."""
        pictures = to_bytes(frames)
        pictures = resize_bicubic(pictures, shorter_side_to(self.size, pictures))
        return normalise(centre_crop(pictures, self.size), self.mean, self.std)


def vbench_pixels(frames: Tensor, size: int) -> Tensor:
    """VBench's way to prepare frames for CLIP: no antialias, torchvision's crop.

    [N, H, W, 3] in 0..1 -> [N, 3, size, size], normalised.
    """
    pictures = to_bytes(frames)
    shape = shorter_side_to(size, pictures)
    pictures = F.interpolate(pictures, shape, mode="bicubic").clamp(0, 255).round()
    top, left = (round((side - size) / 2) for side in shape)
    return normalise(pictures[..., top : top + size, left : left + size], CLIP_MEAN, CLIP_STD)


def to_bytes(frames: Tensor) -> Tensor:
    """[N, H, W, 3] in 0..1 -> [N, 3, H, W], whole numbers 0..255 as float32; NaN stays NaN."""
    return (frames.movedim(-1, 1).float().clamp(0, 1) * 255).round()


def shorter_side_to(size: int, pictures: Tensor) -> tuple[int, int]:
    """Height and width with the shorter side at ``size``, the longer rounded down."""
    height, width = pictures.shape[-2:]
    short = min(height, width)
    return size * height // short, size * width // short


def resize_bicubic(pictures: Tensor, shape: tuple[int, int]) -> Tensor:
    """[N, 3, H, W] in 0..255 -> [N, 3, *shape] as Pillow's BICUBIC: antialiased, width first."""
    for size in ((pictures.shape[-2], shape[1]), shape):
        if tuple(pictures.shape[-2:]) != size:
            pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True)
            pictures = pictures.clamp(0, 255).round()
    return pictures


def centre_crop(pictures: Tensor, size: int) -> Tensor:
    """The middle [.., size, size]; an odd pixel is cut at the far side.

    So does transformers. Torchvision, which ImageReward and LAION use, may sit a pixel further.
    """
    top, left = ((side - size) // 2 for side in pictures.shape[-2:])
    return pictures[..., top : top + size, left : left + size]


def normalise(pictures: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """[N, 3, h, w] in 0..255 -> (x / 255 - mean) / std, per channel."""
    shift, scale = (pictures.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (pictures / 255 - shift) / scale


def encode_frames(frames: Tensor, encode: Callable[[Tensor], Tensor], module: nn.Module) -> Tensor:
    """``encode``, [n, H, W, 3] -> [n, ...], over all frames: [B, T, H, W, 3] -> [B, T, ...].

    As many frames at a time as the device of ``module`` has memory for.
    """
    device = device_of(module)

    def run(some: list[Tensor]) -> list[Tensor]:
        pictures = torch.stack(some).to(device)
        # A broken pixel stays visible as NaN, even where it is cropped away.
        marks = 0 * pictures.flatten(1).mean(dim=1)
        return [row + mark for row, mark in zip(encode(pictures), marks, strict=True)]

    rows: list[Tensor] = []
    for some in frames.flatten(0, 1).split(FRAMES_AT_ONCE):
        rows += in_batches(list(some), run)
    return torch.stack(rows).unflatten(0, frames.shape[:2])


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
