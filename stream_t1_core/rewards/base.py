"""The call shape of a reward: a batch of clips in, one float per clip out, larger is better.

A reward knows frames and a prompt. It knows nothing of beams, chunks to come, latents or hosts.
Any callable with a ``name`` fits; the classes beside this file are examples. ``RewardMix`` adds
several.
"""

from collections.abc import Callable, Iterator, Sequence
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

    A reward whose needs name an ``fps`` gets only the frames that ``sampled_frames`` picks. All lie
    on one device, which may be a GPU. ``first`` may be one clip expanded: do not write to it.
    """

    frames: Tensor = field(repr=False)  # [B, T, H, W, 3], 0..1
    first: Tensor = field(repr=False)  # [B, T0, H, W, 3], the first chunk of each candidate's video
    prompt: str
    fps: float  # of the video that the frames were taken from


class Reward(Protocol):
    """``reward(clips) -> Tensor [B]``: one finite float per clip, larger is better."""

    name: str

    def __call__(self, clips: Clips) -> Tensor: ...


# Frames [T, H, W, 3] -> n numbers for each, [T, n]; and for each next two: [T - 1] or [T - 1, n]
Marks = Callable[[Tensor], Tensor]
Pairs = Callable[[Tensor], Tensor]


class FootageReward:
    """A reward that follows from what it measures of single frames, or of every two neighbours.

    A search calls ``of_footage`` alone, so that a frame is measured once, not in every clip that it
    is in, and once for all rewards that measure the same.
    """

    def of_footage(self, footage: "Footage") -> Tensor:
        """The reward [B] of clips."""
        raise NotImplementedError

    def __call__(self, clips: Clips) -> Tensor:
        return self.of_footage(Footage.of(clips))


@dataclass(frozen=True, eq=False)
class Piece:
    """Frames of one chunk, and what was measured of them, in it and at the cut before it.

    The piece before it is the same in every clip that it is in.
    """

    frames: Tensor = field(repr=False)  # [T, H, W, 3]
    marks: dict[Marks, Tensor] = field(default_factory=dict, init=False, repr=False)  # [T, n]
    within: dict[Pairs, Tensor] = field(default_factory=dict, init=False, repr=False)  # [T - 1]
    at_cut: dict[Pairs, Tensor] = field(default_factory=dict, init=False, repr=False)  # [1]

    def put_away(self) -> "Piece":
        """The same in the CPU's memory, to be looked back on."""
        if self.frames.is_cpu:
            return self
        kept = Piece(self.frames.cpu())
        for name in ("marks", "within", "at_cut"):
            measured = getattr(self, name)
            getattr(kept, name).update({how: values.cpu() for how, values in measured.items()})
        return kept


@dataclass(frozen=True, eq=False)
class Footage:
    """Frames of a batch of candidates, put together only as far as a reward asks for them.

    The newest piece of each may lie where it was decoded, and earlier ones be put away: they are
    brought there as far as they are asked for, once for all candidates that share them.
    """

    pieces: Sequence[Sequence[Piece]] = field(repr=False)  # by candidate
    firsts: Sequence[Tensor] = field(repr=False)  # by candidate: its video's first chunk
    prompt: str
    fps: float

    @classmethod
    def of(cls, clips: Clips) -> "Footage":
        """Whole clips, each of one piece."""
        pieces = [[Piece(frames)] for frames in clips.frames]
        return cls(pieces, [*clips.first], clips.prompt, clips.fps)

    @property
    def device(self) -> torch.device:
        """Where the newest frames are, and what earlier ones are measured on."""
        return self.pieces[0][-1].frames.device

    def clips(self, needs: Needs) -> Clips:
        """What a reward with these needs looks at; whole spans of chunks lie on the CPU."""
        total = sum(len(piece.frames) for piece in self.pieces[0])
        indices = sampled_frames(total, self.fps, needs.fps) if needs.fps else range(total)
        few = needs.fps or len(self.pieces[0]) == 1
        device, picked = self.device if few else torch.device("cpu"), {}
        frames = torch.stack([_picked(pieces, indices, device, picked) for pieces in self.pieces])
        return Clips(frames, _stacked(self.firsts, device), self.prompt, self.fps)

    def marks(self, measure: Marks) -> Tensor:
        """Of all frames of each clip: [B, T, n]."""
        for piece in {id(piece): piece for pieces in self.pieces for piece in pieces}.values():
            if measure not in piece.marks:
                piece.marks[measure] = measure(piece.frames.to(self.device))
        found = [[piece.marks[measure].to(self.device) for piece in ps] for ps in self.pieces]
        return torch.stack([torch.cat(marks) for marks in found])

    def first_marks(self, measure: Marks) -> Tensor:
        """Of the first chunk of each clip's video: [B, T0, n]."""
        distinct = {id(first): first for first in self.firsts}
        found = {key: measure(first.to(self.device)) for key, first in distinct.items()}
        return torch.stack([found[id(first)] for first in self.firsts])

    def mean_of_pairs(self, pairs: Pairs) -> Tensor:
        """[B, ...]: of all neighbouring frames of each clip; 0 for a clip of one frame."""
        numbers = [[*_numbers(pieces, pairs, self.device)] for pieces in self.pieces]
        newest = [pieces[-1].frames for pieces in self.pieces]
        return torch.stack([_mean(*both) for both in zip(numbers, newest, strict=True)])

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


def _numbers(pieces: Sequence[Piece], pairs: Pairs, device: torch.device) -> Iterator[Tensor]:
    """Of each cut and each piece, in their order; always measured in these parts."""
    before: Piece | None = None
    for piece in pieces:
        if before is not None:
            if pairs not in piece.at_cut:
                cut = [before.frames[-1:].to(device), piece.frames[:1].to(device)]
                piece.at_cut[pairs] = pairs(torch.cat(cut))
            yield piece.at_cut[pairs].to(device)
        if pairs not in piece.within:
            piece.within[pairs] = pairs(piece.frames.to(device))
        yield piece.within[pairs].to(device)
        before = piece


def _mean(numbers: Sequence[Tensor], newest: Tensor) -> Tensor:
    found = torch.cat(numbers)
    if len(found):
        return found.mean(dim=0)
    return found.sum(dim=0) + 0 * newest.float().mean()  # NaN stays in sight


def _picked(
    pieces: Sequence[Piece],
    indices: Sequence[int],
    device: torch.device,
    done: dict[tuple[int, int], Tensor],
) -> Tensor:
    """Frames at rising ``indices`` of all pieces laid end to end: [n, H, W, 3].

    ``done``: what was picked already, by piece and where it begins.
    """
    picked, start = [], 0
    for piece in pieces:
        inside = [i - start for i in indices if start <= i < start + len(piece.frames)]
        if inside:
            key = id(piece), start
            if key not in done:
                done[key] = piece.frames[inside].to(device)
            picked.append(done[key])
        start += len(piece.frames)
    return torch.cat(picked)


def _stacked(frames: Sequence[Tensor], device: torch.device) -> Tensor:
    """[B, T, H, W, 3]; one copy for candidates that all have the same, never the frames kept."""
    if all(one is frames[0] for one in frames):
        return frames[0].to(device, copy=True).expand(len(frames), *frames[0].shape)
    return torch.stack([one.to(device) for one in frames])
