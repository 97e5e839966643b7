"""The one attention call of the pack: PyTorch's, unless a host hands in its own."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

# (q [B, Lq, N, D], k [B, Lk, N, D], v [B, Lk, N, D]) -> [B, Lq, N, D], softmax scale 1/sqrt(D)
AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention of every query on every key, no mask."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, N, L, D)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
