"""A Wan 2.1 backbone without a host: the standard modules under their standard names.

It holds weights and knows its sizes; it has no forward pass. ``causal_wan.CausalWan`` walks these
modules exactly as it walks those of a host's WanModel, so there is one forward pass for both.

Layout: Wan 2.1 text-to-video (``blocks.0.self_attn.q.weight`` ...), as released by Alibaba.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of a Wan backbone."""

    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    text_dim: int = 4096
    text_len: int = 512
    freq_dim: int = 256
    in_dim: int = 16
    out_dim: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(
                f"width {self.dim} does not split into {self.num_heads} heads of even size"
            )

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], num_heads: int | None = None) -> "BackboneShape":
        """Read the sizes off a state dict. Heads are 128 wide, as in every Wan, unless told."""
        for key in ("patch_embedding.weight", "blocks.0.ffn.0.weight", "head.head.weight"):
            if key not in weights:
                raise ValueError(f"not a Wan backbone: the weights have no '{key}'")
        patch = weights["patch_embedding.weight"]
        dim, in_dim = patch.shape[:2]
        patch_size = tuple(patch.shape[2:])
        patch_volume = patch_size[0] * patch_size[1] * patch_size[2]
        return cls(
            dim=dim,
            ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0],
            num_layers=1 + max(int(k.split(".")[1]) for k in weights if k.startswith("blocks.")),
            num_heads=num_heads or max(1, dim // 128),
            text_dim=weights["text_embedding.0.weight"].shape[1],
            freq_dim=weights["time_embedding.0.weight"].shape[1],
            in_dim=in_dim,
            out_dim=weights["head.head.weight"].shape[0] // patch_volume,
            patch_size=patch_size,
        )


class Attention(nn.Module):
    """Projections of self- or cross-attention; queries and keys are normalised over all heads."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = nn.RMSNorm(dim, eps=eps)
        self.norm_k = nn.RMSNorm(dim, eps=eps)


class Layer(nn.Module):
    """One transformer layer ("block" in Wan's names)."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        dim, eps = shape.dim, shape.eps
        self.norm1 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.self_attn = Attention(dim, eps)
        self.norm3 = nn.LayerNorm(dim, eps=eps)
        self.cross_attn = Attention(dim, eps)
        self.norm2 = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, shape.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(shape.ffn_dim, dim),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)


class Head(nn.Module):
    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        patch_volume = shape.patch_size[0] * shape.patch_size[1] * shape.patch_size[2]
        self.norm = nn.LayerNorm(shape.dim, eps=shape.eps, elementwise_affine=False)
        self.head = nn.Linear(shape.dim, patch_volume * shape.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, shape.dim) / shape.dim**0.5)


class WanBackbone(nn.Module):
    """The modules of a Wan 2.1 text-to-video backbone."""

    model_type = "t2v"

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.shape = shape
        self.dim = shape.dim
        self.num_heads = shape.num_heads
        self.freq_dim = shape.freq_dim
        self.text_len = shape.text_len
        self.in_dim = shape.in_dim
        self.out_dim = shape.out_dim
        self.patch_size = shape.patch_size
        dim = shape.dim
        self.patch_embedding = nn.Conv3d(
            shape.in_dim, dim, kernel_size=shape.patch_size, stride=shape.patch_size
        )
        self.text_embedding = nn.Sequential(
            nn.Linear(shape.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(shape.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim * 6))
        self.blocks = nn.ModuleList([Layer(shape) for _ in range(shape.num_layers)])
        self.head = Head(shape)

    @classmethod
    def from_state_dict(
        cls, weights: Mapping[str, Tensor], shape: BackboneShape | None = None
    ) -> "WanBackbone":
        """Build from Wan-named weights, up-cast to float32.

        Raises ``ValueError`` when keys are missing or unknown, naming the first few.
        """
        model = cls(shape or BackboneShape.of(weights))
        missing, unknown = model.load_state_dict(
            {key: value.float() for key, value in weights.items()}, strict=False
        )
        if missing or unknown:
            raise ValueError(
                f"not a plain Wan text-to-video backbone: {len(missing)} keys missing "
                f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
            )
        return model.eval().requires_grad_(False)
