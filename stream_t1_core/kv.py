"""Keys and values that a chunk leaves behind, and putting them in their places for the next one.

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


class KVPlace(str, Enum):
    """Where keys and values are kept between passes; what comes out is the same bit for bit."""

    DEVICE = "device"  # with the model: quickest
    PINNED = "pinned"  # the CPU's memory, page-locked: fetched layer by layer, at bus speed
    CPU = "cpu"  # the CPU's memory: slower to fetch, may be swapped out

    def store(self, tensor: Tensor, device: torch.device) -> Tensor:
        """A tensor in this place; ``device`` is the model's."""
        if self is KVPlace.DEVICE or device.type == "cpu":
            return tensor.to(device)
        tensor = tensor.to("cpu")
        return tensor.pin_memory() if self is KVPlace.PINNED else tensor


@dataclass(frozen=True, eq=False)
class ChunkKV:
    """One chunk's keys and values, per layer; never changed once made.

    ``first_frame`` is the latent frame that it starts at.
    """

    first_frame: int
    keys: tuple[Tensor, ...] = field(repr=False)  # per layer [1, L, N, D], before rotary
    values: tuple[Tensor, ...] = field(repr=False)  # per layer [1, L, N, D]
    route: Route | None = None  # None: not decided, leaves as DROP does

    @property
    def tokens(self) -> int:
        return self.keys[0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "ChunkKV":
        """The same with every tensor moved."""
        keys, values = tuple(map(move, self.keys)), tuple(map(move, self.values))
        return replace(self, keys=keys, values=values)

    def blend(self, other: "ChunkKV", alpha: float) -> "ChunkKV":
        """Moving average ``alpha * self + (1 - alpha) * other``, at this chunk's position."""

        def mix(mine: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(alpha * a + (1 - alpha) * b for a, b in zip(mine, theirs, strict=True))

        return replace(self, keys=mix(self.keys, other.keys), values=mix(self.values, other.values))


Layer = tuple[Tensor, Tensor]  # keys, rotated, and values: [1, L, N, D] each


@dataclass(frozen=True, eq=False)
class Placed:
    """A chunk in its place, keys rotated: what a later one sees of it.

    ``layer(i)`` is made once and kept, or made anew each time where keys and values are kept in
    another place than they are used: then one layer at a time is all that is there twice.
    """

    layer: Callable[[int], Layer] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Past:
    """What a chunk attends to: earlier chunks, side by side in this order."""

    chunks: tuple[Placed, ...] = ()
    next_start: int | None = None  # position of the chunk that follows; None: its own frame


LayOut = Callable[[Sequence[ChunkKV]], Past]  # sinks first, then the window


def place(
    chunk: ChunkKV, rotate: Callable[[Tensor], Tensor], fetch: Callable[[Tensor], Tensor] | None
) -> Placed:
    """``rotate`` turns keys into place; ``fetch`` brings a tensor to where it is used.

    Without ``fetch`` it is there, and values are not copied.
    """
    if fetch:
        return Placed(lambda i: (rotate(fetch(chunk.keys[i])), fetch(chunk.values[i])))
    return Placed([*zip(map(rotate, chunk.keys), chunk.values, strict=True)].__getitem__)


def live_bytes(chunks: Iterable[ChunkKV]) -> int:
    """Bytes of keys and values, each chunk counted once however many beams share it."""
    return sum(chunk.nbytes for chunk in {id(chunk): chunk for chunk in chunks}.values())
