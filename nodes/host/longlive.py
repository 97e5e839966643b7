"""Find LongLive's files through the host's folders and make a patched MODEL of them."""

import pickle
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ...stream_t1_core import longlive
from .model import backbone_of


def load_base(name: str, precision: str, use_ema: bool) -> tuple[ModelPatcher, str]:
    """MODEL from a file of models/diffusion_models, and a line about what was found.

    ``precision`` names a torch dtype, or is "default" for the host's own choice.
    """
    try:
        weights = longlive.base_weights(_read("diffusion_models", name), use_ema)
    except ValueError as error:
        raise ValueError(f"LongLive Loader: base '{name}': {error}") from error
    options = {} if precision == "default" else {"dtype": getattr(torch, precision)}
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options)
    if model is None:
        raise ValueError(
            f"LongLive Loader: base '{name}': it has Wan's names, but this ComfyUI cannot make a "
            "model of its sizes"
        )
    backbone = backbone_of(model)
    dtype = str(model.model.get_dtype()).removeprefix("torch.")
    found = (
        f"{name}: Wan 2.1 text-to-video, width {backbone.dim}, {len(backbone.blocks)} layers, "
        f"{len(weights)} tensors, {dtype}"
    )
    return model, found


def apply_lora(model: ModelPatcher, name: str, strength: float) -> tuple[ModelPatcher, int]:
    """A patched clone of MODEL, and how many layers the LoRA of models/loras reached."""
    try:
        factors = longlive.lora_weights(_read("loras", name))
    except ValueError as error:
        raise ValueError(f"LongLive Loader: lora '{name}': {error}") from error
    patched, _ = comfy.sd.load_lora_for_models(model, None, factors, strength, 0.0)
    wanted = sum(".lora_A." in key for key in factors)
    applied = len(patched.patches)
    if applied < wanted:
        raise ValueError(
            f"LongLive Loader: lora '{name}': it fits {applied} of its {wanted} layers in this "
            "model; choose the base and the LoRA of one and the same model"
        )
    return patched, applied


def _read(folder: str, name: str) -> dict[str, Any]:
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        looked = ", ".join(folder_paths.get_folder_paths(folder))
        raise ValueError(f"no such file in {looked}; put it there, or choose another")
    if Path(path).suffix.lower() in (".safetensors", ".sft"):
        return comfy.utils.load_torch_file(path, safe_load=True)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            "it cannot be read as tensors. It may be damaged, or hold Python objects, which are "
            f"never loaded; use the released file or a .safetensors ({error})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"it holds a {type(checkpoint).__name__} instead of named tensors")
    return checkpoint
