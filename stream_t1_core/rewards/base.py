"""The call shape of a reward: a batch of clips in, one float per clip out, larger is better.

A reward knows frames and a prompt. It knows nothing of beams, chunks to come, latents or hosts.
Any callable with a ``name`` fits; the classes beside this file are examples. ``RewardMix`` adds
several.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """What a reward looks at, and what its numbers look like. A reward without one has these."""

    video: bool = True  # False: it scores every frame by itself and returns the mean
    fps: float | None = None  # frames a second it samples; None: it wants every frame
    pixels: int | None = None  # about as many a frame as it looks at; None: any size
    prompt: bool = False  # whether it reads the prompt
    scale: tuple[float, float] | None = None  # typical lowest and highest answer; None: unknown


@dataclass(frozen=True, eq=False)
class Clips:
    """What a reward may look at: one clip per candidate, all of the same length.

    A reward whose needs name an ``fps`` gets only the frames that ``sampled_frames`` picks.
    """

    frames: Tensor = field(repr=False)  # [B, T, H, W, 3], 0..1
    first: Tensor = field(repr=False)  # [B, T0, H, W, 3], the first chunk of each candidate's video
    prompt: str
    fps: float  # of the video that the frames were taken from


class Reward(Protocol):
    """``reward(clips) -> Tensor [B]``: one finite float per clip, larger is better."""

    name: str

    def __call__(self, clips: Clips) -> Tensor: ...


class Footage(Protocol):
    """Frames of a batch of candidates, put together only as far as a reward asks for them."""

    total: int  # frames of each candidate
    fps: float

    def clips(self, indices: Sequence[int] | None) -> Clips:
        """These frames of every candidate; None: all."""
        ...


def needs_of(reward: Reward) -> Needs:
    return getattr(reward, "needs", None) or Needs()


def sampled_frames(
    total: int, video_fps: float, fps: float | None = None, count: int | None = None
) -> list[int]:
    """Indices of the frames a video model reads: evenly spread, first and last among them.

    At ``fps`` frames a second but at least 4, or ``count`` frames; an even number where the clip
    has that many. Source: ``smart_nframes`` of VideoAlign (after qwen-vl-utils).
    Raises ValueError for a clip of one frame.
    """
    if total < 2:
        raise ValueError(
            f"a clip of {total} frame: a reward that samples {fps or count} frames needs two or "
            "more; use a reward on single images, or longer chunks"
        )
    if count is None:
        most = min(768, total) // 2 * 2
        count = min(max(total / video_fps * fps, 4), most)
    count = min(round(count / 2) * 2, total)
    return torch.linspace(0, total - 1, count).round().long().tolist()
