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


@dataclass(frozen=True, eq=False)
class Footage:
    """Frames of a batch of candidates, put together only as far as a reward asks for them."""

    pieces: Sequence[Sequence[Tensor]] = field(repr=False)  # by candidate: [T_i, H, W, 3] each
    firsts: Sequence[Tensor] = field(repr=False)  # by candidate: its video's first chunk
    prompt: str
    fps: float

    def clips(self, needs: Needs) -> Clips:
        """What a reward with these needs looks at."""
        total = sum(len(piece) for piece in self.pieces[0])
        indices = sampled_frames(total, self.fps, needs.fps) if needs.fps else range(total)
        frames = torch.stack([_picked(pieces, indices) for pieces in self.pieces])
        return Clips(frames, torch.stack(list(self.firsts)), self.prompt, self.fps)

    def alone(self) -> "list[Footage]":
        """One footage for each candidate."""
        return [
            Footage([pieces], [first], self.prompt, self.fps)
            for pieces, first in zip(self.pieces, self.firsts, strict=True)
        ]


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


def _picked(pieces: Sequence[Tensor], indices: Sequence[int]) -> Tensor:
    """Frames at rising ``indices`` of all pieces laid end to end: [n, H, W, 3]."""
    picked, start = [], 0
    for piece in pieces:
        inside = [i - start for i in indices if start <= i < start + len(piece)]
        if inside:
            picked.append(piece[inside])
        start += len(piece)
    return torch.cat(picked)
