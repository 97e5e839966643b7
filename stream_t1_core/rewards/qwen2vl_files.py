"""A Qwen2-VL reward's weights on disk -> the filled module, held in memory once.

It knows PEFT's key names, merges LoRA factors, and leaves out what no reward uses. Which files make
up a reward is known by the rewards themselves; reading and filling as such is ``weights``.
"""

import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .qwen2vl import Qwen2VL, Qwen2VLShape
from .weights import fill, read_json, read_weights, require

SUFFIXES = (".safetensors", ".pth", ".pt")  # in order of preference
INDEX = "model.safetensors.index.json"
HEAD = "rm_head."
EMBEDDING = "model.embed_tokens.weight"
_PEFT_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")


@dataclass(frozen=True)
class LoraScale:
    """What B @ A is multiplied with, and the rank that both must have."""

    rank: int
    alpha: float
    rank_stabilised: bool

    @property
    def factor(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


def find_weights(folder: Path, names: Sequence[str], origin: str) -> Path:
    """The first of ``names`` in the folder, else the only file of weights there.

    FileNotFoundError says where to get it; ValueError where several would do.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    for suffix in SUFFIXES:
        found = sorted(folder.glob(f"*{suffix}"))
        if len(found) > 1:
            listed = ", ".join(path.name for path in found)
            raise ValueError(f"{folder} holds several files of weights ({listed}): keep one")
        if found:
            return found[0]
    raise FileNotFoundError(f"no weights in {folder} (looked for {', '.join(names)}): {origin}")


def read_shape(folders: Sequence[Path], otherwise: Qwen2VLShape) -> Qwen2VLShape:
    """From the first ``config.json`` of a base model that there is, else the published sizes."""
    for path in (folder / "config.json" for folder in folders):
        if path.is_file():
            config = read_json(path)
            try:
                return Qwen2VLShape.of(config)
            except ValueError as error:
                raise ValueError(f"{path} is {error}") from error
    return otherwise


def read_reward(path: Path) -> dict[str, Tensor]:
    """Weights of a reward under the base model's names: no PEFT prefix, no ``lm_head``."""
    tensors = read_weights(path) if path.suffix == ".safetensors" else _unpickled(path)
    plain = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in plain.items() if not name.startswith("lm_head.")}


def read_base(folder: Path) -> dict[str, Tensor]:
    """Weights of a base model's folder: one file, or the shards of its index."""
    index = folder / INDEX
    if not index.is_file():
        return read_reward(folder / "model.safetensors")
    shards = sorted(set(read_json(index)["weight_map"].values()))
    missing = [folder / shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} not found, but {index.name} beside it lists it")
    merged: dict[str, Tensor] = {}
    for shard in shards:
        merged |= read_reward(folder / shard)
    return merged


def merge_lora(
    tensors: Mapping[str, Tensor], scale: LoraScale, dtype: torch.dtype, path: Path
) -> dict[str, Tensor]:
    """Add each pair's ``factor * B @ A`` to its layer, in float32; ``dtype`` is the result's."""
    plain: dict[str, Tensor] = {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := _LORA.fullmatch(name):
            pairs.setdefault(match["layer"], {})[match["side"]] = tensor
        else:
            plain[name.replace(".base_layer.", ".")] = tensor
    for layer, pair in pairs.items():
        weight = require(plain, f"{layer}.weight", path)
        if len(pair) < 2:
            raise ValueError(f"{path} has half of a LoRA for '{layer}': copy the file again")
        if pair["A"].shape[0] != scale.rank:
            raise ValueError(
                f"{path} has a LoRA of rank {pair['A'].shape[0]} for '{layer}', but the settings "
                f"say {scale.rank}: weights and settings are of two different models"
            )
        a, b = pair["A"].float(), pair["B"].float()
        merged = torch.addmm(weight.float(), b, a, alpha=scale.factor)
        plain[f"{layer}.weight"] = merged.to(dtype)
    return plain


def build(
    shape: Qwen2VLShape,
    head: nn.Module,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    path: Path,
) -> Qwen2VL:
    """The module of this shape with these weights: backbone in ``dtype``, head in float32.

    Embedding rows are the file's. ``path`` is named in errors: names and shapes must fit exactly.
    """
    module = Qwen2VL(shape, len(require(tensors, EMBEDDING, path)), head)
    cast = {k: v.to(torch.float32 if k.startswith(HEAD) else dtype) for k, v in tensors.items()}
    fill(module, cast, path)
    return module


def _unpickled(path: Path) -> dict[str, Tensor]:
    """A state dict, bare or under ``model``; memory-mapped, nothing but tensors is accepted."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read as a file of plain tensors: copy it again ({error})"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{path} is not a plain dict of tensors: it is another kind of file")
    return found
