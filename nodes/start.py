"""Start From: what the video begins with, instead of nothing."""

import torch
from comfy_api.latest import io
from torch import Tensor

from .host.start import AskedStart
from .sockets import StartSocket


class StreamT1StartFrom(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StreamT1StartFrom",
            display_name="Start From",
            category="Stream-T1",
            description="Begins the video with a picture, with a clip that is to go on, or with "
            "the latents of an earlier run. The model continues from there.",
            inputs=[
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="A picture, or a clip's frames in order at 16 a second. They become "
                    "the first frames of the video, resized and cropped to its size. A clip of "
                    "other than 1, 5, 9, ... frames loses its last 1 to 3.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="Instead of images: the latent output of an earlier run, of the "
                    "video's size. Nothing is encoded, so nothing is lost.",
                ),
            ],
            outputs=[StartSocket.Output("start", display_name="start")],
        )

    @classmethod
    def execute(
        cls, images: Tensor | None = None, latent: dict[str, Tensor] | None = None
    ) -> io.NodeOutput:
        if (images is None) == (latent is None):
            raise ValueError(
                f"Start From: {'nothing is' if images is None else 'both inputs are'} plugged in; "
                "plug in either images or latent"
            )
        if images is not None:
            return io.NodeOutput(AskedStart(_checked_images(images), None))
        return io.NodeOutput(AskedStart(None, _checked_samples(latent["samples"])))


def _checked_images(images: Tensor) -> Tensor:
    """The first three channels of ``images``, if it is pictures at all."""
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[3] < 3:
        raise ValueError(
            f"Start From: images of shape {list(images.shape)}, pictures are [frames, height, "
            "width, 3] with at least one frame; connect an IMAGE output"
        )
    return images[..., :3]


def _checked_samples(samples: Tensor) -> Tensor:
    how = "connect the latent output of a Chunk Beam Sampler or of VAE Encode"
    if samples.ndim != 5 or samples.shape[0] != 1 or samples.shape[1] != 16:
        raise ValueError(
            f"Start From: latent of shape {list(samples.shape)}, a Wan 2.1 video is [1, 16, "
            f"frames, height, width]; {how}"
        )
    if not torch.count_nonzero(samples):
        raise ValueError(f"Start From: the latent is empty, there is nothing to start from; {how}")
    return samples


NODES = [StreamT1StartFrom]
