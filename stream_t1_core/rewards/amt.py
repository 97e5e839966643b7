"""AMT-S, a learned interpolation of frames: the picture halfway between two.

The small network of Li et al. 2023 under its own key names. It guesses the motion from the middle
to either side on a pyramid, coarse to fine, corrects each guess by looking up matches, and blends
what three motions bring from both sides. Knows pairs of pictures and one weight file; knows no
clips and no rewards.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints import read_checkpoint
from .flow import warp
from .matching import LEVELS, Bottleneck, Correlation, Encoder, places_of
from .weights import load_network

WEIGHTS = "amt-s.pth"
ORIGIN = "https://huggingface.co/lalala125/AMT"
MULTIPLE = 16  # of pixels, that a picture's sides must be
RADIUS = 3
WIDTHS = (20, 32, 44, 56)  # of the pyramid, finest first
SIDE = 20  # channels that a residual layer treats twice
FLOWS = 3


def _layer(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1), nn.PReLU(out))


def _resized(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear") if factor != 1 else x


class Pyramid(nn.Module):
    """Pictures -> features at a half, a quarter, an eighth and a sixteenth of their size."""

    def __init__(self) -> None:
        super().__init__()
        for number, (into, out) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), 1):
            layers = nn.Sequential(_layer(into, out, 2), _layer(out, out))
            self.add_module(f"pyramid{number}", layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for layers in self.children():
            x = layers(x)
            found.append(x)
        return found


class SideResidual(nn.Module):
    """Five convolutions beside a shortcut, the second and fourth on the last channels alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _layer(width, width), _layer(SIDE, SIDE)
        self.conv3, self.conv4 = _layer(width, width), _layer(SIDE, SIDE)
        self.conv5, self.prelu = nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            y = whole(y)
            y = torch.cat([y[:, :-SIDE], side(y[:, -SIDE:])], dim=1)
        return self.prelu(x + self.conv5(y))


class Decoder(nn.Module):
    """[N, into, h, w] -> [N, out, 2 * h, 2 * w]."""

    def __init__(self, into: int, width: int, out: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(width, out, 4, 2, 1)
        self.convblock = nn.Sequential(_layer(into, width), SideResidual(width), up)

    def forward(self, *parts: Tensor) -> Tensor:
        return self.convblock(torch.cat(parts, dim=1))


class Update(nn.Module):
    """Corrections of a level's features and flows, found at the matches' eighth of the size."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale  # how much larger the level is
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(64 + 20, 68, 3, padding=1)
        self.gru = self._two(68 + 4 + width, 76)
        self.feat_head = self._two(76, width)
        self.flow_head = self._two(76, 4)

    def forward(self, features: Tensor, flows: Tensor, matches: Tensor) -> tuple[Tensor, Tensor]:
        """``flows`` and ``matches`` are of the eighth; features and results are the level's."""
        matches = F.leaky_relu(self.convc1(matches), 0.1)
        seen = F.leaky_relu(self.convf2(F.leaky_relu(self.convf1(flows), 0.1)), 0.1)
        x = F.leaky_relu(self.conv(torch.cat([matches, seen], dim=1)), 0.1)
        x = self.gru(torch.cat([x, flows, _resized(features, 1 / self.scale)], dim=1))
        more = _resized(self.flow_head(x), self.scale)
        return _resized(self.feat_head(x), self.scale), self.scale * more

    @staticmethod
    def _two(into: int, out: int) -> nn.Sequential:
        between = nn.LeakyReLU(0.1)
        return nn.Sequential(
            nn.Conv2d(into, 76, 3, padding=1), between, nn.Conv2d(76, out, 3, padding=1)
        )


class Amt(nn.Module):
    """Two pictures [N, 3, H, W] in 0..1 -> the one halfway, [N, 3, H, W] in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.feat_encoder = Encoder(Bottleneck, (32, 64, 96), 84, nn.InstanceNorm2d)
        self.encoder = Pyramid()
        self.decoder4 = Decoder(2 * fourth + 1, 2 * fourth, 4 + third)
        self.decoder3 = Decoder(3 * third + 4, 3 * third, 4 + second)
        self.decoder2 = Decoder(3 * second + 4, 3 * second, 4 + first)
        self.decoder1 = Decoder(3 * first + 4, 3 * first, 8 * FLOWS)
        self.update4, self.update3 = Update(third, 1), Update(second, 2)
        self.update2 = Update(first, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FLOWS, 6 * FLOWS, 3, 1, 1),
            nn.PReLU(6 * FLOWS),
            nn.Conv2d(6 * FLOWS, 3, 3, 1, 1),
        )

    @classmethod
    def from_file(cls, path: Path | str) -> "Amt":
        """From upstream's own file."""
        return load_network(cls, path, f"{ORIGIN} (there: {WEIGHTS})", read_checkpoint)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        mean = torch.cat([first, second], dim=1).mean(dim=(1, 2, 3), keepdim=True)
        first, second = first - mean, second - mean
        ours, theirs = self.feat_encoder(torch.cat([first, second])).chunk(2)
        both_ways = Correlation(ours, theirs, RADIUS), Correlation(theirs, ours, RADIUS)
        *finer, coarsest = zip(self.encoder(first), self.encoder(second), strict=True)
        halfway = torch.full_like(coarsest[0][:, :1], 0.5)
        found = self.decoder4(*coarsest, halfway)
        flows, features = found[:, :4], found[:, 4:]  # flows to the first, to the second: 2 each
        for decoder, update, level in (
            (self.decoder3, self.update4, finer[2]),
            (self.decoder2, self.update3, finer[1]),
            (self.decoder1, self.update2, finer[0]),
        ):
            features, flows = _corrected(update, features, flows, both_ways)
            found = decoder(features, *_brought(level, flows), flows)
            flows = 2 * _resized(flows, 2)
            if decoder is not self.decoder1:
                flows, features = found[:, :4] + flows, found[:, 4:]
        return self._blended(first, second, mean, flows, found)

    def _blended(
        self, first: Tensor, second: Tensor, mean: Tensor, flows: Tensor, found: Tensor
    ) -> Tensor:
        """Pictures of three motions around ``flows``, each with a mask and a rest, as one."""
        parts = found.split([2 * FLOWS, 2 * FLOWS, FLOWS, 3 * FLOWS], dim=1)
        to_first, to_second, mask, rest = (x.unflatten(1, (FLOWS, -1)) for x in parts)
        motions = to_first + flows[:, None, :2], to_second + flows[:, None, 2:]
        repeated = [x.repeat_interleave(FLOWS, dim=0) for x in (first, second)]
        seen = [
            warp(picture, motion.flatten(0, 1)).unflatten(0, (-1, FLOWS))
            for picture, motion in zip(repeated, motions, strict=True)
        ]
        mask = mask.sigmoid()
        views = mask * seen[0] + (1 - mask) * seen[1] + mean[:, None] + rest  # (N, FLOWS, 3, H, W)
        return (views.mean(dim=1) + self.comb_block(views.flatten(1, 2))).clamp(0, 1)


def _corrected(
    update: Update, features: Tensor, flows: Tensor, both_ways: tuple[Correlation, Correlation]
) -> tuple[Tensor, Tensor]:
    """Features and flows after a look at the matches that the flows lead to."""
    small = _resized(flows, 1 / update.scale) / update.scale
    own = places_of(small)
    forward, backward = both_ways
    # The middle moves half of the way: from side to side it is twice as far.
    matches = forward.at(own + 2 * small[:, 2:]), backward.at(own + 2 * small[:, :2])
    more_features, more_flows = update(features, small, torch.cat(matches, dim=1))
    return features + more_features, flows + more_flows


def _brought(level: tuple[Tensor, Tensor], flows: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides' features where the flows find them."""
    return warp(level[0], flows[:, :2]), warp(level[1], flows[:, 2:])
