"""The models that ``benchmarks/speed.py`` measures: tiny, medium and LongLive's own sizes.

All but the tiny one have random weights: what they make is noise, at the price of a video.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.footprint import LONGLIVE, ModelSizes
from stream_t1_core.tiny import load_tiny
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

TINY, TINY_HW = Path(__file__).parents[1] / "tiny_model", (8, 8)
PROMPT = "a red circle moves to the right"


@dataclass(frozen=True, eq=False)
class SizedModel:
    """Backbone, VAE and a prompt's rows, ready to run."""

    backbone: nn.Module
    vae: nn.Module
    rows: Tensor  # [1, L, text_dim]
    latent_hw: tuple[int, int]

    @property
    def sizes(self) -> ModelSizes:
        itemsize = self.backbone.head.modulation.itemsize
        return ModelSizes(self.backbone.shape, self.vae.config, itemsize)


# 390 tokens a latent frame; with a VAE as narrow as the tiny one's, for the released way decodes a
# span of ten chunks for every candidate, and a wider one would take a CPU hours
MEDIUM = ModelSizes(
    BackboneShape(dim=768, ffn_dim=4480, num_layers=8, num_heads=6), WanVAEConfig(dim=8)
)


def tiny(device: str, dtype: torch.dtype) -> SizedModel:
    found = load_tiny(TINY)
    backbone = _cast(found.backbone, device, dtype)
    return SizedModel(backbone, found.vae.to(device), found.encode_prompt(PROMPT), TINY_HW)


def drawn(
    sizes: ModelSizes, latent_hw: tuple[int, int]
) -> Callable[[str, torch.dtype], SizedModel]:
    """A model with random weights, the same each time."""

    def make(device: str, dtype: torch.dtype) -> SizedModel:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            backbone = WanBackbone(sizes.backbone).eval().requires_grad_(False)
            vae = WanVAE(sizes.vae).eval().requires_grad_(False)
            rows = torch.randn(1, 32, sizes.backbone.text_dim)
        return SizedModel(_cast(backbone, device, dtype), vae.to(dtype), rows, latent_hw)

    return make


def _cast(backbone: nn.Module, device: str, dtype: torch.dtype) -> nn.Module:
    """To where it runs; the patch embedding stays in float32, as in every host."""
    backbone.to(device, dtype).patch_embedding.float()
    return backbone


SIZES = {
    "tiny": tiny,
    "medium": drawn(MEDIUM, (30, 52)),
    "longlive": drawn(LONGLIVE, (60, 104)),
}
