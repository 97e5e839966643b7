"""Decoding with a Wan 2.1 VAE that continues from chunk to chunk.

Knows the rules by which the decoder remembers earlier frames. ``walk_decoder`` calls layers and
never touches their weights, so it runs our ``WanVAE`` and ComfyUI's ``comfy.ldm.wan.vae.WanVAE``,
whatever that does with its weights. Knows nothing of beams, of where weights come from, or of who
looks at the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
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


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Applies a layer for pictures [B, C, H, W] to every frame of x [B, C, T, H, W]."""
    b, _, t, _, _ = x.shape
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.unflatten(0, (b, t)).transpose(1, 2)
