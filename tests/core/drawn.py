"""Clips and weights by formula, the same on every machine: what the VBench goldens were made from.

Pictures are whole numbers; weights come from uniform draws, one generator for each name. Used by
tests and by ``tests/goldens/vbench/make.py``, so a change here needs new goldens.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

AMT_GAIN = 0.8  # with 1, most of its picture is black or white and shows little


def moving_waves(frames: int, height: int, width: int) -> Tensor:
    """Waves that move in several directions, whole numbers 0..255 as uint8: [T, H, W, 3]."""
    t = torch.arange(frames).view(-1, 1, 1, 1)
    y = torch.arange(height).view(-1, 1, 1)
    x = torch.arange(width).view(-1, 1)
    c = torch.arange(3)
    waves = (5 * x + 9 * t + 60 * c, 3 * y - 7 * t, x * y // 8 + 11 * t)
    return (sum((wave % 510 - 255).abs() for wave in waves) // 3).to(torch.uint8)


def weights(shapes: Mapping[str, Sequence[int]], gain: float = 1.0) -> dict[str, Tensor]:
    """Numbers large enough for a wrong layer to show; a name that a file holds twice, the same."""
    names = {name: name.replace(".norm3.", ".downsample.1.") for name in shapes}
    return {name: _drawn(names[name], shape, gain) for name, shape in shapes.items()}


def _drawn(name: str, shape: Sequence[int], gain: float) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    draw = torch.rand(tuple(shape), generator=generator)
    if len(shape) == 1:
        scales = name.endswith((".weight", "running_var"))
        return 0.5 + draw if scales else 0.2 * draw - 0.1
    inputs = shape[-1] if len(shape) == 3 else draw[0].numel()
    return gain * (2 * draw - 1) * (3 / inputs) ** 0.5
