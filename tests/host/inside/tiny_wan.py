"""A random Wan 2.1 text-to-video model of two narrow layers: real names and layout, no training."""

import torch
from torch import Tensor

DIM, FFN, LAYERS, TEXT = 256, 384, 2, 4096


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.5

    def linear(name: str, out: int, inner: int) -> dict[str, Tensor]:
        return {f"{name}.weight": draw(out, inner), f"{name}.bias": 0.1 * draw(out)}

    found = {
        "patch_embedding.weight": draw(DIM, 16, 1, 2, 2) / 4,
        "patch_embedding.bias": draw(DIM),
        "head.modulation": draw(1, 2, DIM),
        **linear("text_embedding.0", DIM, TEXT),
        **linear("text_embedding.2", DIM, DIM),
        **linear("time_embedding.0", DIM, 256),
        **linear("time_embedding.2", DIM, DIM),
        **linear("time_projection.1", 6 * DIM, DIM),
        **linear("head.head", 64, DIM),
    }
    for layer in range(LAYERS):
        stem = f"blocks.{layer}"
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                found |= linear(f"{stem}.{attention}.{part}", DIM, DIM)
            for norm in ("norm_q", "norm_k"):
                found[f"{stem}.{attention}.{norm}.weight"] = 1 + 0.1 * draw(DIM)
        found |= linear(f"{stem}.ffn.0", FFN, DIM) | linear(f"{stem}.ffn.2", DIM, FFN)
        found[f"{stem}.norm3.weight"] = 1 + 0.1 * draw(DIM)
        found[f"{stem}.norm3.bias"] = 0.1 * draw(DIM)
        found[f"{stem}.modulation"] = draw(1, 6, DIM)
    return found


def lora(rank: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """peft-named factors for every Linear of the layers."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, weight in weights().items():
        if key.startswith("blocks.") and key.endswith(".weight") and "norm" not in key:
            stem = f"base_model.model.{key.removesuffix('.weight')}"
            out, inner = weight.shape
            found[f"{stem}.lora_A.default.weight"] = torch.randn(rank, inner, generator=generator)
            down = torch.randn(out, rank, generator=generator)
            found[f"{stem}.lora_B.default.weight"] = 0.02 * down
    return found
