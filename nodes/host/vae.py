"""A host VAE in, the core's streaming decoder out; an empty LATENT in, its size out.

A VAE for scoring may be tiny: what VAELoader makes of taew2_1 or lighttaew2_1.
"""

import comfy.model_management
import torch
from comfy.sd import VAE
from torch import Tensor, nn

from ...stream_t1_core.footprint import DecoderSizes
from ...stream_t1_core.kv import KVPlace
from ...stream_t1_core.streaming_vae import DecoderState, StreamingDecoder
from ...stream_t1_core.taehv import TAEHV, TAEHVConfig, TAEHVDecoder
from ...stream_t1_core.wan_vae import WanVAEConfig


class HostDecoder:
    """Streaming decoder over the host VAE's own layers, loaded again where a reward took its place.

    The full VAE or a tiny one of the TAEHV layout. The host makes room for decoding one candidate,
    if need be by moving the model off the device. What is remembered between chunks lies where keys
    and values do, ``place``; so do frames on a CUDA device. Raises ``ValueError``, which names the
    ``socket``, for another family.

    ``apart``: on another device than the search, such as the CPU under the host's ``--cpu-vae``.
    Nothing takes its place there, so once loaded it stays, and it may run in any thread.
    """

    def __init__(self, vae: VAE, socket: str = "vae", apart: bool = False) -> None:
        self.vae = vae
        self.apart = apart
        self.place = KVPlace.DEVICE
        stage = vae.first_stage_model
        self.kind = type(stage).__name__
        where = {"dtype": vae.vae_dtype, "device": vae.device}
        try:
            if is_tiny(vae):
                self.decoder = TAEHVDecoder(stage, normalised=_reads_normalised(stage), **where)
            else:
                self.decoder = StreamingDecoder(stage, **where)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{socket}: {error}") from error

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        """See ``scoring.Decoder``."""
        if not self.apart:
            needed = self.vae.memory_used_decode(latents[:1].shape, self.vae.vae_dtype)
            comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=needed)
        device = self.decoder.device
        frames, after = self.decoder.decode(latents, state and state.to(device))
        if self.place is not KVPlace.DEVICE or device.type != "cuda":
            frames = frames.cpu()  # no room; or, as on MPS, not all that rewards do is there
        return frames, after.moved(lambda tensor: self.place.store(tensor, device))


def is_tiny(vae: VAE) -> bool:
    """Whether it is of the TAEHV layout, the host's class or ours."""
    return type(vae.first_stage_model).__name__ == "TAEHV"


def decoder_sizes(vae: VAE) -> DecoderSizes:
    """For reckoning what it needs."""
    config = TAEHVConfig if is_tiny(vae) else WanVAEConfig
    return config.from_state_dict(vae.first_stage_model.state_dict())


def _reads_normalised(stage: nn.Module) -> bool:
    """The host gives a format to weights that read the generator's latents, none to the others.

    The format may be another model's, for files of taew2_1 look like those of HunyuanVideo's
    taehv to it; the core normalises by itself.
    """
    return stage.normalised if isinstance(stage, TAEHV) else stage.latent_format is not None


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
