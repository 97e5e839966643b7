"""The Wan 2.1 causal video VAE at any width, and decoding that continues from chunk to chunk.

Knows the layout and key names of `Wan2.1_VAE.pth` and the rules by which its decoder remembers
earlier frames. The decoder is run by `walk_decoder`, which calls layers and never touches their
weights, so it also runs ComfyUI's `comfy.ldm.wan.vae.WanVAE`, whatever that does with its weights.
Knows nothing of beams, of where weights come from, or of who looks at the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Wan 2.1's latent constants: normalised = (mu - mean) / std, per channel.
LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

HISTORY_FRAMES = 2  # every causal convolution has three taps in time


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


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer for pictures [B, C, H, W] to every frame of x [B, C, T, H, W]."""
    b, _, t, _, _ = x.shape
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.unflatten(0, (b, t)).transpose(1, 2)


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


def normalise(mu: Tensor) -> Tensor:
    """VAE-space latents [B, 16, F, h, w] to the space the generator works in."""
    return (mu - _per_channel(LATENT_MEAN, mu)) / _per_channel(LATENT_STD, mu)


def denormalise(latents: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    return latents * _per_channel(LATENT_STD, latents) + _per_channel(LATENT_MEAN, latents)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    if like.ndim != 5 or like.shape[1] != len(values):
        raise ValueError(
            f"latents must be [B, {len(values)}, F, h, w], got {tuple(like.shape)}; "
            "give the generator's latents with the batch in front"
        )
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class DecoderState:
    """What a causal decoder remembers once the stream's first frame has passed.

    `history` holds, in the order of the walk, the last two input frames [B, C, 2, h, w] of each
    causal convolution. Decoding reads a state and returns another; a state is never written to, so
    any number of branches may continue from one.
    """

    history: tuple[Tensor, ...] = field(repr=False)

    @property
    def batch(self) -> int:
        return self.history[0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of memory this state keeps alive; a repeated state shares those of its source."""
        return sum(frames.untyped_storage().nbytes() for frames in self.history)

    def row(self, index: int) -> DecoderState:
        """The state of one batch row, in memory of its own: the batch may be freed."""
        if not 0 <= index < self.batch:
            raise ValueError(
                f"row {index} of a decoder state with {self.batch} rows; rows count from 0"
            )
        return DecoderState(tuple(frames[index : index + 1].clone() for frames in self.history))

    def to(self, device: torch.device) -> DecoderState:
        """This state on ``device``; equal rows that share their memory go on sharing it."""
        if self.batch > 1 and self.history[0].stride(0) == 0:
            return DecoderState(tuple(x[:1] for x in self.history)).to(device).repeat(self.batch)
        return self.moved(lambda frames: frames.to(device, non_blocking=True))

    def moved(self, move: Callable[[Tensor], Tensor]) -> DecoderState:
        return DecoderState(tuple(map(move, self.history)))

    def repeat(self, count: int) -> DecoderState:
        """A batch of `count` equal rows, without copying."""
        if self.batch != 1:
            raise ValueError(f"only a state of one row can be repeated, this one has {self.batch}")
        return DecoderState(tuple(frames.expand(count, -1, -1, -1, -1) for frames in self.history))


class _Walk:
    """One pass over the decoder: hands each causal convolution its past and notes the next."""

    def __init__(self, state: DecoderState | None) -> None:
        self.first_frame = state is None
        self._past: Iterator[Tensor] | None = None if state is None else iter(state.history)
        self.history: list[Tensor] = []

    def conv(self, layer: nn.Module, x: Tensor) -> Tensor:
        past = self._take_past(x)
        latest = x[:, :, -HISTORY_FRAMES:]
        self.history.append(torch.cat([past[:, :, latest.shape[2] :], latest], dim=2))
        # The zeros at the start are explicit: newer ComfyUI shortcuts single frames without a past.
        if x.device.type == "cpu" and len(x) == 1:  # PyTorch is slow with one, five times and more
            return layer(torch.cat([x, x]), torch.cat([past, past]))[:1]
        return layer(x, past)

    def skip(self, x: Tensor) -> None:
        """A convolution the stream's first frame does not pass through: its past stays empty."""
        self.history.append(self._take_past(x))

    def _take_past(self, x: Tensor) -> Tensor:
        if self._past is not None:
            return next(self._past)
        b, c, _, h, w = x.shape
        return x.new_zeros(b, c, HISTORY_FRAMES, h, w)

    def sequence(self, layers: nn.Sequential, x: Tensor) -> Tensor:
        for layer in layers:
            x = self.conv(layer, x) if _kind(layer) == "CausalConv3d" else layer(x)
        return x

    def layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if _kind(layer) == "ResidualBlock":
            return self.sequence(layer.residual, x) + layer.shortcut(x)
        if _kind(layer) == "Resample":
            if layer.mode == "upsample3d":
                x = self.double_frames(layer, x)
            return per_frame(layer.resample, x)
        return layer(x)  # AttentionBlock: no memory

    def double_frames(self, layer: nn.Module, x: Tensor) -> Tensor:
        if self.first_frame:
            self.skip(x)
            return x
        b, c, t, h, w = x.shape
        pairs = self.conv(layer.time_conv, x).view(b, 2, c, t, h, w)
        return pairs.permute(0, 2, 3, 1, 4, 5).reshape(b, c, 2 * t, h, w)


def _kind(layer: nn.Module) -> str:
    return type(layer).__name__


def walk_decoder(
    vae: nn.Module, mu: Tensor, state: DecoderState | None
) -> tuple[Tensor, DecoderState]:
    """VAE-space latents [B, 16, f, h, w] through the decoder in one pass.

    Without a state, f must be 1: the stream's first frame takes another way through the decoder.
    Returns unclamped pixels [B, 3, T, H, W], T = 1 at the start of a stream and else 4f, and the
    new state.
    """
    assert state is not None or mu.shape[2] == 1
    walk = _Walk(state)
    x = walk.conv(vae.decoder.conv1, vae.conv2(mu))
    for layer in (*vae.decoder.middle, *vae.decoder.upsamples):
        x = walk.layer(layer, x)
    x = walk.sequence(vae.decoder.head, x)
    return x, DecoderState(tuple(walk.history))


def decode_pixels(
    vae: nn.Module, mu: Tensor, state: DecoderState | None
) -> tuple[Tensor, DecoderState]:
    """`walk_decoder` for any number of frames, one latent frame at a time to bound the memory."""
    if mu.shape[2] == 0:
        raise ValueError("no latent frames to decode: latents have F = 0; give at least one frame")
    pieces = []
    for frame in mu.split(1, dim=2):
        pixels, state = walk_decoder(vae, frame, state)
        pieces.append(pixels)
    return torch.cat(pieces, dim=2), state


class StreamingDecoder:
    """Decodes a video chunk by chunk; what one chunk leaves behind is the next chunk's `state`."""

    def __init__(
        self,
        vae: nn.Module,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """`vae`: our `WanVAE` or ComfyUI's, with its weights already on `device`."""
        _check_layers(vae)
        self.vae = vae
        self.dtype = dtype
        self.device = torch.device(device)

    def decode(self, latents: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """Normalised latents [B, 16, F, h, w] to frames [B, T, H, W, 3], float32 in 0..1.

        T is 4F - 3 without a state (the start of a stream, or a chunk by itself), else 4F.
        """
        pixels, state = self.decode_unclamped(latents, state)
        return ((pixels + 1) / 2).clamp(0, 1).permute(0, 2, 3, 4, 1), state

    @torch.no_grad()
    def decode_unclamped(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState]:
        """As `decode`, but pixels [B, 3, T, H, W] as the network gives them: about -1..1."""
        mu = denormalise(latents.to(self.device, torch.float32)).to(self.dtype)
        if state is not None and state.batch != latents.shape[0]:
            raise ValueError(
                f"{latents.shape[0]} latents but a decoder state of {state.batch} rows; "
                "repeat the state or decode the rows one by one"
            )
        pixels, state = decode_pixels(self.vae, mu, state)
        return pixels.float(), state


def _check_layers(vae: nn.Module) -> None:
    decoder = getattr(vae, "decoder", None)
    parts = ("conv1", "middle", "upsamples", "head")
    if not hasattr(vae, "conv2") or not all(hasattr(decoder, part) for part in parts):
        raise TypeError(
            f"{type(vae).__name__} is not a Wan 2.1 VAE (it lacks conv2 or decoder."
            f"{'/'.join(parts)}); connect a Wan 2.1 VAE"
        )
    known = {"ResidualBlock", "AttentionBlock", "Resample"}
    strange = {_kind(layer) for layer in (*decoder.middle, *decoder.upsamples)} - known
    if strange:
        raise TypeError(
            f"the decoder has layers of class {', '.join(sorted(strange))}, a Wan 2.1 VAE has only "
            f"{', '.join(sorted(known))}; connect a Wan 2.1 VAE, not one of another version"
        )
