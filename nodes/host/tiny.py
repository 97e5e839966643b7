"""The pack's own small model as the host's MODEL, CLIP and VAE, by the host's own classes."""

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.text_encoders.wan
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor

from ...stream_t1_core.taehv import TAEHV
from ...stream_t1_core.tiny import (
    DRIFT,
    SCORING_FILE,
    TEXT_FILE,
    TRANSFORMER_FILE,
    VAE_FILE,
    drifting,
)
from .model import TRAINED

FOLDER = Path(__file__).parents[2] / "tiny_model"
CLIP_FRAMES = 21  # latent frames of the clips that it was trained on


def load_model(drift: float = DRIFT) -> ModelPatcher:
    weights = comfy.utils.load_torch_file(str(_file(TRANSFORMER_FILE)), safe_load=True)
    model = comfy.sd.load_diffusion_model_state_dict(drifting(weights, drift))
    model.model_options[TRAINED] = CLIP_FRAMES
    return model


def load_vae() -> VAE:
    return VAE(sd=comfy.utils.load_torch_file(str(_file(VAE_FILE)), safe_load=True))


def load_scoring_vae() -> VAE:
    """The tiny decoder as a host's VAE; the host's own class for that layout has one width only."""
    vae = load_vae()
    weights = comfy.utils.load_torch_file(str(_file(SCORING_FILE)), safe_load=True)
    vae.first_stage_model = TAEHV.from_state_dict(weights).to(vae.vae_dtype)
    vae.patcher = ModelPatcher(vae.first_stage_model, vae.device, vae.patcher.offload_device)
    vae.size = None  # to be measured again
    return vae


def load_clip() -> CLIP:
    """A UMT5 in the host's text-encode classes, its sizes read off the file."""
    weights = comfy.utils.load_torch_file(str(_file(TEXT_FILE)), safe_load=True)
    target = _Target()
    tokenizer = {"spiece_model": weights.pop("spiece_model")}
    options = {"umt5xxl_model_config": umt5_config(weights)}
    clip = CLIP(target, tokenizer_data=tokenizer, model_options=options)
    missing, unknown = clip.load_sd(weights)
    if missing or unknown:
        raise ValueError(
            f"Tiny Model: {TEXT_FILE} does not fit this ComfyUI's UMT5 encoder (missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'})"
        )
    return clip


def umt5_config(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Sizes of a UMT5 encoder under the names of its config file."""
    attention = "encoder.block.0.layer.0.SelfAttention"
    buckets, heads = weights[f"{attention}.relative_attention_bias.weight"].shape
    layers = {key.split(".")[2] for key in weights if key.startswith("encoder.block.")}
    vocab_size, d_model = weights["shared.weight"].shape
    return {
        "d_ff": weights["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0],
        "d_kv": weights[f"{attention}.q.weight"].shape[0] // heads,
        "d_model": d_model,
        "num_heads": heads,
        "num_layers": len(layers),
        "vocab_size": vocab_size,
        "dense_act_fn": "gelu_pytorch_tanh",
        "is_gated_act": True,
        "model_type": "umt5",
        "relative_attention_num_buckets": buckets,
        "layer_norm_epsilon": 1e-6,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


class _Target:
    """What the host's CLIP wants to know: the classes of encoder and tokenizer."""

    params: dict[str, Any] = {}
    clip = comfy.text_encoders.wan.te()
    tokenizer = comfy.text_encoders.wan.WanT5Tokenizer


def _file(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise FileNotFoundError(
            f"Tiny Model: {path} is missing; restore it from the repository (a clone made without "
            "large files lacks it)"
        )
    return path
