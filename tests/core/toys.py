"""Our real classes at toy size, for tests that pin behaviour rather than reference numbers."""

from dataclasses import replace

import torch
from torch import Tensor

from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.causal_wan import CausalWan
from stream_t1_core.config import Memory, NoisePropagation, Search, StreamConfig
from stream_t1_core.generate import Tools
from stream_t1_core.rewards.base import Clips
from stream_t1_core.scoring import Critic
from stream_t1_core.streaming_vae import StreamingDecoder
from stream_t1_core.taehv import TAEHV, TAEHVConfig, TAEHVDecoder
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

LATENT_HW = (4, 4)
SHAPE = BackboneShape(
    dim=32, ffn_dim=48, num_layers=2, num_heads=2, text_dim=8, text_len=6, freq_dim=8
)


def toy_model() -> CausalWan:
    torch.manual_seed(0)
    return CausalWan(WanBackbone(SHAPE).eval().requires_grad_(False))


def toy_decoder() -> StreamingDecoder:
    torch.manual_seed(1)
    vae = WanVAE(WanVAEConfig(dim=4, dim_mult=(1, 1, 1, 1), num_res_blocks=1))
    return StreamingDecoder(vae.eval().requires_grad_(False))


class Brightness:
    """Mean brightness, in percent."""

    name = "brightness"

    def __call__(self, clips: Clips) -> Tensor:
        return 100 * clips.frames.mean(dim=(1, 2, 3, 4))


class Steadiness:
    """Minus the mean change between frames, in percent."""

    name = "steadiness"

    def __call__(self, clips: Clips) -> Tensor:
        change = clips.frames.diff(dim=1).abs().flatten(1)
        return -100 * change.sum(dim=1) / max(1, change.shape[1])


def toy_rows() -> Tensor:
    """A prompt."""
    return torch.randn(1, 4, SHAPE.text_dim, generator=torch.Generator().manual_seed(2))


def toy_tools(short: object = None, long: object = None) -> Tools:
    model = toy_model()
    return Tools(model, model.encode_text(toy_rows()), Critic(toy_decoder(), short, long))


def search_tools() -> Tools:
    return toy_tools(Brightness(), Steadiness())


def search_config(**changes: object) -> StreamConfig:
    """Two beams, two branches, all three units, gates that let all three routes happen."""
    settings = {
        "latent_frames": 21,
        "noise": NoisePropagation(),
        "search": Search(beam_width=2, branch_factor=2, span_chunks=3),
        "memory": Memory(long_gate=0.0),
    }
    return StreamConfig(**{**settings, **changes})


def toy_scorer() -> TAEHVDecoder:
    torch.manual_seed(3)
    return TAEHVDecoder(TAEHV(TAEHVConfig((4, 4, 4, 4))).eval(), normalised=True)


def shown_tools() -> Tools:
    """Candidates scored by a tiny decoder's frames, the video decoded by the VAE."""
    tools = search_tools()
    critic = replace(tools.critic, decoder=toy_scorer())
    return replace(tools, critic=critic, decoder=tools.critic.decoder)
