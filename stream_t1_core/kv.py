"""Keys and values that a chunk leaves behind, and laying them side by side for the next one.

Keys are kept before rotary, so a chunk can be placed at any position when it is used. A list of
chunks is all this file knows: no beams, no routes being decided, no model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import torch
from torch import Tensor


class Route(str, Enum):
    """What happens to a chunk when it leaves the window."""

    DROP = "drop"
    BLEND = "blend"
    APPEND = "append"


@dataclass(frozen=True, eq=False)
class ChunkKV:
    """One chunk's keys and values, per layer; never changed once made.

    ``first_frame`` is the latent frame its rotary positions start at.
    """

    first_frame: int
    keys: tuple[Tensor, ...] = field(repr=False)  # per layer [1, L, N, D], before rotary
    values: tuple[Tensor, ...] = field(repr=False)  # per layer [1, L, N, D]
    route: Route | None = None  # None: not decided, leaves as DROP does

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def blend(self, other: "ChunkKV", alpha: float) -> "ChunkKV":
        """Moving average ``alpha * self + (1 - alpha) * other``, at this chunk's position."""

        def mix(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(alpha * a + (1 - alpha) * b for a, b in zip(mine, theirs, strict=True))

        return replace(self, keys=mix(self.keys, other.keys), values=mix(self.values, other.values))


@dataclass(frozen=True, eq=False)
class Past:
    """Earlier chunks laid side by side, keys rotated into place: what a chunk attends to."""

    keys: tuple[Tensor, ...] = field(repr=False)  # per layer [1, L, N, D], rotated
    values: tuple[Tensor, ...] = field(repr=False)


def lay_out(chunks: Sequence[ChunkKV], rotate: Callable[[Tensor, int], Tensor]) -> Past:
    """Concatenate chunks in the given order; ``rotate(keys, first_frame)`` places each one."""
    if not chunks:
        return Past((), ())
    layers = range(len(chunks[0].keys))
    return Past(
        keys=tuple(
            torch.cat([rotate(chunk.keys[i], chunk.first_frame) for chunk in chunks], dim=1)
            for i in layers
        ),
        values=tuple(torch.cat([chunk.values[i] for chunk in chunks], dim=1) for i in layers),
    )


def live_bytes(chunks: Iterable[ChunkKV]) -> int:
    """Bytes of keys and values, each chunk counted once however many beams share it."""
    return sum(chunk.nbytes for chunk in {id(chunk): chunk for chunk in chunks}.values())
