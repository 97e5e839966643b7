"""Dynamic degree as VBench measures it: does a video move at all? Knows frames and RAFT."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .base import Clips, Needs
from .matching import STRIDE, check_size, pad_to
from .raft import Raft
from .vision import device_of, to_bytes

FPS = 8  # about as many frames a second are looked at
FASTEST = 0.05  # of a frame's pixels, whose mean speed is the frame's
SPEED = 6 / 256  # of the shorter side, from one frame to the next: above it, a frame moves
FRAMES = 3  # with fewer, VBench's rule asks for no moving frame and calls everything moving


@dataclass(frozen=True, eq=False)
class DynamicDegree:
    """1 where at least a quarter of the frames move, else 0: VBench takes the mean over videos.

    A frame moves when the fastest 5 % of its pixels go further than 6/256 of the shorter side to
    the next, of about 8 frames a second. Unit: none, yes or no. Source: VBench's dynamic degree
    (Huang et al. 2024; RAFT, Teed and Deng 2020). Limits: says nothing of how well it moves; a
    yes or no guides no search, for which there is motion amount. Needs frames of 64 x 64 pixels.
    """

    module: Raft = field(repr=False)
    name: str = "dynamic_degree"
    needs: Needs = Needs(scale=(0.0, 1.0))

    @classmethod
    def from_file(cls, path: Path | str) -> "DynamicDegree":
        """From RAFT's own file, ``raft-things.pth``."""
        return cls(Raft.from_file(path))

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Tensor:
        check_size(clips.frames, self.name)
        sampled = clips.frames[:, :: max(1, round(clips.fps / FPS))]
        if sampled.shape[1] < FRAMES:
            raise ValueError(
                f"{self.name} looks at about {FPS} frames a second and needs {FRAMES} of them, the "
                f"clip has {clips.frames.shape[1]} at {clips.fps:g} a second: use longer chunks"
            )
        side = min(sampled.shape[2:4])
        moving = torch.stack([moves(self.speeds(clip), side) for clip in sampled])
        # A broken pixel stays visible as NaN, even in a frame that is not looked at.
        marks = [0 * clip.float().mean() for clip in clips.frames]
        return moving + torch.stack(marks).to(moving.device)

    @torch.inference_mode()
    def speeds(self, clip: Tensor) -> Tensor:
        """Pixels that each frame but the last goes: [T, H, W, 3] -> [T - 1].

        A pair at a time, since all places are matched with all.
        """
        pairs = (to_bytes(clip[i : i + 2].to(device_of(self.module))) for i in range(len(clip) - 1))
        padded = (pad_to(pair, STRIDE)[0].split(1) for pair in pairs)
        return torch.cat([fastest(self.module(*pair)) for pair in padded])


def fastest(flow: Tensor) -> Tensor:
    """Mean length of the longest 5 % of a flow's arrows: [N, 2, h, w] -> [N]."""
    lengths = flow.square().sum(dim=1).sqrt().flatten(1)
    return lengths.topk(int(lengths.shape[1] * FASTEST)).values.mean(dim=1)


def moves(speeds: Tensor, shorter_side: int) -> Tensor:
    """VBench's yes or no, from the speeds of all frames but the last: [T - 1] -> bool scalar."""
    wanted = round(4 * (len(speeds) + 1) / 16)
    return (speeds > SPEED * shorter_side).sum() >= wanted
