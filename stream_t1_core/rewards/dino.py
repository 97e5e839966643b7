"""Subject consistency as VBench measures it: do a video's frames stay alike in DINO's eyes?

Knows the hub's folder and DINO's own file, both of which hold one plain vision transformer. Knows
no prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Footage, FootageReward, Needs
from .vision import dtype_of, encode_frames, normalise, shorter_side_to, to_bytes
from .vit import VisionTransformer, VitShape
from .weights import HUB_WEIGHTS, fill, find_file, read_json, read_weights, require

HUB = "https://huggingface.co/facebook/dino-vitb16"
ORIGINAL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The hub's name of a layer's part -> DINO's; query, key and value are then laid into one, qkv.
PARTS = {
    "attention.attention.query": "attn.query",
    "attention.attention.key": "attn.key",
    "attention.attention.value": "attn.value",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
ENDS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}


@dataclass(frozen=True, eq=False)
class SubjectConsistency(FootageReward):
    """Mean over later frames of (max(0, cos to the one before) + max(0, cos to the first)) / 2.

    Unit: cosine of DINO's summary tokens; range 0..1, mostly above 0.8. Source: VBench's subject
    consistency (Huang et al. 2023; DINO ViT-B/16, Caron et al. 2021), on the clip it is given.
    Limits: a frozen video is perfect: combine it with a motion reward. Needs two frames.
    """

    module: VisionTransformer = field(repr=False)
    name: str = "subject_consistency"

    @classmethod
    def from_folder(cls, folder: Path | str) -> "SubjectConsistency":
        """From a hub folder in the layout of transformers' ``ViTModel``."""
        folder = Path(folder)
        config_path = find_file(folder, ["config.json"], HUB)
        config = _checked_config(read_json(config_path), config_path)
        path = find_file(folder, HUB_WEIGHTS, HUB)
        weights = renamed(read_weights(path), path)
        shape = replace(
            VitShape.of(weights, path),
            heads=config["num_attention_heads"],
            epsilon=config.get("layer_norm_eps", 1e-12),
        )
        return cls(_build(shape, weights, path))

    @classmethod
    def from_file(cls, path: Path | str) -> "SubjectConsistency":
        """From DINO's own file, ``dino_vitbase16_pretrain.pth``."""
        path = Path(path)
        find_file(path.parent, [path.name], ORIGINAL)
        weights = read_weights(path)
        return cls(_build(VitShape.of(weights, path), weights, path))

    @property
    def needs(self) -> Needs:
        return Needs(pixels=self.module.shape.size**2, scale=(0.0, 1.0))

    @torch.inference_mode()
    def of_footage(self, footage: Footage) -> Tensor:
        marks = footage.marks(self._marks)
        if marks.shape[1] < 2:
            raise ValueError(f"{self.name} compares frames, the clip has one: use longer chunks")
        return likeness(marks)

    def _marks(self, frames: Tensor) -> Tensor:
        return encode_frames(frames[None], self._embed, self.module)[0]

    def _embed(self, frames: Tensor) -> Tensor:
        """[n, H, W, 3] -> summary tokens [n, width]."""
        pictures = to_bytes(frames)
        # VBench's transform: bilinear without antialias, nothing cropped.
        size = shorter_side_to(self.module.shape.size, pictures)
        pictures = F.interpolate(pictures, size, mode="bilinear").round()
        pictures = normalise(pictures, IMAGENET_MEAN, IMAGENET_STD)
        return self.module(pictures.to(dtype_of(self.module)))[:, 0].float()


def likeness(marks: Tensor) -> Tensor:
    """VBench's formula, of a mark for each frame: [B, T, D] -> [B]; T is 2 or more."""
    marks = F.normalize(marks, dim=-1)
    before, first = marks[:, :-1], marks[:, :1]
    cosines = [(marks[:, 1:] * other).sum(dim=-1).clamp(min=0) for other in (before, first)]
    return ((cosines[0] + cosines[1]) / 2).mean(dim=1)


def renamed(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The hub's entries under DINO's names; the pooler, which DINO has not, is left out.

    A name that is not known is kept, so that filling the model reports it.
    """
    found = {_dino_name(k): v for k, v in weights.items() if not k.startswith("pooler.")}
    for key in [key for key in found if ".attn.query." in key]:
        names = [key.replace(".query.", f".{one}.") for one in ("query", "key", "value")]
        rows = [require(found, name, path) for name in names]
        found = {k: v for k, v in found.items() if k not in names}
        found[key.replace(".query.", ".qkv.")] = torch.cat(rows)
    return found


def _dino_name(key: str) -> str:
    if not key.startswith("encoder.layer."):
        return ENDS.get(key, key)
    number, _, rest = key.removeprefix("encoder.layer.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blocks.{number}.{PARTS.get(part, part)}.{kind}"


def _build(shape: VitShape, weights: Mapping[str, Tensor], path: Path) -> VisionTransformer:
    with torch.device("meta"):
        module = VisionTransformer(shape)
    fill(module, weights, path)
    return module


def _checked_config(config: dict[str, Any], path: Path) -> dict[str, Any]:
    act, bias = config.get("hidden_act", "gelu"), config.get("qkv_bias", True)
    if act != "gelu" or not bias or "num_attention_heads" not in config:
        raise ValueError(
            f"{path} is not the config of a DINO vision transformer (hidden_act {act}, qkv_bias "
            f"{bias}, num_attention_heads {config.get('num_attention_heads')}): use {HUB}"
        )
    return config
