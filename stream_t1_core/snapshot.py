"""A stream's state as tensors and JSON, and back, bit for bit; what beams share is stored once.

Knows the records that a state is made of, and builds no others. Paths are stored as far as the
state remembers them. Each record comes after those that it refers to, so a path may be of any
length. Where it is kept is the reel's business.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from .budget import Spending
from .kv import ChunkKV, Route
from .rewards.base import Piece
from .rewards.tally import Tally
from .state import Beam, Chunk, Scores, Shown, StreamState
from .streaming_vae import DecoderState

KINDS = (StreamState, Beam, Chunk, Piece, Scores, ChunkKV, Tally, DecoderState, Spending, Shown)
RECORDS = {kind.__name__: kind for kind in KINDS}


def save(state: StreamState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and the rest as plain JSON values that refer to them."""
    packing = _Packing()
    for beam in state.beams:
        for chunk in beam.chunk.path() if beam.chunk else ():
            packing.value(chunk)  # oldest first: a long path must not be walked by recursion
    packing.value(state)
    return packing.tensors, {"records": packing.records}


def load(
    tensors: Mapping[str, Tensor], about: Mapping[str, Any], device: torch.device | str
) -> StreamState:
    """The state again; what was on another device than the CPU goes to ``device``.

    ValueError where ``about`` is not what ``save`` gave.
    """
    unpacking = _Unpacking(tensors, device)
    try:
        for kind, values in about["records"]:
            unpacking.add(kind, values)
        state = unpacking.records[-1]
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"it holds no state that this version knows ({error!r})") from error
    if not isinstance(state, StreamState):
        raise ValueError(f"it holds a {type(state).__name__}, not a stream's state")
    return state


class _Packing:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.records: list[tuple[str, dict[str, Any]]] = []
        self._seen: dict[int, Any] = {}  # by id; the state keeps them all alive

    def value(self, found: Any) -> Any:
        """Numbers, texts and None as they are; anything else as an object of one key."""
        if isinstance(found, Route):
            return {"route": found.value}
        if isinstance(found, float) and not math.isfinite(found):
            return {"float": repr(found)}
        if found is None or isinstance(found, bool | int | float | str):
            return found
        if isinstance(found, tuple):
            return {"tuple": [self.value(item) for item in found]}
        if isinstance(found, Mapping):
            return {"dict": {key: self.value(item) for key, item in found.items()}}
        if id(found) not in self._seen:
            make: Callable[[Any], Any] = self._tensor if isinstance(found, Tensor) else self._record
            self._seen[id(found)] = make(found)
        return self._seen[id(found)]

    def _tensor(self, found: Tensor) -> dict[str, Any]:
        name = f"{len(self.tensors):06}"
        self.tensors[name] = found
        # kernels may add up in another order where values lie in another one
        stride = torch.empty_like(found, device="meta").stride()
        return {"tensor": [name, found.device.type == "cpu", *stride]}

    def _record(self, found: Any) -> dict[str, int]:
        kind = type(found).__name__
        assert RECORDS.get(kind) is type(found), f"a {kind} in a state"
        # what is not given when a record is made follows from the rest
        given = [field.name for field in fields(found) if field.init]
        values = {name: self.value(getattr(found, name)) for name in given}
        self.records.append((kind, values))
        return {"record": len(self.records) - 1}


class _Unpacking:
    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device | str) -> None:
        self.records: list[Any] = []
        self._stored = tensors
        self._device = device
        self._placed: dict[str, Tensor] = {}

    def add(self, kind: str, values: Mapping[str, Any]) -> None:
        given = {name: self._value(value) for name, value in values.items()}
        self.records.append(RECORDS[kind](**given))

    def _value(self, stored: Any) -> Any:
        if not isinstance(stored, dict):
            return stored
        [(kind, inner)] = stored.items()
        if kind == "record":
            return self.records[inner]
        if kind == "tensor":
            return self._tensor(*inner)
        if kind == "tuple":
            return tuple(self._value(item) for item in inner)
        if kind == "dict":
            return {key: self._value(item) for key, item in inner.items()}
        return {"route": Route, "float": float}[kind](inner)

    def _tensor(self, name: str, on_cpu: bool, *stride: int) -> Tensor:
        if name not in self._placed:
            stored = self._stored[name]
            if stored.stride() != stride:
                stored = _laid_out(stored, stride)
            self._placed[name] = stored if on_cpu else stored.to(self._device)
        return self._placed[name]


def _laid_out(stored: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The same values in memory in another order of axes."""
    room = 1 + sum((size - 1) * step for size, step in zip(stored.shape, stride, strict=True))
    if stored.numel() and room != stored.numel():
        raise ValueError(f"strides {stride} of shape {tuple(stored.shape)}")
    return torch.empty_strided(stored.shape, stride, dtype=stored.dtype).copy_(stored)
