"""Tiny video decoders of the TAEHV layout at any width: frames that are good enough to score by.

Knows the layers and key names of the decoder in `taew2_1` and `lighttaew2_1` (their encoder is not
read), and decoding that continues from chunk to chunk, as `streaming_vae.py` does for the full VAE.
As there, layers are called and their weights never touched, so ComfyUI's
`comfy.taesd.taehv.TAEHV` can be decoded with too. Knows nothing of beams or of who looks at the
frames.

Two kinds of weights share this layout and differ in the latents that they read. `taew2_1`, float16
as released, reads the generator's own, which are normalised: Self-Forcing's demo hands it those.
`lighttaew2_1`, bfloat16, reads those of VAE space: LightX2V undoes the normalising before it
(`need_scaled`). ComfyUI tells them apart by the number format (`comfy/sd.py`), and so does this.

Source: TAEHV (github.com/madebyollin/taehv).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .streaming_vae import LATENT_MEAN, DecoderState, denormalise, normalise

CHANNELS = len(LATENT_MEAN)
STAGES = 3  # each doubles the picture; blocks of a stage:
BLOCKS = 3


@dataclass(frozen=True)
class TAEHVConfig:
    """Sizes of a decoder. The defaults are those of the released ones.

    ``widths``: channels of the three stages and of what follows them; ``growth``: frames that each
    stage makes of one.
    """

    widths: tuple[int, ...] = (256, 128, 64, 64)
    growth: tuple[int, ...] = (1, 2, 2)

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor]) -> TAEHVConfig:
        """Reads every size from names and shapes."""
        keys = ["decoder.1.weight", *(f"decoder.{8 + 6 * i}.weight" for i in range(STAGES))]
        widths = tuple(_require(weights, key).shape[0] for key in keys)
        grown = [_require(weights, f"decoder.{7 + 6 * i}.conv.weight") for i in range(STAGES)]
        latent, pixel = weights[keys[0]].shape[1], _require(weights, "decoder.22.bias").numel()
        _check_channels(latent, pixel)
        return cls(widths, tuple(len(w) // n for w, n in zip(grown, widths, strict=False)))


def _require(weights: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in weights:
        raise ValueError(
            f"no key {key!r} in this state dict of {len(weights)} tensors: not a TAEHV decoder; "
            "use a file with the layout of taew2_1"
        )
    return weights[key]


def _check_channels(latent: int, pixel: int) -> None:
    if (latent, pixel) != (CHANNELS, 3):
        raise ValueError(
            f"this tiny decoder reads {latent} latent channels and makes {pixel} of pixels; one "
            f"for Wan 2.1 reads {CHANNELS} and makes 3: use taew2_1 or lighttaew2_1"
        )


class Clamp(nn.Module):
    """Keeps latents within -3..3, softly."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """A residual block that also sees its input of one frame before."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1),
        )

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """Frames [N, C, h, w], and the frame before each."""
        return torch.relu(self.conv(torch.cat([x, past], dim=1)) + x)


class TGrow(nn.Module):
    """Makes ``growth`` frames of each."""

    def __init__(self, dim: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim * growth, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).reshape(-1, *x.shape[1:])


class TAEHV(nn.Module):
    """The decoder. ``normalised``: whether its weights read the generator's latents."""

    def __init__(self, config: TAEHVConfig, normalised: bool = True) -> None:
        super().__init__()
        self.config = config
        self.normalised = normalised
        first, *_, last = config.widths
        layers: list[nn.Module] = [Clamp(), nn.Conv2d(CHANNELS, first, 3, padding=1), nn.ReLU()]
        for stage, growth in enumerate(config.growth):
            width, after = config.widths[stage : stage + 2]
            layers += [MemBlock(width) for _ in range(BLOCKS)]
            layers += [nn.Upsample(scale_factor=2), TGrow(width, growth)]
            layers.append(nn.Conv2d(width, after, 3, padding=1, bias=False))
        self.decoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(last, 3, 3, padding=1))

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor]) -> TAEHV:
        """A float32 decoder in eval mode from the tensors of a file laid out like `taew2_1`."""
        config = TAEHVConfig.from_state_dict(weights)
        tiny = cls(config, normalised=weights["decoder.1.weight"].dtype == torch.float16)
        found = {key: tensor for key, tensor in weights.items() if not key.startswith("encoder.")}
        expected = {key: tensor.shape for key, tensor in tiny.state_dict().items()}
        wrong = sorted(expected.keys() ^ found.keys())
        wrong += [key for key in expected if key in found and found[key].shape != expected[key]]
        if wrong:
            raise ValueError(
                f"{len(wrong)} keys are missing, unknown or of a shape that does not fit a TAEHV "
                f"decoder of widths {config.widths}, the first is {wrong[0]!r}; use a file with "
                "the layout of taew2_1"
            )
        tiny.load_state_dict(found)
        return tiny.eval()

    def decode(self, mu: Tensor) -> Tensor:
        """As `WanVAE.decode` of a host: VAE-space latents [B, 16, F, h, w] to pixels in -1..1."""
        frames, _ = decode_frames(self, normalise(mu) if self.normalised else mu, None)
        return frames.transpose(1, 2) * 2 - 1


def walk_decoder(
    tiny: nn.Module, latent: Tensor, state: DecoderState | None
) -> tuple[Tensor, DecoderState]:
    """Latents [B, 16, f, h, w] through the decoder in one pass: frames [B, T, 3, H, W], T = 4f.

    The state holds the last input frame [B, 1, C, h, w] of each block with a memory; without one
    that is black, and the first three frames mean nothing.
    """
    batch = latent.shape[0]
    past = iter(state.history) if state else None
    history = []
    x = latent.transpose(1, 2).flatten(0, 1)
    for layer in tiny.decoder:
        if type(layer).__name__ != "MemBlock":
            x = layer(x)
            continue
        frames = x.unflatten(0, (batch, -1))  # (B, T, C, h, w)
        before = next(past) if past else torch.zeros_like(frames[:, :1])
        history.append(frames[:, -1:].clone())  # a view would keep all frames
        x = layer(x, torch.cat([before, frames[:, :-1]], dim=1).flatten(0, 1))
    return x.unflatten(0, (batch, -1)), DecoderState(tuple(history))


def decode_frames(
    tiny: nn.Module, latents: Tensor, state: DecoderState | None
) -> tuple[Tensor, DecoderState]:
    """`walk_decoder` for any number of frames, one latent frame at a time to bound the memory.

    As many frames come out as the full VAE makes: 4F, and 4F - 3 without a state.
    """
    begins, pieces = state is None, []
    for latent in latents.split(1, dim=2):
        frames, state = walk_decoder(tiny, latent, state)
        pieces.append(frames)
    surplus = pieces[0].shape[1] - 1 if begins else 0
    return torch.cat(pieces, dim=1)[:, surplus:], state


class TAEHVDecoder:
    """A `scoring.Decoder`: what one chunk leaves behind is the next chunk's `state`."""

    def __init__(
        self,
        tiny: nn.Module,
        *,
        normalised: bool,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """`tiny`: our `TAEHV` or ComfyUI's, with its weights already on `device`."""
        kinds = [type(layer).__name__ for layer in tiny.decoder]
        if kinds.count("MemBlock") != STAGES * BLOCKS or kinds.count("TGrow") != STAGES:
            raise TypeError(
                f"the decoder of this {type(tiny).__name__} is not of the TAEHV layout; connect "
                "taew2_1 or lighttaew2_1"
            )
        _check_channels(tiny.decoder[1].in_channels, tiny.decoder[-1].out_channels)
        self.tiny = tiny
        self.normalised = normalised
        self.dtype = dtype
        self.device = torch.device(device)

    @torch.no_grad()
    def decode(self, latents: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """Normalised latents [B, 16, F, h, w] to frames [B, T, H, W, 3], float32 in 0..1.

        T is 4F - 3 without a state (the start of a stream, or a chunk by itself), else 4F.
        """
        if latents.ndim != 5 or latents.shape[1] != CHANNELS or not latents.shape[2]:
            raise ValueError(
                f"latents must be [B, {CHANNELS}, F, h, w] with F >= 1, got {tuple(latents.shape)}"
            )
        if state is not None and state.batch != latents.shape[0]:
            raise ValueError(
                f"{latents.shape[0]} latents but a decoder state of {state.batch} rows; "
                "repeat the state or decode the rows one by one"
            )
        if state is not None and len(state.history) != STAGES * BLOCKS:
            raise ValueError(
                "this decoder state is of a decoder of another kind: go on with the VAE that the "
                "stream began with"
            )
        read = latents.to(self.device, torch.float32)
        read = (read if self.normalised else denormalise(read)).to(self.dtype)
        frames, state = decode_frames(self.tiny, read, state)
        return frames.float().clamp(0, 1).permute(0, 1, 3, 4, 2), state
