"""The head that LAION's aesthetic predictor and ImageReward share: five linear layers in a row.

Upstream has dropout between them and no activation, so together they are one affine map. Knows
names, shapes and numbers only.
"""

from collections.abc import Mapping
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from .weights import require

PLACES = (0, 2, 4, 6, 7)  # of the layers with weights; dropout stands between


class LinearHead(nn.Module):
    """[N, width] -> [N], in float32 whatever the weights are stored in."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = zip(PLACES, widths, widths[1:], strict=False)
        self.layers = nn.ModuleDict({str(n): nn.Linear(into, out) for n, into, out in pairs})

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        for layer in self.layers.values():
            x = F.linear(x, layer.weight.float(), layer.bias.float())
        return x[:, 0]


def head_widths(weights: Mapping[str, Tensor], path: Path, prefix: str = "") -> list[int]:
    """Width of the input and after every layer."""
    matrices = [require(weights, f"{prefix}layers.{n}.weight", path) for n in PLACES]
    widths = [matrices[0].shape[1], *(matrix.shape[0] for matrix in matrices)]
    if widths[-1] != 1:
        raise ValueError(f"{path}: the head gives {widths[-1]} numbers, a reward is one")
    return widths
