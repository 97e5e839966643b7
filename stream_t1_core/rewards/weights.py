"""Weight files of learned rewards: find them, read them, pour them into a module, all strictly.

Knows plain local files: safetensors, and pickles that hold nothing but tensors. Fetches nothing,
runs no code from a file, and knows no reward's layout. Whoever calls says where a missing file is
to be had.
"""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHOWN_KEYS = 3

Network = TypeVar("Network", bound=nn.Module)


def find_file(folder: Path, names: Sequence[str], origin: str) -> Path:
    """The first of ``names`` that is in ``folder``; FileNotFoundError says where to get it."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    state = "is not a folder" if not folder.is_dir() else f"has no {' or '.join(names)}"
    raise FileNotFoundError(
        f"{folder} {state}: get {names[0]} from {origin} and put it at {folder / names[0]}"
    )


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): get the file again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not an object: get it again")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU and left on disk where the format allows."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error}): get it again") from error
    try:
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a file of plain tensors; get it again, or use a "
            f".safetensors file ({error})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path} is not a plain dict of tensors: it is another kind of file")
    return dict(found)


def require(weights: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    """``weights[key]``; ValueError where a file of another kind has no such entry."""
    if key not in weights:
        raise ValueError(f"{path} has no '{key}': it is another model's file")
    return weights[key]


def fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Make ``weights`` the parameters of ``module``, in the file's dtype and without a copy.

    The module may be on the meta device. ValueError names what is missing, left over or of another
    shape. Buffers outside the state dict stay as they are.
    """
    expected = module.state_dict()
    shared = expected.keys() & weights.keys()
    misfits = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {list(weights[key].shape)}, not {list(expected[key].shape)}"
            for key in expected
            if key in shared and weights[key].shape != expected[key].shape
        ],
    }
    problems = [f"{what}: {_first_of(keys)}" for what, keys in misfits.items() if keys]
    if problems:
        raise ValueError(
            f"{path} does not fit {type(module).__name__} (keys {'; '.join(problems)}): "
            "it is another model's file, or does not belong to the config beside it"
        )
    module.load_state_dict(dict(weights), assign=True)
    return module.requires_grad_(False).eval()


def load_network(
    kind: type[Network],
    path: Path | str,
    origin: str,
    read: Callable[[Path], Mapping[str, Tensor]] = read_weights,
) -> Network:
    """A network of one size from its one file, whatever that is called; ``origin`` has it."""
    path = Path(path)
    find_file(path.parent, [path.name], origin)
    with torch.device("meta"):
        module = kind()
    return fill(module, read(path), path)


def _first_of(keys: Sequence[str]) -> str:
    more = len(keys) - SHOWN_KEYS
    return ", ".join(keys[:SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
