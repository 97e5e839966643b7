"""LongLive's released files -> plain Wan names: the base checkpoint and the LoRA.

Key names only; nothing here loads a file or knows a host. Layouts: LongLive's
``longlive_base.pt`` (nested dicts, FSDP and checkpointing wrappers in the names) and ``lora.pt``
(peft names, rank 256 with alpha 256).
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

BASE_NESTS = ("generator_ema", "generator", "model", "state_dict")
LORA_NESTS = ("generator_lora", "lora", "state_dict")
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|module)\.")
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "net.")
_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>A|B)(?:\.[\w-]+)?\.weight")
_LORA_PREFIXES = ("base_model.model.", "base_model.", *_PREFIXES)


def base_weights(checkpoint: Mapping[str, Any], use_ema: bool = True) -> dict[str, Tensor]:
    """Wan-named weights of the generator.

    ``use_ema`` prefers ``generator_ema`` where both are there. Raises ``ValueError`` when this is
    no Wan text-to-video model, saying what the file holds instead.
    """
    nests = BASE_NESTS if use_ema else ("generator", "model", "state_dict", "generator_ema")
    tensors = {_plain(key): value for key, value in _unnest(checkpoint, nests).items()}
    tensors = {key: value for key, value in tensors.items() if isinstance(value, Tensor)}
    if "head.modulation" not in tensors or "patch_embedding.weight" not in tensors:
        raise ValueError(f"not a Wan model: {_what_it_is(tensors or checkpoint)}")
    extra = [key for key in tensors if re.search(r"img_emb|vace|control_adapter|k_img", key)]
    if extra:
        raise ValueError(
            f"a Wan model with more than text as input (it has '{extra[0]}'); only text-to-video "
            "can be streamed"
        )
    return tensors


def lora_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """LoRA factors as hosts name them: ``diffusion_model.MODULE.lora_A.weight``, ``.alpha``.

    A file without alpha means scale 1, which is right for LongLive (alpha = rank).
    Raises ``ValueError`` when the file holds no LoRA, half of a pair, or more than a LoRA.
    """
    found = _unnest(checkpoint, LORA_NESTS)
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    for key, value in found.items():
        name = _WRAPPERS.sub("", key)
        if match := _LORA_KEY.fullmatch(name):
            module = _strip(match["module"], _LORA_PREFIXES)
            tensors[f"diffusion_model.{module}.lora_{match['side']}.weight"] = value
        elif name.endswith(".alpha"):
            module = _strip(name.removesuffix(".alpha"), _LORA_PREFIXES)
            tensors[f"diffusion_model.{module}.alpha"] = value
        elif isinstance(value, Tensor):
            others.append(key)
    if not tensors:
        raise ValueError(f"not a LoRA in peft names (lora_A, lora_B): {_what_it_is(found)}")
    if others:
        raise ValueError(f"a LoRA with weights besides lora_A and lora_B: '{others[0]}'")
    for key in tensors:
        other = re.sub(r"lora_[AB]", "lora_B" if "lora_A" in key else "lora_A", key)
        if ".lora_" in key and other not in tensors:
            raise ValueError(f"an incomplete LoRA: it has '{key}' but not '{other}'")
    return tensors


def _unnest(checkpoint: Mapping[str, Any], nests: tuple[str, ...]) -> Mapping[str, Any]:
    """Go down into the first known name, as often as there is one."""
    for name in nests:
        inner = checkpoint.get(name)
        if isinstance(inner, Mapping):
            return _unnest(inner, nests)
    return checkpoint


def _plain(key: str) -> str:
    return _strip(_WRAPPERS.sub("", key), _PREFIXES)


def _strip(key: str, prefixes: tuple[str, ...]) -> str:
    """Without any of the prefixes, however many stand one after another."""
    for prefix in prefixes:
        if key.startswith(prefix):
            return _strip(key.removeprefix(prefix), prefixes)
    return key


def _what_it_is(tensors: Mapping[str, Any]) -> str:
    known = {
        "decoder.middle.0.residual.0.gamma": "it looks like a Wan VAE (put it in models/vae)",
        "model.diffusion_model.input_blocks.0.0.weight": "it looks like a Stable Diffusion model",
        "input_blocks.0.0.weight": "it looks like a Stable Diffusion model",
        "model.embed_tokens.weight": "it looks like a language model",
        "embed_tokens.weight": "it looks like a language model",
        "encoder.block.0.layer.0.SelfAttention.q.weight": "it looks like a text encoder "
        "(put it in models/text_encoders)",
        "head.modulation": "it looks like a whole model, not a LoRA",
    }
    for key, meaning in known.items():
        if key in tensors:
            return meaning
    if any("lora" in key for key in tensors):
        return "it looks like a LoRA"
    return f"its names begin {', '.join(map(repr, list(tensors)[:3])) or '(it is empty)'}"
