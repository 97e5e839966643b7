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
class Past:
    """Earlier chunks laid side by side, keys rotated into place: what a chunk attends to.

    ``layer(i)`` is made once and kept, or made anew each time where keys and values are kept in
    another place than they are used: then one layer at a time is all that is there twice.
    """

    layer: Callable[[int], Layer] | None = field(default=None, repr=False)  # None: no past
    next_start: int | None = None  # position of the chunk that follows; None: its own frame


def lay_out(
    chunks: Sequence[ChunkKV],
    rotate: Callable[[int, Tensor], Tensor],
    fetch: Callable[[Tensor], Tensor] | None,
    next_start: int | None,
) -> Past:
    """Concatenate chunks in the given order; ``rotate(i, keys)`` places the i-th chunk's keys.

    ``fetch`` brings a tensor to where it is used; None: it is there.
    """
    if not chunks:
        return Past(None, next_start)

    def layer(i: int) -> Layer:
        keys, values = [c.keys[i] for c in chunks], [c.values[i] for c in chunks]
        if fetch:
            keys, values = [fetch(k) for k in keys], [fetch(v) for v in values]
        placed = [rotate(n, k) for n, k in enumerate(keys)]
        return torch.cat(placed, dim=1), torch.cat(values, dim=1)

    if fetch:
        return Past(layer, next_start)
    return Past([layer(i) for i in range(len(chunks[0].keys))].__getitem__, next_start)


def live_bytes(chunks: Iterable[ChunkKV]) -> int:
    """Bytes of keys and values, each chunk counted once however many beams share it."""
    return sum(chunk.nbytes for chunk in {id(chunk): chunk for chunk in chunks}.values())
