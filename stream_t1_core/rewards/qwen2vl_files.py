"""A Qwen2-VL reward's weights on disk -> the filled module, held in memory once.

Files are memory-mapped, so a tensor that needs no change is read when it is used. It knows PEFT's
key names and merges LoRA factors; which files make up a reward is known by the rewards themselves.
"""

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .qwen2vl import Qwen2VL, Qwen2VLShape

WEIGHTS = (".safetensors", ".pth", ".pt")  # in order of preference
HEAD = "rm_head."
_PEFT_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")


@dataclass(frozen=True)
class LoraScale:
    """What B @ A is multiplied with, and the rank that A must have."""

    rank: int
    alpha: float
    rank_stabilised: bool

    @property
    def factor(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def read_json(path: Path, needed: str) -> dict[str, Any]:
    """A settings file; ``needed`` says what it is and where it comes from."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: {needed}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): {needed}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not settings: {needed}")
    return content


def read_shape(folders: Sequence[Path], otherwise: Qwen2VLShape) -> Qwen2VLShape:
    """From the first ``config.json`` of a base model that there is, else the published sizes."""
    for path in (folder / "config.json" for folder in folders):
        if path.is_file():
            try:
                return Qwen2VLShape.of(read_json(path, "the base model's config.json"))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    return otherwise


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or a pickled state dict, memory-mapped, on the CPU.

    Without PEFT's prefix and without ``lm_head``, which no reward uses. A state dict may lie under
    the key ``model``.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        unreadable: tuple[type[Exception], ...] = (SafetensorError,)
        read = load_file
    else:
        unreadable = (RuntimeError, EOFError, pickle.UnpicklingError)
        read = _load_pickled
    try:
        tensors = read(path)
    except unreadable as error:
        raise ValueError(
            f"{path} cannot be read as a file of tensors ({error}): copy or download it again"
        ) from error
    if isinstance(tensors, dict) and isinstance(tensors.get("model"), dict):
        tensors = tensors["model"]
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ValueError(f"{path} holds no state dict: expected a dict of tensors")
    plain = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in plain.items() if not name.startswith("lm_head.")}


def read_base_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of a base model's folder: ``model.safetensors``, or the shards of its index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return read_weights(folder / "model.safetensors")
    shards = sorted(set(read_json(index, "the index of the base model")["weight_map"].values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder / missing[0]} not found: {index.name} lists it")
    merged: dict[str, Tensor] = {}
    for shard in shards:
        merged |= read_weights(folder / shard)
    return merged


def find_weights(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` in the folder, else its only file of weights, else None.

    Raises ValueError where several would do.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    for suffix in WEIGHTS:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) > 1:
            listed = ", ".join(path.name for path in found)
            raise ValueError(
                f"{folder} holds several files of weights ({listed}): keep one of them"
            )
        if found:
            return found[0]
    return None


def merge_lora(
    tensors: Mapping[str, Tensor], scale: LoraScale, dtype: torch.dtype, path: Path
) -> dict[str, Tensor]:
    """Add each pair's ``factor * B @ A`` to its layer, in float32; ``dtype`` is the result's."""
    plain = {}
    factors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _LORA.fullmatch(name):
            factors.setdefault(match["layer"], {})[match["side"]] = tensor
        else:
            plain[name.replace(".base_layer.", ".")] = tensor
    for layer, pair in factors.items():
        name = f"{layer}.weight"
        if name not in plain or len(pair) < 2:
            lacking = name if name not in plain else f"{layer}.lora_{'AB'['A' in pair]}"
            raise ValueError(f"{path} has a LoRA for '{layer}', but no '{lacking}'")
        if pair["A"].shape[0] != scale.rank:
            raise ValueError(
                f"{path} has a LoRA of rank {pair['A'].shape[0]} for '{layer}', but its settings "
                f"say {scale.rank}: weights and settings are of two different models"
            )
        change = pair["B"].float() @ pair["A"].float()
        plain[name] = (plain[name].float() + scale.factor * change).to(dtype)
    return plain


def build(
    shape: Qwen2VLShape,
    head: nn.Module,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    path: Path,
) -> Qwen2VL:
    """The module of this shape with these weights: backbone in ``dtype``, head in float32.

    ``path`` is named in errors. Raises ValueError for a missing or unknown name or another shape.
    """
    rows = tensors.get("model.embed_tokens.weight")
    module = Qwen2VL(shape, len(rows) if rows is not None else 1, head)
    _check(module, tensors, path)
    module.load_state_dict(
        {k: v.to(torch.float32 if k.startswith(HEAD) else dtype) for k, v in tensors.items()},
        assign=True,
    )
    return module.requires_grad_(False)


def _load_pickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _check(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = (
        ("lacks", [name for name in wanted if name not in tensors]),
        ("has unknown", [name for name in tensors if name not in wanted]),
        ("has other shapes for", list(_other_shapes(wanted, tensors))),
    )
    for what, names in problems:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{path} {what} {', '.join(names[:3])}{more}: it is of another model")


def _other_shapes(wanted: Mapping[str, tuple], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            yield f"{name} {list(found)} (expected {list(shape)})"
