"""A host VAE in, the core's streaming decoder out; an empty LATENT in, its size out."""

import comfy.model_management
import torch
from comfy.sd import VAE
from torch import Tensor

from ...stream_t1_core.kv import KVPlace
from ...stream_t1_core.wan_vae import DecoderState, StreamingDecoder


class HostDecoder:
    """Streaming decoder over the host VAE's own layers, loaded again where a reward took its place.

    What it remembers between chunks lies where keys and values do, ``place``. Raises ``ValueError``
    for another VAE family.
    """

    def __init__(self, vae: VAE) -> None:
        self.patcher = vae.patcher
        self.place = KVPlace.DEVICE
        try:
            self.decoder = StreamingDecoder(
                vae.first_stage_model, dtype=vae.vae_dtype, device=vae.device
            )
        except TypeError as error:
            raise ValueError(f"vae: {error}") from error

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        """See ``scoring.Decoder``."""
        comfy.model_management.load_models_gpu([self.patcher])
        device = self.decoder.device
        frames, after = self.decoder.decode(latents, state and state.to(device))
        return frames, after.moved(lambda tensor: self.place.store(tensor, device))


def empty_latent_size(latent: dict[str, Tensor]) -> tuple[int, int, int]:
    """(latent frames, height, width) of an empty LATENT; a ``ValueError`` says what is wrong."""
    samples: Tensor = latent["samples"]
    how = "use an empty video latent node, for example EmptyHunyuanLatentVideo"
    if samples.ndim != 5:
        raise ValueError(
            f"latent: shape {list(samples.shape)} has {samples.ndim} axes, a video latent has 5: "
            f"[1, 16, frames, height, width]; {how}"
        )
    batch, channels, frames, height, width = samples.shape
    if batch != 1:
        raise ValueError(f"latent: batch of {batch}; make one video at a time, queue several runs")
    if channels != 16:
        raise ValueError(f"latent: {channels} channels, Wan 2.1 latents have 16; {how}")
    if torch.count_nonzero(samples):
        raise ValueError(
            f"latent: it is not empty. The sampler makes a video from noise and would ignore it; "
            f"{how}"
        )
    return frames, height, width
