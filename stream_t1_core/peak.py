"""What a run has on the device at its fullest, phase by phase, for any sizes and settings.

Weights and what is kept are arithmetic (``footprint.py``). What a pass or a decode needs for a
moment is found by running it on the meta device, where tensors have sizes and no data, and counting
the bytes alive at once: no second account of the forward pass that could go wrong. Attention counts
as fused: it makes its output and no table of scores. Scratch that a kernel takes for itself, such
as a convolution's, is not in it: leave room. Nothing is loaded.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from .backbone import WanBackbone
from .causal_wan import CausalWan, Text
from .config import StreamConfig
from .footprint import ModelSizes, decoder_state_bytes, frames_bytes, past_frames
from .kv import ChunkKV, KVPlace
from .streaming_vae import StreamingDecoder
from .wan_vae import WanVAE, WanVAEConfig

DTYPES = {2: torch.bfloat16, 4: torch.float32}


@dataclass(frozen=True)
class Thrift:
    """How much of a run is on the device at once.

    ``weight_bytes`` of one weight of the model (fp8: 1); ``together`` candidates in a batch;
    ``swapped``: the model leaves while the VAE decodes, and comes back, as a host does that is
    short of memory. The decoder's memory and candidates' frames lie where keys and values do.
    """

    weight_bytes: int = 2
    kv_place: KVPlace = KVPlace.DEVICE
    together: int = 1
    swapped: bool = False


def fullest(
    sizes: ModelSizes, config: StreamConfig, latent_hw: tuple[int, int], thrift: Thrift
) -> dict[str, int]:
    """Bytes on the device while denoising and while decoding; rewards and text encoder apart.

    Beams are taken to share no past, and to have every sink they may have.
    """
    with torch.device("meta"):
        backbone, vae = WanBackbone(sizes.backbone), WanVAE(sizes.vae)
    weights, itemsize = thrift.weight_bytes * _numbers(backbone), sizes.itemsize
    kept = 0
    if thrift.kv_place is KVPlace.DEVICE:
        plan, state = config.plan, decoder_state_bytes(sizes.vae, latent_hw, itemsize)
        frames = plan.beam_width * (past_frames(config) + config.frames_per_chunk)
        kept = frames * frame_bytes(sizes, latent_hw)
        kept += (plan.beam_width + plan.candidates) * state + frames_bytes(config, latent_hw)
    decoder = itemsize * _numbers(vae) + decoding_bytes(
        sizes.vae, latent_hw, itemsize, config.frames_per_chunk, thrift.together
    )
    return {
        "denoising": weights + kept + denoising_bytes(sizes, config, latent_hw, thrift),
        "decoding": decoder + kept + (0 if thrift.swapped else weights),
    }


def frame_bytes(sizes: ModelSizes, latent_hw: tuple[int, int]) -> int:
    """Keys and values of a latent frame, all layers."""
    shape = sizes.backbone
    return 2 * shape.num_layers * _tokens(sizes, latent_hw) * shape.dim * sizes.itemsize


def denoising_bytes(
    sizes: ModelSizes,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    thrift: Thrift,
    device: str = "meta",
) -> int:
    """Of a denoiser call: text, past keys in their places, and what is made on the way.

    Keys and values kept on the device are not in it; those kept elsewhere are, as they are fetched.
    Two layers tell what a pass of any number needs: each one's tensors go before the next one's.
    """
    shape, dtype = replace(sizes.backbone, num_layers=2), DTYPES[sizes.itemsize]
    with torch.device(device):
        backbone = WanBackbone(shape).to(dtype).requires_grad_(False)
    backbone.patch_embedding.float()
    near, size = thrift.kv_place is KVPlace.DEVICE, config.frames_per_chunk
    model = CausalWan(
        backbone, dtype=dtype, device=device, attention=_fused, kv_place=thrift.kv_place
    )
    head = (shape.num_heads, shape.dim // shape.num_heads)
    text = torch.empty(1, shape.text_len, *head, dtype=dtype, device=device)
    tokens = size * _tokens(sizes, latent_hw)
    past = torch.empty(1, dtype=dtype, device=device if near else "cpu").expand(1, tokens, *head)

    def path() -> list[ChunkKV]:
        firsts = range(0, past_frames(config), size)
        return [ChunkKV(first, (past, past), (past, past)) for first in firsts]

    lay_out = model.layout(latent_hw)
    paths = [lay_out(path()) for _ in range(config.plan.beam_width)]
    pasts = [past for past in paths for _ in range(-(-thrift.together // len(paths)))]
    latent = torch.empty(thrift.together, shape.in_dim, size, *latent_hw, device=device)
    call = (
        torch.full((size,), 500.0),
        past_frames(config),
        Text((text, text), (text, text)),
        pasts[: thrift.together],
    )
    rotated = config.plan.beam_width * past_frames(config) * frame_bytes(sizes, latent_hw) // 2
    kept = 2 * sizes.backbone.num_layers * text.nbytes + (rotated if near else 0)
    return kept + most_bytes(lambda: model.flow(latent, *call), device)


def decoding_bytes(
    vae: WanVAEConfig,
    latent_hw: tuple[int, int],
    itemsize: int,
    frames: int,
    batch: int,
    device: str = "meta",
) -> int:
    """Of decoding a chunk for ``batch`` candidates that go on from one path, its state included."""
    with torch.device(device):
        module = WanVAE(vae).to(DTYPES[itemsize]).requires_grad_(False)
        latents = torch.empty(batch, vae.z_dim, frames, *latent_hw)
    decoder = StreamingDecoder(module, dtype=DTYPES[itemsize], device=device)
    _, state = decoder.decode(latents[:1, :, :1], None)
    made = most_bytes(lambda: decoder.decode(latents, state.repeat(batch)), device)
    return state.nbytes + made


def most_bytes(run: Callable[[], object], device: str) -> int:
    """Most bytes, alive at once, of tensors that ``run`` makes on a device."""
    with torch.no_grad(), _Alive(torch.device(device)) as alive:
        run()
    return alive.most


class _Alive(TorchDispatchMode):
    """Counts the bytes of storages that operations make on a device, until they are freed."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()  # storages

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tree_map_only(Tensor, self._was_there, (args, kwargs))
        made = operation(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._made, made)
        return made

    def _was_there(self, tensor: Tensor) -> None:
        self.known.setdefault(tensor.untyped_storage(), True)

    def _made(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known or tensor.device != self.device:
            return
        self.known[storage] = True
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.now -= size


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.empty_like(q)


def _tokens(sizes: ModelSizes, latent_hw: tuple[int, int]) -> int:
    """Of a latent frame."""
    _, patch_h, patch_w = sizes.backbone.patch_size
    return (latent_hw[0] // patch_h) * (latent_hw[1] // patch_w)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
