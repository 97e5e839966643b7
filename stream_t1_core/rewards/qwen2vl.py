"""Qwen2-VL as the two reward models use it: vision tower, text model and a reward head, one module.

It knows how to build the three without memory, on any transformers from 4.45 on, and how they are
joined: plain 1-D positions, as both rewards were trained, not the 3-D ones of the stock forward.
Checkpoints, pictures and tokens are the business of ``qwen2vl_files``, ``qwen2vl_pixels`` and
``qwen2vl_prompt``; which hidden state means what is known by the rewards themselves.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

PATCH = 14  # pixels; with MERGE and FRAMES_PER_PATCH the same in every Qwen2-VL
MERGE = 2  # patches of a side that become one token
FRAMES_PER_PATCH = 2
OLDEST_TRANSFORMERS = (4, 45)

Grid = tuple[int, int, int]  # patches in time, height and width


@dataclass(frozen=True)
class Qwen2VLShape:
    """Sizes of a Qwen2-VL, as in its ``config.json``; head counts cannot be read off weights."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    norm_eps: float = 1e-6
    rope_theta: float = 1e6
    rope_sections: tuple[int, ...] = (16, 24, 24)
    vision_layers: int = 32
    vision_width: int = 1280
    vision_heads: int = 16
    vision_mlp_ratio: int = 4

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Qwen2VLShape":
        """Read a ``config.json``, flat as on the hub or with a ``text_config`` as saved today."""
        text = {**config, **config.get("text_config", {})}
        try:
            vision = config["vision_config"]
            rope = text.get("rope_scaling") or text["rope_parameters"]
            _check_patches(vision)
            return cls(
                hidden_size=text["hidden_size"],
                intermediate_size=text["intermediate_size"],
                layers=text["num_hidden_layers"],
                heads=text["num_attention_heads"],
                kv_heads=text["num_key_value_heads"],
                norm_eps=text["rms_norm_eps"],
                rope_theta=rope["rope_theta"] if "rope_theta" in rope else text["rope_theta"],
                rope_sections=tuple(rope["mrope_section"]),
                vision_layers=vision["depth"],
                vision_width=vision["embed_dim"],
                vision_heads=vision["num_heads"],
                vision_mlp_ratio=vision["mlp_ratio"],
            )
        except KeyError as error:
            raise ValueError(f"not the config of a Qwen2-VL: it has no {error}") from error


QWEN2_VL_2B = Qwen2VLShape(1536, 8960, layers=28, heads=12, kv_heads=2)
QWEN2_VL_7B = Qwen2VLShape(3584, 18944, layers=28, heads=28, kv_heads=4)


@dataclass(frozen=True, eq=False)
class Batch:
    """Chats of one picture or video each, padded on the right to the longest."""

    ids: Tensor = field(repr=False)  # [B, L]
    mask: Tensor = field(repr=False)  # [B, L], 1 where there is a token
    rows: tuple[Tensor, ...] = field(repr=False)  # of each chat: patches as [N, 1176]
    grids: tuple[Grid, ...]


class Qwen2VL(nn.Module):
    """Vision tower, text model and head; parameters are named as in the released checkpoints.

    Built empty on the meta device: fill it from a checkpoint. Move it between devices, but do not
    cast it: the rotary frequencies and the head are float32 whatever the rest is in.
    """

    def __init__(self, shape: Qwen2VLShape, vocabulary: int, head: nn.Module) -> None:
        super().__init__()
        self.visual = _hollow(_vision, shape, vocabulary)
        self.model = _hollow(_text, shape, vocabulary)
        self.rm_head = head
        self.eval().requires_grad_(False)

    @property
    def vocabulary(self) -> int:
        return self.model.embed_tokens.weight.shape[0]

    def visual_embeds(self, rows: Tensor, grid: Grid) -> Tensor:
        """Patches [N, 1176] of one picture or video -> [N / 4, D], one row for each token."""
        weight = self.visual.patch_embed.proj.weight
        rows = rows.to(weight.device, weight.dtype)
        out = self.visual(rows, grid_thw=torch.tensor([grid], device=weight.device))
        # transformers 5 returns an object that also holds the patches before merging
        return out if isinstance(out, Tensor) else out.pooler_output

    def forward(self, batch: Batch, pad: int) -> Tensor:
        """Last hidden states [B, L, D], after the final norm. ``pad`` is the visual pad token.

        The tower sees one clip at a time: old versions attend over everything they are handed.
        """
        ids = batch.ids.to(self.model.embed_tokens.weight.device)
        embeds = self.model.embed_tokens(ids)  # [B, L, D]
        pictures = zip(batch.rows, batch.grids, strict=True)
        embeds[ids == pad] = torch.cat([self.visual_embeds(*picture) for picture in pictures])
        return self.model(
            inputs_embeds=embeds,
            attention_mask=batch.mask.to(ids.device),
            position_ids=positions(ids),
            use_cache=False,
        ).last_hidden_state


def positions(ids: Tensor) -> Tensor:
    """[3, B, L]: 0, 1, 2, ... on all three axes, for text, vision and padding alike.

    Both rewards were trained and published so (transformers 4.45.2 without position ids). The 3-D
    positions that newer versions compute by themselves give other scores.
    """
    batch, length = ids.shape
    return torch.arange(length, device=ids.device).expand(3, batch, length)


def _transformers() -> ModuleType:
    needed = ".".join(map(str, OLDEST_TRANSFORMERS))
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"the Qwen2-VL rewards need the 'transformers' package, {needed} or newer (ComfyUI "
            "installs one): pip install transformers"
        ) from error
    version = tuple(int(number) for number in re.findall(r"\d+", transformers.__version__)[:2])
    if version < OLDEST_TRANSFORMERS:
        raise ImportError(
            f"the Qwen2-VL rewards need transformers {needed} or newer, found "
            f"{transformers.__version__}: pip install --upgrade transformers"
        )
    from transformers.models.qwen2_vl import modeling_qwen2_vl

    return modeling_qwen2_vl


def _vision(shape: Qwen2VLShape, _: int) -> nn.Module:
    tower = _transformers().Qwen2VisionTransformerPretrainedModel
    config = tower.config_class(
        depth=shape.vision_layers,
        embed_dim=shape.vision_width,
        hidden_size=shape.hidden_size,
        mlp_ratio=shape.vision_mlp_ratio,
        num_heads=shape.vision_heads,
        patch_size=PATCH,
        spatial_merge_size=MERGE,
        temporal_patch_size=FRAMES_PER_PATCH,
    )
    return tower(config)


def _text(shape: Qwen2VLShape, vocabulary: int) -> nn.Module:
    library = _transformers()
    # up to 4.51 the text model was called Qwen2VLModel, later that is the whole of it
    model = getattr(library, "Qwen2VLTextModel", None) or library.Qwen2VLModel
    config = model.config_class(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=shape.norm_eps,
        rope_theta=shape.rope_theta,
        rope_scaling={"type": "mrope", "mrope_section": list(shape.rope_sections)},
        bos_token_id=None,
        eos_token_id=None,
    )
    return model(config)


def _hollow(
    build: Callable[[Qwen2VLShape, int], nn.Module], shape: Qwen2VLShape, vocabulary: int
) -> nn.Module:
    """A model whose weights take no memory, to be assigned from a file.

    Its buffers are in no file (rotary frequencies): those come from one without layers and words.
    """
    with torch.device("meta"):
        model = build(shape, vocabulary)
    small = build(replace(shape, layers=0, vision_layers=0), 1)
    real = {(type(owner), leaf): buffer for owner, leaf, buffer in _buffers(small)}
    for owner, leaf, _ in list(_buffers(model)):
        setattr(owner, leaf, real[type(owner), leaf])
    return model


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for owner in model.modules():
        for leaf, buffer in owner.named_buffers(recurse=False):
            yield owner, leaf, buffer


def _check_patches(vision: Mapping[str, Any]) -> None:
    known = {"patch_size": PATCH, "spatial_merge_size": MERGE}
    known["temporal_patch_size"] = FRAMES_PER_PATCH
    for name, value in known.items():
        if vision.get(name, value) != value:
            raise ValueError(f"not the config of a Qwen2-VL: {name} is {vision[name]}, not {value}")
