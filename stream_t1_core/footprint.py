"""What a run keeps in memory, by arithmetic from sizes and settings; nothing is loaded or measured.

Upper bounds: beams are taken to share no past, and every sink that is allowed to be there. Paths do
share what they have in common, so a real run stays below.
"""

import math
from dataclasses import dataclass, replace

import torch

from . import streaming_vae, taehv, wan_vae
from .backbone import BackboneShape, WanBackbone
from .config import StreamConfig

DecoderSizes = wan_vae.WanVAEConfig | taehv.TAEHVConfig

DOWNSCALE = 8  # pixels a latent pixel, in height and in width
PIXEL_FRAMES = 4  # of a latent frame
# Bytes of working memory a latent pixel and byte of a number, as ComfyUI's VAE class reckons them.
DECODING = 7000 * 64


@dataclass(frozen=True)
class ModelSizes:
    """A backbone and its VAE; ``itemsize`` is the bytes of one number."""

    backbone: BackboneShape
    vae: wan_vae.WanVAEConfig
    itemsize: int = 2


LONGLIVE = ModelSizes(
    BackboneShape(dim=1536, ffn_dim=8960, num_layers=30, num_heads=12), wan_vae.WanVAEConfig(dim=96)
)


def footprint(
    sizes: ModelSizes, config: StreamConfig, latent_hw: tuple[int, int]
) -> dict[str, int]:
    """Bytes on the device by what they are for; rewards and the text encoder are not in it."""
    backbone, vae, itemsize = sizes.backbone, sizes.vae, sizes.itemsize
    with torch.device("meta"):  # shapes only
        modules = {"model": WanBackbone(backbone), "VAE": wan_vae.WanVAE(vae)}
    found = {
        name: itemsize * sum(p.numel() for p in module.parameters())
        for name, module in modules.items()
    }
    width = (backbone.dim, backbone.num_layers, itemsize)
    without = replace(config, memory=replace(config.memory, routing=False))
    found["keys and values of the window"] = kv_bytes(without, latent_hw, *width)
    found["keys and values of all sinks that may be appended"] = (
        kv_bytes(config, latent_hw, *width) - found["keys and values of the window"]
    )
    states = 0 if config.isolated else config.plan.beam_width + config.plan.candidates
    found["decoder's memory of paths and candidates"] = states * decoder_state_bytes(
        vae, latent_hw, itemsize
    )
    found["frames of candidates"] = frames_bytes(config, latent_hw)
    found["decoding, for a moment"] = DECODING * latent_hw[0] * latent_hw[1] * itemsize
    return found


def kv_bytes(
    config: StreamConfig, latent_hw: tuple[int, int], dim: int, layers: int, itemsize: int
) -> int:
    """Keys and values alive at once."""
    _, patch_h, patch_w = BackboneShape.patch_size
    tokens = (latent_hw[0] // patch_h) * (latent_hw[1] // patch_w)  # of a latent frame
    return 2 * context_frames(config) * tokens * dim * layers * itemsize


def frames_bytes(config: StreamConfig, latent_hw: tuple[int, int]) -> int:
    """Pixel frames of a chunk's candidates, float32, and once more as a reward looks at them."""
    frames = 2 * config.plan.candidates * config.frames_per_chunk * PIXEL_FRAMES
    return 4 * 3 * frames * latent_hw[0] * latent_hw[1] * DOWNSCALE**2


def context_frames(config: StreamConfig) -> int:
    """Latent frames of keys and values: every beam's past, its keys once more rotated, own ones."""
    past, own = past_frames(config), config.plan.candidates * config.frames_per_chunk
    return math.ceil(1.5 * config.plan.beam_width * past) + own


def past_frames(config: StreamConfig) -> int:
    """Latent frames that one path remembers at most."""
    memory = config.memory
    appended = memory.max_sink_frames - memory.sink_frames if memory.routing else 0
    older = config.refine.remembered_chunks * config.frames_per_chunk if config.refine else 0
    return memory.window_frames + appended + older


def decoder_state_bytes(vae: DecoderSizes, latent_hw: tuple[int, int], itemsize: int) -> int:
    """What a decoder remembers of one path."""
    with torch.device("meta"):
        latent = torch.empty(1, taehv.CHANNELS, 1, *latent_hw)
        if isinstance(vae, taehv.TAEHVConfig):
            _, state = taehv.walk_decoder(taehv.TAEHV(vae), latent, None)
        else:
            _, state = streaming_vae.walk_decoder(wan_vae.WanVAE(vae), latent, None)
    return itemsize * sum(frames.numel() for frames in state.history)
