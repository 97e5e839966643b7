"""A host MODEL and CONDITIONING in, the core's causal model and prompt out.

The weights stay the host's: it loads, offloads, patches and casts them. The core calls the layers.
"""

import logging
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor, nn

from ...stream_t1_core.causal_wan import CausalWan
from ...stream_t1_core.compiled import Runner
from ...stream_t1_core.config import TRAINED_FRAMES, StreamConfig
from ...stream_t1_core.footprint import decoder_state_bytes, frames_bytes
from ...stream_t1_core.kv import KVPlace
from .rewards import HostedReward
from .vae import decoder_sizes

log = logging.getLogger(__name__)

PATCH_SIZE = (1, 2, 2)
CHANNELS = 16
AUTO = "auto"
TRAINED = "stream_t1_trained_frames"  # in a MODEL's options
COMPILE_SWITCH = "TorchCompileModel"  # the host's own node, and where it leaves its settings:
COMPILE_OPTIONS, COMPILE_WRAPPER = "torch_compile_kwargs", "torch.compile"
WITH_CUDA_GRAPHS = {"cudagraphs", "reduce-overhead", "max-autotune"}  # backends and modes
WHERE = {
    KVPlace.DEVICE: "with the model",
    KVPlace.PINNED: "in page-locked CPU memory, with the decoder's memory, fetched when needed",
    KVPlace.CPU: "in CPU memory, with the decoder's memory, fetched when needed",
}


def backbone_of(model: ModelPatcher) -> nn.Module:
    """The Wan 2.1 text-to-video backbone inside a MODEL; a ``ValueError`` says what it is else."""
    backbone = model.model.diffusion_model
    layers = ("patch_embedding", "text_embedding", "time_projection", "blocks", "head")
    if not all(hasattr(backbone, name) for name in layers):
        raise ValueError(
            f"model: this MODEL is a {type(backbone).__name__}, not a Wan 2.1 video model. Connect "
            "LongLive Loader, Tiny Model, or any loader with a Wan 2.1-shaped causal text-to-video "
            "model"
        )
    model_type = getattr(backbone, "model_type", None)
    if model_type != "t2v":
        raise ValueError(
            f"model: this Wan model is of type '{model_type}'; only text-to-video ('t2v') can be "
            "streamed. Use LongLive or another causal Wan 2.1 text-to-video model"
        )
    channels = (backbone.patch_embedding.in_channels, backbone.out_dim)
    if channels != (CHANNELS, CHANNELS) or tuple(backbone.patch_size) != PATCH_SIZE:
        raise ValueError(
            f"model: this Wan model takes {channels[0]} and gives {channels[1]} channels with "
            f"patches of {tuple(backbone.patch_size)}; Wan 2.1 text-to-video has 16, 16 and "
            "(1, 2, 2). Wan 2.2 5B and in-painting models cannot be streamed"
        )
    return backbone


def causal_model(model: ModelPatcher, kv_place: KVPlace = KVPlace.DEVICE) -> CausalWan:
    """The core's view of a MODEL. It computes nothing yet: ``load`` the weights before use."""
    backbone = backbone_of(model)
    options = model.model_options.get("transformer_options", {})
    _warn_of_what_is_ignored(model, options)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[B, Lq, N, D] and [B, Lk, N, D] twice -> [B, Lq, N, D]."""
        # Imported here: other packs may replace the host's choice after this file is loaded.
        from comfy.ldm.modules.attention import optimized_attention

        heads = q.shape[2]
        flat = (x.flatten(2) for x in (q, k, v))  # (B, L, N * D)
        out = optimized_attention(*flat, heads=heads, transformer_options=options)
        return out.unflatten(2, (heads, -1))

    return CausalWan(
        backbone,
        dtype=_compute_dtype(model),
        device=model.load_device,
        attention=attention,
        cast=comfy.model_management.cast_to,
        kv_place=kv_place,
        run=Runner(_compile_options(model), COMPILE_SWITCH),
    )


def trained_frames(model: ModelPatcher) -> int:
    """Latent frames of the longest videos that the model was trained on, if its loader says so."""
    return model.model_options.get(TRAINED, TRAINED_FRAMES)


def load(
    model: ModelPatcher,
    vae: VAE,
    scoring_vae: VAE | None,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    rewards: Sequence[HostedReward],
    kv_place: str,
) -> KVPlace:
    """Have the host load model and decoders together, with room for the context; where that goes.

    Says beforehand what the run needs of the model's device. Rewards are loaded when they are
    asked; where all do not fit together, the host swaps them.
    """
    height, width = latent_hw
    backbone, dtype = backbone_of(model), _compute_dtype(model)
    past, own = _context_frames(config)
    tokens = (height // PATCH_SIZE[1]) * (width // PATCH_SIZE[2])  # of a latent frame
    layer_bytes = 2 * tokens * backbone.dim * dtype.itemsize  # of a latent frame, keys and values
    kv_bytes = (3 * past // 2 + own) * layer_bytes * len(backbone.blocks)
    scorer = scoring_vae or vae
    states = 0 if config.isolated else config.plan.beam_width + config.plan.candidates
    remembered, vaes = [(scorer, states)], {"VAE": vae}
    if scoring_vae is not None:
        vaes["scoring VAE"] = scoring_vae
        paths = 1 + config.plan.beam_width if config.budget else 1  # a budget may go over each
        remembered.append((vae, 0 if config.isolated else paths))
    here = {name: v for name, v in vaes.items() if v.device == model.load_device}
    state_bytes = sum(
        count * _state_bytes(v, latent_hw) for v, count in remembered if v in here.values()
    )
    one_frame = (1, CHANNELS, 1, height, width)
    decoding = {name: v.memory_used_decode(one_frame, v.vae_dtype) for name, v in vaes.items()}
    decode_bytes = max((decoding[name] for name in here), default=0)
    sizes = {"model": model.model_size()}
    sizes |= {name: v.patcher.model_size() for name, v in here.items()}
    near_frames = model.load_device.type == "cuda" and scorer in here.values()
    frames = frames_bytes(config, latent_hw) if near_frames else 0
    kept = kv_bytes, state_bytes, frames
    sizes |= zip(("keys and values", "decoder's memory", "candidates' frames"), kept, strict=True)
    sizes |= {"decoding": decode_bytes}
    sizes |= {f"reward {reward.name}": reward.patcher.model_size() for reward in rewards}
    place = _kv_place(kv_place, sum(sizes.values()), model.load_device)
    if place is KVPlace.DEVICE:
        near_bytes = sum(kept)
    else:  # a layer of the past, and the states of one path and of what goes on from it
        near_bytes = past * layer_bytes + 2 * state_bytes // max(1, states)
    listed = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in sizes.items())
    log.info(
        "Stream-T1 needs about %.2f GiB: %s. Keys and values: %s",
        sum(sizes.values()) / 2**30,
        listed,
        WHERE[place],
    )
    comfy.model_management.load_models_gpu(
        [model, *(v.patcher for v in here.values())], memory_required=near_bytes + decode_bytes
    )
    for name in vaes.keys() - here.keys():  # on a device of its own
        comfy.model_management.load_models_gpu([vaes[name].patcher], memory_required=decoding[name])
    return place


def _state_bytes(vae: VAE, latent_hw: tuple[int, int]) -> int:
    return decoder_state_bytes(decoder_sizes(vae), latent_hw, vae.vae_dtype.itemsize)


def _kv_place(asked: str, needed: int, device: torch.device) -> KVPlace:
    if asked != AUTO:
        return KVPlace(asked)
    total = comfy.model_management.get_total_memory(device)
    if comfy.model_management.is_device_cpu(device) or needed <= total:
        return KVPlace.DEVICE
    return KVPlace.PINNED if device.type == "cuda" else KVPlace.CPU


def _compute_dtype(model: ModelPatcher) -> torch.dtype:
    # Never read off a weight: packed and fp8 weights tell their storage type.
    return model.model.manual_cast_dtype or model.model.get_dtype()


def _context_frames(config: StreamConfig) -> tuple[int, int]:
    """Latent frames of K/V usually alive: a past (its keys once more, rotated), all own ones.

    Beams share most of their past; the bound where they share none is in the core's footprint.py.
    """
    memory = config.memory
    appended = memory.max_sink_frames - memory.sink_frames if memory.routing else 0
    return memory.window_frames + appended, config.plan.candidates * config.frames_per_chunk


def _compile_options(model: ModelPatcher) -> dict[str, Any] | None:
    """What torch.compile is asked for by a node before the sampler, if it can be done."""
    asked = model.model_options.get(COMPILE_OPTIONS)
    if asked is None or WITH_CUDA_GRAPHS.isdisjoint((asked["backend"], asked["mode"])):
        return asked
    log.warning(
        "Stream-T1: %s: backend '%s', mode '%s' work with CUDA graphs, in which a layer's keys and "
        "values would be overwritten by the next one's; the run goes on uncompiled. Choose the "
        "backend inductor without such a mode",
        COMPILE_SWITCH,
        asked["backend"],
        asked["mode"],
    )
    return None


def _warn_of_what_is_ignored(model: ModelPatcher, options: dict[str, Any]) -> None:
    ignored = [name for name in ("patches", "patches_replace") if options.get(name)]
    ignored += [name for name in model.object_patches if name == "model_sampling"]
    if "model_function_wrapper" in model.model_options:
        ignored.append("model_function_wrapper")
    for table in (model.wrappers, options.get("wrappers", {})):
        for kind, by_key in table.items():
            ignored += [kind] if any(w for k, w in by_key.items() if k != COMPILE_WRAPPER) else []
    if ignored:
        log.warning(
            "Stream-T1 calls the model's layers itself; these additions to MODEL have no effect: "
            "%s (caching, context-window and shift nodes work that way)",
            ", ".join(ignored),
        )
