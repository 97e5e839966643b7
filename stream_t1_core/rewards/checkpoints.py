"""Weights out of a training checkpoint, a pickle that holds more than tensors.

torch refuses such files, or trusts them with whatever code they bring. Here tensors are read, and
every other kind of object (an optimiser's settings, numpy's numbers) becomes an empty mark: no code
of the file runs. Knows no reward's layout.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .weights import read_weights

WEIGHTS = "state_dict"  # where training scripts put them
SAFE = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
}


class Unread:
    """Stands for an object of a kind that is not read, whatever a pickle does to it."""

    def __new__(cls, *_: object, **__: object) -> "Unread":
        return super().__new__(cls)

    def ignore(self, *_: object) -> "Unread":
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = ignore


class TensorsOnly(pickle.Unpickler):
    """Tensors and plain containers; storages are torch's own business, which wraps this."""

    def find_class(self, module: str, name: str) -> Any:
        return SAFE.get((module, name), Unread)


class TensorPickle:
    """What torch asks of a pickle module."""

    Unpickler = TensorsOnly

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        return TensorsOnly(file, **options).load()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, from a checkpoint's ``state_dict`` or from a .safetensors file."""
    if path.suffix == ".safetensors":
        return read_weights(path)
    if _is_script(path):
        raise ValueError(f"{path} is a TorchScript program, not a checkpoint: get another file")
    try:
        found = torch.load(
            path,
            map_location="cpu",
            weights_only=False,
            pickle_module=TensorPickle,
        )
    except (pickle.UnpicklingError, EOFError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: get it again ({error})"
        ) from error
    weights = found.get(WEIGHTS) if isinstance(found, Mapping) else None
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError(f"{path} has no tensors under '{WEIGHTS}': it is another kind of file")
    return dict(weights)


def _is_script(path: Path) -> bool:
    """torch.load hands those to torch.jit, which runs what they bring."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
