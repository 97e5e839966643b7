"""Filmstrips: a few small pictures of a candidate side by side, as one JPEG for the browser.

All of a chunk together stay within a limit of bytes, so that a long search stays light to watch.
"""

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

BYTES_PER_CHUNK = 64 * 1024
WIDEST = 96  # pixels of one picture
MOST_PICTURES = 6


class Filmstrip(NamedTuple):
    """``pictures`` pictures of equal size, left to right in time."""

    jpeg: bytes
    pictures: int


def filmstrips(candidates: Sequence[Tensor | None]) -> list[Filmstrip | None]:
    """One for each candidate's frames [T, H, W, 3]; None where there are no frames."""
    share = BYTES_PER_CHUNK // max(len(candidates), 1)
    return [None if frames is None else _fitting(frames, share) for frames in candidates]


def _fitting(frames: Tensor, most_bytes: int) -> Filmstrip | None:
    """The best that fits: quality goes first, pictures last."""
    for strip in _ever_smaller(frames):
        if len(strip.jpeg) <= most_bytes:
            return strip
    return None


def _ever_smaller(frames: Tensor) -> Iterator[Filmstrip]:
    for pictures, width, quality in (
        (MOST_PICTURES, WIDEST, 75),
        (MOST_PICTURES, WIDEST, 45),
        (MOST_PICTURES // 2, WIDEST, 45),
        (MOST_PICTURES // 2, WIDEST // 2, 45),
        (1, WIDEST // 2, 30),
    ):
        pictures = min(pictures, len(frames))
        yield Filmstrip(_jpeg(_strip(frames, pictures, width), quality), pictures)


def _strip(frames: Tensor, pictures: int, width: int) -> Tensor:
    """Frames spread over the chunk, side by side: [h, pictures * w, 3]."""
    picks = torch.linspace(0, len(frames) - 1, pictures).round().long()
    small = frames[picks].permute(0, 3, 1, 2).float()  # (P, 3, H, W), where they were decoded
    width = min(width, small.shape[-1])
    height = max(1, round(small.shape[-2] * width / small.shape[-1]))
    small = F.interpolate(small, (height, width), mode="bilinear", antialias=True)
    return torch.cat(list(small.permute(0, 2, 3, 1)), dim=1).nan_to_num().clamp(0, 1).cpu()


def _jpeg(picture: Tensor, quality: int) -> bytes:
    image = Image.fromarray((picture * 255).round().byte().numpy())
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
