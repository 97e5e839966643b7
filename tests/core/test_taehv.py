"""Tiny decoders of the TAEHV layout: streaming equals the whole, and what a wrong file is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stream_t1_core.streaming_vae import StreamingDecoder, denormalise, normalise
from stream_t1_core.taehv import TAEHV, TAEHVConfig, TAEHVDecoder
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

SIZE = 3  # latent height and width
CONFIG = TAEHVConfig((8, 6, 4, 5))


@pytest.fixture(scope="module")
def tiny() -> TAEHV:
    torch.manual_seed(1)
    return TAEHV(CONFIG).eval()


@pytest.fixture(scope="module")
def decoder(tiny: TAEHV) -> TAEHVDecoder:
    return TAEHVDecoder(tiny, normalised=True)


def _latents(frames: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 16, frames, SIZE, SIZE, generator=generator)


def plain(tiny: TAEHV, latents: Tensor) -> Tensor:
    """All frames [T, 3, H, W] of one video, each layer once over the whole of it."""
    x = latents[0].transpose(0, 1)
    for layer in tiny.decoder:
        past = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
        x = (
            layer(x, past)
            if hasattr(layer, "conv") and len(layer.conv.state_dict()) > 1
            else layer(x)
        )
    return x[3:]


@pytest.mark.parametrize("split", [[5], [1, 4], [3, 2], [2, 1, 1, 1]])
def test_decoding_in_chunks_equals_decoding_the_whole(
    tiny: TAEHV, decoder: TAEHVDecoder, split: list[int]
) -> None:
    latents = _latents(5)
    state, pieces = None, []
    for chunk in latents.split(split, dim=2):
        frames, state = decoder.decode(chunk, state)
        pieces.append(frames)
    with torch.no_grad():
        whole = plain(tiny, latents).clamp(0, 1).permute(0, 2, 3, 1)
    assert whole.shape == (17, 8 * SIZE, 8 * SIZE, 3) and whole.std() > 0.01
    torch.testing.assert_close(torch.cat(pieces, dim=1)[0], whole, atol=1e-5, rtol=0)


def test_as_many_frames_come_out_as_of_the_full_vae(decoder: TAEHVDecoder) -> None:
    full = StreamingDecoder(WanVAE(WanVAEConfig(dim=4, num_res_blocks=1)).eval())
    ours = theirs = None
    for count in (3, 1, 2):
        (a, ours), (b, theirs) = (
            one.decode(_latents(count), state) for one, state in ((decoder, ours), (full, theirs))
        )
        assert a.shape == b.shape and a.dtype == b.dtype == torch.float32


def test_branches_of_a_batch_equal_single_ones_and_leave_their_parent_as_it_was(
    decoder: TAEHVDecoder,
) -> None:
    _, parent = decoder.decode(_latents(2), None)
    before = [frames.clone() for frames in parent.history]
    chunks = _latents(2, batch=3, seed=1)
    batched, after = decoder.decode(chunks, parent.repeat(3))
    for index in range(3):
        single, state = decoder.decode(chunks[index : index + 1], parent)
        torch.testing.assert_close(batched[index : index + 1], single, atol=1e-5, rtol=0)
        for ours, expected in zip(after.row(index).history, state.history, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    assert all(map(torch.equal, before, parent.history))
    assert not torch.allclose(batched[0], batched[1])


def test_a_chunk_depends_on_the_state_it_continues_and_a_state_does_not_grow(
    decoder: TAEHVDecoder,
) -> None:
    _, short = decoder.decode(_latents(1), None)
    _, long = decoder.decode(_latents(4, seed=2), None)
    chunk = _latents(1, seed=3)
    assert not torch.allclose(decoder.decode(chunk, short)[0], decoder.decode(chunk, long)[0])
    assert short.nbytes == long.nbytes == 4 * 3 * SIZE**2 * (8 + 4 * 6 + 16 * 4)


def test_weights_of_either_kind_get_the_latents_that_they_read(tiny: TAEHV) -> None:
    latents = _latents(2)
    raw = TAEHVDecoder(tiny, normalised=False).decode(normalise(latents), None)[0]
    read = TAEHVDecoder(tiny, normalised=True).decode(latents, None)[0]
    torch.testing.assert_close(raw, read)
    with torch.no_grad():
        pixels = tiny.decode(denormalise(latents))  # as a host's VAE asks for them
    torch.testing.assert_close(pixels.add(1).div(2).clamp(0, 1).permute(0, 2, 3, 4, 1), read)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sizes_and_kind_are_read_from_the_file(tiny: TAEHV, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype) for key, tensor in tiny.state_dict().items()}
    weights["encoder.0.weight"] = torch.zeros(1)  # files have an encoder too
    loaded = TAEHV.from_state_dict(weights)
    assert loaded.config == CONFIG and loaded.normalised is (dtype is torch.float16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_the_default_sizes_are_those_of_the_released_file() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(t.shape) for key, t in TAEHV(TAEHVConfig()).state_dict().items()}
    assert len(shapes) == 2 + 9 * 6 + 3 + 3 + 2
    assert shapes["decoder.1.weight"] == (256, 16, 3, 3)
    assert shapes["decoder.9.conv.0.weight"] == (128, 256, 3, 3)
    assert shapes["decoder.19.conv.weight"] == (128, 64, 1, 1)
    assert shapes["decoder.22.bias"] == (3,)


def test_a_wrong_file_is_told(tiny: TAEHV) -> None:
    weights = dict(tiny.state_dict())
    for key in ("decoder.1.weight", "decoder.22.bias"):
        with pytest.raises(ValueError, match=f"no key '{key}'.*layout of taew2_1"):
            TAEHV.from_state_dict({k: v for k, v in weights.items() if k != key})
    with pytest.raises(ValueError, match="1 keys are missing.*'decoder.4.conv.2.bias'"):
        TAEHV.from_state_dict({k: v for k, v in weights.items() if k != "decoder.4.conv.2.bias"})
    with pytest.raises(ValueError, match="'decoder.4.conv.2.bias'"):
        TAEHV.from_state_dict(weights | {"decoder.4.conv.2.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="reads 48 latent channels and makes 12 of pixels"):
        wan22 = {"decoder.1.weight": torch.zeros(8, 48, 3, 3), "decoder.22.bias": torch.zeros(12)}
        TAEHV.from_state_dict(weights | wan22)
    image = nn.Module()
    image.decoder = nn.Sequential(nn.Conv2d(4, 3, 3))
    with pytest.raises(TypeError, match="not of the TAEHV layout"):
        TAEHVDecoder(image, normalised=True)


def test_wrong_latents_and_states_are_told(decoder: TAEHVDecoder) -> None:
    _, state = decoder.decode(_latents(1, batch=2), None)
    with pytest.raises(ValueError, match="3 latents but a decoder state of 2 rows"):
        decoder.decode(_latents(1, batch=3), state)
    for wrong in (_latents(2)[0], _latents(2)[:, :4], _latents(1)[:, :, :0]):
        with pytest.raises(ValueError, match=r"\[B, 16, F, h, w\] with F >= 1"):
            decoder.decode(wrong, None)
    full = StreamingDecoder(WanVAE(WanVAEConfig(dim=4, num_res_blocks=1)).eval())
    with pytest.raises(ValueError, match="of a decoder of another kind"):
        decoder.decode(_latents(1), full.decode(_latents(1), None)[1])
