"""Frames as Qwen2-VL rewards read them: quantised, resized to a pixel budget, cut into patches.

Byte for byte what the published code makes of the same frames on a CPU: torch's bicubic filter
for videos, Pillow's for images. It knows pixels only. Source: ``vision_process.py`` of VideoAlign
(after qwen-vl-utils), which HPSv3 shares, and the Qwen2-VL image processor of transformers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .qwen2vl import FRAMES_PER_PATCH, MERGE, PATCH, Grid
from .vision import resize_bicubic

SIDE = PATCH * MERGE  # both sides are multiples of this
WIDEST = 200  # the longer side over the shorter
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def to_bytes(frames: Tensor) -> Tensor:
    """Floats 0..1 -> uint8, truncated as Stream-T1 does, not rounded."""
    return (frames.float().clamp(0, 1) * 255).to(torch.uint8)


def smart_resize(height: int, width: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width as multiples of 28, of about the same ratio, within a pixel budget.

    What is too large shrinks to below ``max_pixels``, without regard to ``min_pixels`` thereafter.
    """
    if max(height, width) > WIDEST * min(height, width):
        raise ValueError(
            f"frames of {width} x {height} are more than {WIDEST} times as long as wide: "
            "Qwen2-VL rewards cannot read them"
        )
    high = max(SIDE, round(height / SIDE) * SIDE)
    wide = max(SIDE, round(width / SIDE) * SIDE)
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return math.floor(height / shrink / SIDE) * SIDE, math.floor(width / shrink / SIDE) * SIDE
    if high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / SIDE) * SIDE, math.ceil(width * grow / SIDE) * SIDE
    return high, wide


def resize_video(frames: Tensor, min_pixels: int, max_pixels: int) -> Tensor:
    """uint8 [T, H, W, 3] -> uint8 [T, 3, h, w]."""
    frames = frames.movedim(-1, 1)
    size = smart_resize(*frames.shape[-2:], min_pixels, max_pixels)
    if size == tuple(frames.shape[-2:]):
        return frames
    wanted = F.interpolate(
        frames.float(), size, mode="bicubic", antialias=True, align_corners=False
    )
    return wanted.clamp(0, 255).round().to(torch.uint8)


def resize_image(frame: Tensor, min_pixels: int, max_pixels: int) -> Tensor:
    """uint8 [H, W, 3] -> uint8 [3, h, w], filtered by Pillow.

    Not on the CPU: where it lies, as Pillow does it up to 1 of 255.
    """
    from PIL import Image

    height, width = smart_resize(*frame.shape[:2], min_pixels, max_pixels)
    if not frame.is_cpu:
        pictures = frame.movedim(-1, 0)[None].float()
        return resize_bicubic(pictures, (height, width))[0].to(torch.uint8)
    image = Image.frombytes("RGB", (frame.shape[1], frame.shape[0]), frame.numpy().tobytes())
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    resized = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return resized.view(height, width, 3).movedim(-1, 0)


def patches(frames: Tensor) -> tuple[Tensor, Grid]:
    """uint8 [T, 3, h, w] -> rows [N, 1176] of channel, time, y, x, and their grid.

    The four patches that become one token are neighbours. An image is a video of it twice.
    """
    if len(frames) % FRAMES_PER_PATCH:
        raise ValueError(
            f"a video of {len(frames)} frames: Qwen2-VL reads them in pairs. Hand it the frames "
            "that sampled_frames picks"
        )
    mean, std = (torch.tensor(c, device=frames.device).view(3, 1, 1) for c in (MEAN, STD))
    values = (frames.float() / 255 - mean) / std
    time, high, wide = len(frames) // FRAMES_PER_PATCH, *(n // PATCH for n in frames.shape[-2:])
    blocks = values.reshape(
        time, FRAMES_PER_PATCH, 3, high // MERGE, MERGE, PATCH, wide // MERGE, MERGE, PATCH
    )
    rows = blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(time * high * wide, -1)  # [N, 1176]
    return rows, (time, high, wide)
