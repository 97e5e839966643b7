"""The records that travel through a run: candidates, committed chunks, beams, the stream's state.

A ``Chunk`` is the light part of a committed candidate (latent, frames, scores) and points at its
parent: a path to the root is a video. A ``Beam`` is the live end of such a path: what the next
chunk needs. They are two records so that keys and values die when no beam's window holds them any
more, while the path lives on. None is changed once made; to free a branch, forget it.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .budget import Spending
from .kv import ChunkKV, Route
from .rewards.base import Piece
from .rewards.tally import Tallies


@dataclass(frozen=True, eq=False)
class Start:
    """Footage that is there before the run: latent [C, F, h, w], frames [T, H, W, 3] or None.

    Frames are used as they are given; without them the latent is decoded.
    """

    latent: Tensor = field(repr=False)
    frames: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Scores:
    """Rewards of a candidate; ``None`` where no such reward is plugged in."""

    short: float | None = None
    long: float | None = None
    fused: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)  # by reward, "short.NAME", "long.NAME"
    # short and long as they were compared, in standard deviations; None where added as they are
    standard: tuple[float | None, float | None] | None = None
    as_shown: bool = False  # of frames by the video's decoder, where there is one for scoring too


@dataclass(frozen=True, eq=False)
class Chunk:
    """A committed chunk."""

    index: int  # negative: given, not made
    first_frame: int
    seed: int | None  # None: given
    latent: Tensor = field(repr=False)  # [C, F, H, W], CPU
    piece: Piece | None = field(repr=False)  # its frames [T, H, W, 3], CPU
    scores: Scores
    route: Route | None  # None for the first chunk, which becomes a sink
    parent: "Chunk | None" = field(repr=False)  # None: the first, or the last one remembered
    opening: Tensor | None = field(repr=False)  # frames of the path's first chunk
    shorts: tuple[float, int] = (0.0, 0)  # sum and count of the path's short rewards

    @property
    def frames(self) -> Tensor | None:
        return self.piece and self.piece.frames

    def path(self) -> list["Chunk"]:
        """All chunks from the first to this one."""
        return [*self.ancestors()][::-1]

    def ancestors(self) -> Iterator["Chunk"]:
        """This chunk, its parent, and so on to the first."""
        chunk: Chunk | None = self
        while chunk is not None:
            yield chunk
            chunk = chunk.parent


@dataclass(frozen=True, eq=False)
class Beam:
    """A committed candidate, ready to be continued. ``chunk`` is None before the first chunk.

    ``rank`` is its place among the survivors of its chunk, 0 is best; some of them may have gone.
    """

    chunk: Chunk | None = None
    rank: int = 0
    noise: Tensor | None = field(default=None, repr=False)  # [C, F, H, W], mixed
    sinks: tuple[ChunkKV, ...] = field(default=(), repr=False)
    window: tuple[ChunkKV, ...] = field(default=(), repr=False)
    older: tuple[ChunkKV, ...] = field(default=(), repr=False)  # have left the window; to refine by
    decoder_state: Any = field(default=None, repr=False)

    @property
    def kv(self) -> tuple[ChunkKV, ...]:
        return (*self.sinks, *self.window)

    @property
    def wide_kv(self) -> tuple[ChunkKV, ...]:
        """All that is remembered, in the order that it is attended to."""
        return (*self.sinks, *self.older, *self.window)


@dataclass(frozen=True, eq=False)
class AsShown:
    """A candidate and its past as the video's decoder makes them, to be judged by.

    ``pieces``: of the chunks before it that the long reward looks back on, and last its own.
    ``opening`` [T, H, W, 3]: frames of the path's first chunk.
    """

    pieces: tuple[Piece, ...] = field(repr=False)
    opening: Tensor = field(repr=False)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One attempt at the next chunk; each step of the loop fills in more of it."""

    parent: Beam = field(repr=False)
    parent_rank: int
    seed: int
    noise: Tensor | None = field(default=None, repr=False)  # [C, F, H, W]
    renoise: Tensor | None = field(default=None, repr=False)  # [steps - 1, C, F, H, W]
    latent: Tensor | None = field(default=None, repr=False)  # [C, F, H, W], CPU
    piece: Piece | None = field(default=None, repr=False)  # its frames [T, H, W, 3], as decoded
    decoder_state: Any = field(default=None, repr=False)
    as_shown: AsShown | None = field(default=None, repr=False)
    scores: Scores = Scores()
    route: Route | None = None
    failure: str | None = None  # why it cannot win, if it cannot

    @property
    def judged(self) -> Piece | None:
        """What rewards and people see of it."""
        return self.as_shown.pieces[-1] if self.as_shown else self.piece

    @property
    def frames(self) -> Tensor | None:
        """The same as frames [T, H, W, 3]."""
        return self.judged and self.judged.frames

    def with_latent(self, latent: Tensor) -> "Candidate":
        """The same with this latent; it has failed where that is not finite."""
        finite = bool(torch.isfinite(latent).all())
        return replace(self, latent=latent, failure=None if finite else "latent not finite")


@dataclass(frozen=True, eq=False)
class Shown:
    """The video's own frames, where candidates are scored by those of another decoder.

    ``frames`` [T, H, W, 3], CPU, by the first latent frame of their chunk; ``until``: the first
    latent frame that they do not reach, ``decoder_state``: what the video's decoder remembers
    there.
    """

    until: int = 0
    frames: Mapping[int, Tensor] = field(default_factory=dict, repr=False)
    decoder_state: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class StreamState:
    """Where a stream stands: the next chunk's index, the beams, best first, the rewards so far.

    ``settled``: the first latent frame that has not been handed out yet. ``reseed``: the next chunk
    is one done again, so a beam's first branch must not draw from its parent's seed once more.
    ``spending``: of the budget, where there is one. ``shown``: None where the frames that
    candidates are scored by are the video's too.
    """

    chunk: int = 0
    beams: tuple[Beam, ...] = (Beam(),)
    seen: Tallies = field(default_factory=dict, repr=False)
    settled: int = 0
    reseed: bool = False
    spending: Spending = Spending()
    shown: Shown | None = None

    def with_kv(self, move: Callable[[Tensor], Tensor]) -> "StreamState":
        """The same, all keys and values moved; what beams share they go on sharing."""
        moved = functools.cache(lambda chunk: chunk.moved(move))
        beams = (
            replace(
                beam,
                sinks=tuple(map(moved, beam.sinks)),
                window=tuple(map(moved, beam.window)),
                older=tuple(map(moved, beam.older)),
            )
            for beam in self.beams
        )
        return replace(self, beams=tuple(beams))
