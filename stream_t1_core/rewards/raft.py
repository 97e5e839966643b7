"""RAFT, a learned optical flow: where does each pixel go in the next frame?

The large network of Teed and Deng 2020 under its own key names. Knows pairs of pictures and one
weight file; knows no clips and no rewards. For flow without weights see ``flow.py``.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .matching import LEVELS, STRIDE, Correlation, Encoder, Residual, places_of
from .weights import load_network, read_weights

WEIGHTS = "raft-things.pth"
ORIGIN = "https://github.com/princeton-vl/RAFT"
ITERATIONS = 20  # as VBench
RADIUS = 4
HIDDEN = CONTEXT = 128


class MotionEncoder(nn.Module):
    """Matches and the flow so far -> what the recurrence reads, [N, 128, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, 128 - 2, 3, padding=1)

    def forward(self, flow: Tensor, matches: Tensor) -> Tensor:
        matches = F.relu(self.convc2(F.relu(self.convc1(matches))))
        seen = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([matches, seen], dim=1))), flow], dim=1)


class SeparableGru(nn.Module):
    """A gated recurrence that looks along rows, then along columns."""

    def __init__(self) -> None:
        super().__init__()
        for number, size in ((1, (1, 5)), (2, (5, 1))):
            for gate in "zrq":
                padding = (size[0] // 2, size[1] // 2)
                conv = nn.Conv2d(HIDDEN + CONTEXT + 128, HIDDEN, size, padding=padding)
                self.add_module(f"conv{gate}{number}", conv)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        for z, r, q in (
            (self.convz1, self.convr1, self.convq1),
            (self.convz2, self.convr2, self.convq2),
        ):
            both = torch.cat([hidden, x], dim=1)
            update, reset = torch.sigmoid(z(both)), torch.sigmoid(r(both))
            proposed = torch.tanh(q(torch.cat([reset * hidden, x], dim=1)))
            hidden = (1 - update) * hidden + update * proposed
        return hidden


class FlowHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(hidden)))


class UpdateBlock(nn.Module):
    """One look at the matches: the recurrence's parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = SeparableGru()
        self.flow_head = FlowHead()
        self.mask = nn.Sequential(
            nn.Conv2d(HIDDEN, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 9 * STRIDE * STRIDE, 1),
        )


class Raft(nn.Module):
    """Flow [N, 2, H, W] in pixels (x, y) from pictures [N, 3, H, W] in 0..255, sides of 8 n."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 96, 128)
        self.fnet = Encoder(Residual, widths, 256, nn.InstanceNorm2d)
        self.cnet = Encoder(Residual, widths, HIDDEN + CONTEXT, nn.BatchNorm2d)
        self.update_block = UpdateBlock()

    @classmethod
    def from_file(cls, path: Path | str) -> "Raft":
        """From upstream's own file."""
        return load_network(cls, path, f"{ORIGIN} (there: {WEIGHTS})", _read)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        first, second = (2 * picture / 255 - 1 for picture in (first, second))
        source, target = self.fnet(torch.cat([first, second])).chunk(2)
        matches = Correlation(source, target, RADIUS)
        hidden, context = self.cnet(first).split([HIDDEN, CONTEXT], dim=1)
        hidden, context = torch.tanh(hidden), torch.relu(context)
        own, block = places_of(source), self.update_block
        flow = torch.zeros_like(own)
        for _ in range(ITERATIONS):
            seen = block.encoder(flow, matches.at(own + flow))
            hidden = block.gru(hidden, torch.cat([context, seen], dim=1))
            flow = flow + block.flow_head(hidden)
        return _enlarged(flow, 0.25 * block.mask(hidden))


def _enlarged(flow: Tensor, mask: Tensor) -> Tensor:
    """Eight times as large, each pixel a mean of the nine around it, weighted by ``mask``.

    [N, 2, h, w] and [N, 9 * 8 * 8, h, w] -> [N, 2, 8 * h, 8 * w].
    """
    height, width = flow.shape[-2:]
    weights = mask.view(-1, 1, 9, STRIDE, STRIDE, height, width).softmax(dim=2)
    around = F.unfold(STRIDE * flow, 3, padding=1).view(-1, 2, 9, 1, 1, height, width)
    large = (weights * around).sum(dim=2)  # (N, 2, 8, 8, h, w)
    return large.permute(0, 1, 4, 2, 5, 3).reshape(-1, 2, STRIDE * height, STRIDE * width)


def _read(path: Path) -> dict[str, Tensor]:
    """Without the wrapper's prefix; the norm of a shortcut, which it names twice, is taken once."""
    weights = {k.removeprefix("module."): v for k, v in read_weights(path).items()}
    return {k: v for k, v in weights.items() if ".norm3." not in k}
