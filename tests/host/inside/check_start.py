"""Given footage: fitted to the video, encoded as the host does, refused when it cannot be."""

import logging

import comfy.latent_formats
import comfy.utils
import pytest
import torch
from boot import PACK_ROOT, Pack
from comfy.sd import VAE
from torch import Tensor

FORMAT = comfy.latent_formats.Wan21()
HW = (4, 6)  # latent; 32 x 48 pixels


@pytest.fixture(scope="module")
def vae() -> VAE:
    path = PACK_ROOT / "tiny_model" / "wan_tiny_vae.safetensors"
    return VAE(sd=comfy.utils.load_torch_file(str(path), safe_load=True))


def start(pack: Pack, **inputs: object) -> object:
    return pack.module("nodes.start").StreamT1StartFrom.execute(**inputs).args[0]


def prepare(pack: Pack, vae: VAE, **inputs: object) -> tuple[Tensor, Tensor | None]:
    given = pack.module("nodes.host.start").prepare(start(pack, **inputs), vae, FORMAT, HW)
    return given.latent, given.frames


@pytest.mark.parametrize("count, latents", [(1, 1), (5, 2), (9, 3)])
def check_frames_of_the_videos_size_are_taken_as_they_are(
    pack: Pack, vae: VAE, count: int, latents: int
) -> None:
    images = torch.rand(count, 32, 48, 3)
    latent, frames = prepare(pack, vae, images=images)
    assert frames.equal(images)
    assert latent.shape == (16, latents, *HW)
    assert latent.equal(FORMAT.process_in(vae.encode(images))[0])


def check_a_clip_loses_what_fills_no_latent_frame(
    pack: Pack, vae: VAE, caplog: pytest.LogCaptureFixture
) -> None:
    images = torch.rand(8, 32, 48, 3)
    with caplog.at_level(logging.WARNING):
        latent, frames = prepare(pack, vae, images=images)
    assert frames.equal(images[:5]) and latent.shape[1] == 2
    assert "the last 3 of 8 frames are left out" in caplog.text


@pytest.mark.parametrize("height, width", [(64, 200), (100, 48), (32, 32)])
def check_a_picture_of_another_shape_is_cropped_on_both_sides(
    pack: Pack, vae: VAE, height: int, width: int
) -> None:
    picture = torch.zeros(1, height, width, 3)
    picture[..., 0] = torch.linspace(-1, 1, width).abs()  # symmetrical, dark in the middle
    picture[..., 1] = torch.linspace(-1, 1, height).abs()[:, None]
    latent, frames = prepare(pack, vae, images=picture)
    assert frames.shape == (1, 32, 48, 3) and latent.shape == (16, 1, *HW)
    for axis in (1, 2):
        assert (frames - frames.flip(axis)).abs().max() < 0.03
    scale = max(32 / height, 48 / width)
    widest, highest = frames[..., 0].max(), frames[..., 1].max()
    assert widest == pytest.approx(48 / (scale * width), abs=0.05)
    assert highest == pytest.approx(32 / (scale * height), abs=0.05)


def check_transparency_is_left_out(pack: Pack) -> None:
    assert start(pack, images=torch.rand(1, 8, 8, 4)).images.shape == (1, 8, 8, 3)


def check_latents_go_on_as_they_are(pack: Pack, vae: VAE) -> None:
    made = torch.randn(1, 16, 3, *HW)
    latent, frames = prepare(pack, vae, latent={"samples": FORMAT.process_out(made)})
    torch.testing.assert_close(latent, made[0])
    assert frames is None


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "nothing is plugged in; plug in either images or latent"),
        (
            {"images": torch.rand(1, 8, 8, 3), "latent": {"samples": torch.rand(1, 16, 1, 1, 1)}},
            "both inputs are plugged in",
        ),
        ({"images": torch.rand(0, 8, 8, 3)}, r"images of shape \[0, 8, 8, 3\], .* one frame"),
        ({"images": torch.rand(8, 8, 3)}, r"images of shape \[8, 8, 3\]"),
        ({"images": torch.rand(1, 8, 8, 1)}, r"images of shape \[1, 8, 8, 1\]"),
        ({"latent": {"samples": torch.rand(1, 4, 8, 8)}}, r"latent of shape \[1, 4, 8, 8\], a Wan"),
        ({"latent": {"samples": torch.rand(2, 16, 3, 4, 6)}}, r"latent of shape \[2, 16, 3, 4, 6"),
        ({"latent": {"samples": torch.rand(1, 48, 3, 4, 6)}}, r"latent of shape \[1, 48, 3, 4, 6"),
        ({"latent": {"samples": torch.zeros(1, 16, 3, 4, 6)}}, "the latent is empty"),
    ],
)
def check_what_cannot_be_a_start_is_refused(pack: Pack, inputs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Start From: .*{message}"):
        start(pack, **inputs)


def check_latents_of_another_size_are_refused(pack: Pack, vae: VAE) -> None:
    with pytest.raises(
        ValueError, match="latent of 32 x 64 pixels, but the video is 48 x 32; give the sampler"
    ):
        prepare(pack, vae, latent={"samples": torch.rand(1, 16, 3, 8, 4)})
