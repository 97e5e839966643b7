"""The call shape of a reward: a batch of clips in, one float per clip out, larger is better.

A reward knows frames and a prompt. It knows nothing of beams, chunks to come, latents or hosts.
Any callable with a ``name`` fits; the classes beside this file are examples. ``RewardMix`` adds
several.
"""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Clips:
    """What a reward may look at: one clip per candidate, all of the same length."""

    frames: Tensor = field(repr=False)  # [B, T, H, W, 3], 0..1
    first: Tensor = field(repr=False)  # [B, T0, H, W, 3], the first chunk of each candidate's video
    prompt: str
    fps: float


class Reward(Protocol):
    """``reward(clips) -> Tensor [B]``: one finite float per clip, larger is better."""

    name: str

    def __call__(self, clips: Clips) -> Tensor: ...
