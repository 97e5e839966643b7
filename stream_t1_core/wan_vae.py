"""The Wan 2.1 causal video VAE at any width.

Knows the layout and key names of `Wan2.1_VAE.pth`. Its decoder is run by ``streaming_vae.py``, for
whole videos too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .streaming_vae import LATENT_MEAN, decode_pixels, denormalise, normalise, per_frame


@dataclass(frozen=True)
class WanVAEConfig:
    """Sizes of a VAE. The defaults are those of the released model, whose dim is 96."""

    dim: int
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)

    def __post_init__(self) -> None:
        if self.z_dim != len(LATENT_MEAN):
            raise ValueError(
                f"a Wan 2.1 VAE has {len(LATENT_MEAN)} latent channels, this one has {self.z_dim}; "
                "use a VAE of the Wan 2.1 family"
            )

    @property
    def frames_per_latent(self) -> int:
        return 2 ** sum(self.temporal_downsample)

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor]) -> WanVAEConfig:
        """Reads every size from names and shapes."""
        dim = _require(weights, "encoder.conv1.weight").shape[0]
        z_dim = _require(weights, "conv2.weight").shape[0]
        stages: list[list[int]] = [[]]  # output channels of each residual block, stage by stage
        temporal: list[bool] = []
        for index in range(_count_layers(weights, "encoder.downsamples.")):
            name = f"encoder.downsamples.{index}."
            if name + "resample.1.weight" in weights:
                stages.append([])
                temporal.append(name + "time_conv.weight" in weights)
            else:
                stages[-1].append(_require(weights, name + "residual.2.weight").shape[0])
        if not all(stages):
            raise ValueError(
                "the encoder has a stage without residual blocks: not a Wan 2.1 VAE state dict"
            )
        return cls(
            dim=dim,
            z_dim=z_dim,
            dim_mult=tuple(stage[0] // dim for stage in stages),
            num_res_blocks=len(stages[0]),
            temporal_downsample=tuple(temporal),
        )


def _require(weights: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in weights:
        raise ValueError(
            f"no key {key!r} in this state dict of {len(weights)} tensors: not a Wan 2.1 VAE; "
            "use a file with the layout of Wan2.1_VAE.pth"
        )
    return weights[key]


def _count_layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    indices = {key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)}
    return len(indices)


class CausalConv3d(nn.Conv3d):
    """A convolution that sees, in time, only its own frame and earlier ones."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.past_frames = 2 * self.padding[0]
        self.padding = (0, *self.padding[1:])

    def forward(self, x: Tensor, previous: Tensor | None = None) -> Tensor:
        """`previous`: the `past_frames` frames before x; zeros when not given."""
        if previous is None and x.shape[2] == 1 and self.past_frames:  # a picture: one tap sees it
            weight = self.weight[:, :, -1:]
            return F.conv3d(x, weight, self.bias, self.stride, self.padding)
        if previous is not None:
            x = torch.cat([previous, x], dim=2)
        elif self.past_frames:
            x = F.pad(x, (0, 0, 0, 0, self.past_frames, 0))
        return super().forward(x)


class RMSNorm(nn.Module):
    """Scales each position to root mean square 1 over channels (dimension 1)."""

    def __init__(self, dim: int, *, space_dims: int) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * space_dims))

    def forward(self, x: Tensor) -> Tensor:
        # F.normalize gives the same numbers, at half the speed on a CPU.
        square = x.float().square().sum(dim=1, keepdim=True).clamp_min(1e-24)
        return x * (square.rsqrt() * self.scale).to(x.dtype) * self.gamma


class ResidualBlock(nn.Module):
    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            RMSNorm(in_dim, space_dims=3),
            nn.SiLU(),
            CausalConv3d(in_dim, out_dim, 3, padding=1),
            RMSNorm(out_dim, space_dims=3),
            nn.SiLU(),
            nn.Identity(),  # dropout in the released code; keeps the numbering of the keys
            CausalConv3d(out_dim, out_dim, 3, padding=1),
        )
        self.shortcut = CausalConv3d(in_dim, out_dim, 1) if in_dim != out_dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head self-attention among the positions of one frame."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim, space_dims=2)
        self.to_qkv = nn.Conv2d(dim, dim * 3, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + per_frame(self._attend, x)

    def _attend(self, frames: Tensor) -> Tensor:
        qkv = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)  # (B, H*W, 3C)
        q, k, v = qkv.unsqueeze(1).chunk(3, dim=-1)  # each (B, 1, H*W, C)
        out = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return self.proj(out.reshape(frames.shape))


class Resample(nn.Module):
    """Halves or doubles the picture, and with the 3d modes also the frame rate."""

    def __init__(self, dim: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        if mode.startswith("upsample"):
            spatial = nn.Upsample(scale_factor=2.0, mode="nearest-exact")
            self.resample = nn.Sequential(spatial, nn.Conv2d(dim, dim // 2, 3, padding=1))
        else:
            pad = nn.ZeroPad2d((0, 1, 0, 1))
            self.resample = nn.Sequential(pad, nn.Conv2d(dim, dim, 3, stride=2))
        if mode == "upsample3d":
            self.time_conv = CausalConv3d(dim, dim * 2, (3, 1, 1), padding=(1, 0, 0))
        elif mode == "downsample3d":
            self.time_conv = CausalConv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Down-sampling of a whole clip; up-sampling is `walk_decoder`'s, as it needs the past."""
        x = per_frame(self.resample, x)
        if self.mode == "downsample3d" and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)  # the first frame stays alone
        return x


def _middle(dim: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim), AttentionBlock(dim), ResidualBlock(dim, dim))


def _head(in_dim: int, out_dim: int) -> nn.Sequential:
    conv = CausalConv3d(in_dim, out_dim, 3, padding=1)
    return nn.Sequential(RMSNorm(in_dim, space_dims=3), nn.SiLU(), conv)


class Encoder(nn.Module):
    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.dim] + [config.dim * mult for mult in config.dim_mult]
        layers: list[nn.Module] = []
        for stage, width in enumerate(widths[1:]):
            layers.append(ResidualBlock(widths[stage], width))
            layers += [ResidualBlock(width, width) for _ in range(config.num_res_blocks - 1)]
            if stage < len(config.temporal_downsample):
                time = config.temporal_downsample[stage]
                layers.append(Resample(width, "downsample3d" if time else "downsample2d"))
        self.conv1 = CausalConv3d(3, widths[0], 3, padding=1)
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], 2 * config.z_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    """Only the layers: `walk_decoder` runs them."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.dim * mult for mult in reversed(config.dim_mult)]
        temporal_upsample = config.temporal_downsample[::-1]
        layers: list[nn.Module] = []
        in_dim = widths[0]
        for stage, width in enumerate(widths):
            layers.append(ResidualBlock(in_dim, width))
            layers += [ResidualBlock(width, width) for _ in range(config.num_res_blocks)]
            if stage < len(temporal_upsample):
                layers.append(
                    Resample(width, "upsample3d" if temporal_upsample[stage] else "upsample2d")
                )
            in_dim = width // 2  # a Resample halves the channels on the way up
        self.conv1 = CausalConv3d(config.z_dim, widths[0], 3, padding=1)
        self.middle = _middle(widths[0])
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(widths[-1], 3)


class WanVAE(nn.Module):
    """The whole autoencoder; `conv1` ends the encoder and `conv2` opens the decoder."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, 1)
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, 1)
        self.decoder = Decoder(config)

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor]) -> WanVAE:
        """A float32 VAE in eval mode from the tensors of a file laid out like `Wan2.1_VAE.pth`."""
        vae = cls(WanVAEConfig.from_state_dict(weights))
        expected = vae.state_dict()
        for key, tensor in expected.items():
            if _require(weights, key).shape != tensor.shape:
                raise ValueError(
                    f"{key!r} has shape {tuple(weights[key].shape)}, a Wan 2.1 VAE of this size "
                    f"needs {tuple(tensor.shape)}; the file mixes sizes or is damaged"
                )
        unknown = sorted(weights.keys() - expected.keys())
        if unknown:
            raise ValueError(
                f"{len(unknown)} keys do not belong to a Wan 2.1 VAE, the first is {unknown[0]!r}; "
                "use a file with the layout of Wan2.1_VAE.pth"
            )
        vae.load_state_dict(weights)
        return vae.eval()

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latents, not normalised: both [B, z_dim, F, H/8, W/8]."""
        mean, log_variance = self.conv1(self.encoder(pixels)).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, 4*(F-1)+1, H, W] in -1..1 to normalised latents [B, 16, F, H/8, W/8]."""
        stride = self.config.frames_per_latent
        size = 2 ** len(self.config.temporal_downsample)
        if pixels.ndim != 5 or pixels.shape[1] != 3:
            raise ValueError(f"pixels must be [B, 3, T, H, W], got {tuple(pixels.shape)}")
        if (pixels.shape[2] - 1) % stride or pixels.shape[3] % size or pixels.shape[4] % size:
            raise ValueError(
                f"pixels [B, 3, T, H, W] need T = {stride}*n + 1 and H and W divisible by {size}, "
                f"got {tuple(pixels.shape)}; cut or pad the clip"
            )
        mean, _ = self.moments(pixels)
        return normalise(mean)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B, 16, F, h, w] of a whole video to pixels, not clamped."""
        pixels, _ = decode_pixels(self, denormalise(latents), None)
        return pixels
