"""One layer of a Wan backbone, all but its two attention calls: three steps of modules and tensors.

Nothing of a past, a prompt or a batch's families gets in here, so a step's shapes are the same for
every chunk of a stream, and ``compiled.py`` can compile it once for all layers and chunks; the
first axis of each tensor is the batch's, or 1. Modules are called, their weights never touched: a
host may keep them packed, patched or elsewhere.
"""

import torch
from torch import Tensor, nn

Angles = tuple[Tensor, Tensor]  # cosine and sine, [L, 1, D/2] each, or [B or 1, L, 1, D/2]


def before_self_attention(
    layer: nn.Module, x: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query and keys, both rotated; keys before that, and values.

    ``x`` [B, L, dim], ``modulation`` [1, F, 6, dim], ``cos`` and ``sin``
    [B or 1, L, 1, D/2]; each of the four is [B, L, N, D].
    """
    attn = layer.self_attn
    shift, scale = modulation[:, :, 0], modulation[:, :, 1]
    h = modulate(layer.norm1(x), shift, scale)
    query = split(attn.norm_q(attn.q(h)), heads)
    keys = split(attn.norm_k(attn.k(h)), heads)
    values = split(attn.v(h), heads)
    return rotate(query, (cos, sin)), rotate(keys, (cos, sin)), keys, values


def before_cross_attention(
    layer: nn.Module, x: Tensor, attended: Tensor, modulation: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """x [B, L, dim] with what self-attention [B, L, N, D] found, and its query for the text."""
    x = x + _per_frame(layer.self_attn.o(attended.flatten(2)), modulation[:, :, 2])
    attn = layer.cross_attn
    return x, split(attn.norm_q(attn.q(layer.norm3(x))), heads)


def after_cross_attention(
    layer: nn.Module, x: Tensor, attended: Tensor, modulation: Tensor
) -> Tensor:
    """x [B, L, dim] with what cross-attention [B, L, N, D] found, through the feed-forward part."""
    x = x + layer.cross_attn.o(attended.flatten(2))
    shift, scale, gate = modulation[:, :, 3], modulation[:, :, 4], modulation[:, :, 5]
    return x + _per_frame(layer.ffn(modulate(layer.norm2(x), shift, scale)), gate)


def split(x: Tensor, heads: int) -> Tensor:
    """[B, L, N * D] -> [B, L, N, D]."""
    return x.unflatten(2, (heads, -1))


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Turn adjacent pairs of x [B, L, N, D] by their angles, in float32."""
    cos, sin = angles
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2).to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale and shift x [B, L, dim] per latent frame; shift, scale [1, F, dim]."""
    x = x.unflatten(1, (shift.shape[1], -1))
    return (x * (1 + scale[:, :, None]) + shift[:, :, None]).flatten(1, 2)


def _per_frame(x: Tensor, factor: Tensor) -> Tensor:
    """x [B, L, dim] times a factor [1, F, dim], one per latent frame."""
    return (x.unflatten(1, (factor.shape[1], -1)) * factor[:, :, None]).flatten(1, 2)
