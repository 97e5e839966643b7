"""Given footage, a picture, a clip or latents, as the beginning of a video.

Knows the host's VAE and the rules of its latents in time (one frame, then four each). The size is
fitted here and not in the node, because only the sampler knows the video's.
"""

import logging
from dataclasses import dataclass, field

import comfy.utils
from comfy.latent_formats import LatentFormat
from comfy.sd import VAE
from torch import Tensor

from ...stream_t1_core.footprint import DOWNSCALE
from ...stream_t1_core.state import Start

log = logging.getLogger(__name__)

FRAMES_PER_LATENT = 4


@dataclass(frozen=True, eq=False)
class AskedStart:
    """What a Start From node hands to the sampler: one of the two."""

    images: Tensor | None = field(repr=False)  # [T, H, W, 3] in 0..1
    samples: Tensor | None = field(repr=False)  # [1, 16, F, h, w] in the VAE's space


def prepare(
    asked: AskedStart, vae: VAE, latent_format: LatentFormat, latent_hw: tuple[int, int]
) -> Start:
    """The footage at the video's size, in the model's latent space."""
    if asked.samples is not None:
        _check_size(asked.samples, latent_hw)
        return Start(latent_format.process_in(asked.samples)[0])
    frames = _fit(_whole_latents(asked.images), latent_hw)
    return Start(latent_format.process_in(vae.encode(frames))[0], frames)


def _whole_latents(images: Tensor) -> Tensor:
    """``images`` without the last frames that fill no latent frame."""
    extra = (images.shape[0] - 1) % FRAMES_PER_LATENT
    if not extra:
        return images
    log.warning(
        "Start From: the last %d of %d frames are left out; a clip has 4 x n + 1 frames "
        "(1, 5, 9, ...)",
        extra,
        images.shape[0],
    )
    return images[:-extra]


def _fit(images: Tensor, latent_hw: tuple[int, int]) -> Tensor:
    """Resized to fill the video's size, what stands out is cropped on both sides."""
    height, width = (DOWNSCALE * size for size in latent_hw)
    if images.shape[1:3] == (height, width):
        return images
    channels_first = images.movedim(-1, 1)
    return comfy.utils.common_upscale(channels_first, width, height, "lanczos", "center").movedim(
        1, -1
    )


def _check_size(samples: Tensor, latent_hw: tuple[int, int]) -> None:
    given = tuple(samples.shape[3:])
    if given != latent_hw:
        (height, width), (video_height, video_width) = (
            tuple(DOWNSCALE * size for size in hw) for hw in (given, latent_hw)
        )
        raise ValueError(
            f"Start From: latent of {width} x {height} pixels, but the video is {video_width} x "
            f"{video_height}; give the sampler an empty latent of the same size, or start from "
            "the decoded images, which are resized"
        )
