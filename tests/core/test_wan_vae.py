"""The VAE at toy size: what streaming may and may not depend on, and what a wrong file is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stream_t1_core.streaming_vae import DecoderState, StreamingDecoder, denormalise, normalise
from stream_t1_core.wan_vae import WanVAE, WanVAEConfig

SIZE = 3  # latent height and width


@pytest.fixture(scope="module")
def vae() -> WanVAE:
    torch.manual_seed(1)
    return WanVAE(WanVAEConfig(dim=4, num_res_blocks=1)).eval()


@pytest.fixture(scope="module")
def decoder(vae: WanVAE) -> StreamingDecoder:
    return StreamingDecoder(vae)


def _latents(frames: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 16, frames, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("split", [[5], [1, 4], [3, 2], [2, 1, 1, 1]])
def test_decoding_in_chunks_equals_decoding_the_whole(
    vae: WanVAE, decoder: StreamingDecoder, split: list[int]
) -> None:
    latents = _latents(5)
    state, pieces = None, []
    for chunk in latents.split(split, dim=2):
        pixels, state = decoder.decode_unclamped(chunk, state)
        pieces.append(pixels)
    with torch.no_grad():
        whole = vae.decode(latents)
    assert whole.shape == (1, 3, 17, 8 * SIZE, 8 * SIZE)
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole, atol=1e-5, rtol=0)


def test_frames_are_clamped_channels_last_floats(decoder: StreamingDecoder) -> None:
    latents = 20 * _latents(2, batch=2)
    frames, state = decoder.decode(latents, None)
    assert frames.shape == (2, 5, 8 * SIZE, 8 * SIZE, 3)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() and frames.max() <= 1
    later, _ = decoder.decode(latents, state)
    assert later.shape[1] == 8


def test_decoding_leaves_the_given_state_untouched(decoder: StreamingDecoder) -> None:
    _, state = decoder.decode(_latents(2), None)
    before = [frames.clone() for frames in state.history]
    first, _ = decoder.decode(_latents(2, seed=1), state)
    decoder.decode(_latents(2, seed=2), state)
    again, _ = decoder.decode(_latents(2, seed=1), state)
    assert all(map(torch.equal, before, state.history))
    assert torch.equal(first, again)


def test_a_chunk_depends_on_the_state_it_continues(decoder: StreamingDecoder) -> None:
    _, state_a = decoder.decode(_latents(2, seed=1), None)
    _, state_b = decoder.decode(_latents(2, seed=2), None)
    chunk = _latents(1, seed=3)
    assert not torch.allclose(decoder.decode(chunk, state_a)[0], decoder.decode(chunk, state_b)[0])


def test_batched_branches_equal_single_ones(decoder: StreamingDecoder) -> None:
    _, parent = decoder.decode(_latents(2), None)
    chunks = _latents(2, batch=3, seed=1)
    batched, batched_state = decoder.decode_unclamped(chunks, parent.repeat(3))
    for index in range(3):
        single, state = decoder.decode_unclamped(chunks[index : index + 1], parent)
        torch.testing.assert_close(batched[index : index + 1], single, atol=1e-5, rtol=0)
        row = batched_state.row(index)
        for ours, expected in zip(row.history, state.history, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_a_row_owns_its_memory(decoder: StreamingDecoder) -> None:
    _, batch = decoder.decode(_latents(2, batch=4), None)
    row = batch.row(1)
    assert row.nbytes * 4 == batch.nbytes
    assert {t.data_ptr() for t in row.history}.isdisjoint(t.data_ptr() for t in batch.history)


def test_a_repeated_state_shares_its_source_and_a_state_keeps_only_two_frames(
    decoder: StreamingDecoder,
) -> None:
    _, short = decoder.decode(_latents(1), None)
    _, long = decoder.decode(_latents(4), None)
    assert short.nbytes == long.nbytes == long.repeat(5).nbytes
    assert long.repeat(5).batch == 5


def test_a_repeated_state_is_moved_once(decoder: StreamingDecoder) -> None:
    _, state = decoder.decode(_latents(1), None)
    moved = state.repeat(4).to(torch.device("meta"))
    assert moved.batch == 4 and moved.history[0].device.type == "meta"
    assert moved.history[0].stride(0) == 0  # one row in memory


def test_state_rows_are_checked(decoder: StreamingDecoder) -> None:
    _, state = decoder.decode(_latents(1, batch=2), None)
    with pytest.raises(ValueError, match="row 2 of a decoder state with 2 rows"):
        state.row(2)
    with pytest.raises(ValueError, match="this one has 2"):
        state.repeat(3)
    with pytest.raises(ValueError, match="3 latents but a decoder state of 2 rows"):
        decoder.decode(_latents(1, batch=3), state)


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_encode_gives_one_latent_frame_and_one_more_per_four_frames(
    vae: WanVAE, frames: int
) -> None:
    with torch.no_grad():
        latents = vae.encode(torch.rand(2, 3, frames, 16, 24) * 2 - 1)
    assert latents.shape == (2, 16, (frames + 3) // 4, 2, 3)


def test_encoding_is_causal(vae: WanVAE) -> None:
    clip = torch.rand(1, 3, 9, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(vae.encode(clip[:, :, :5]), vae.encode(clip)[:, :, :2])


def test_normalising_and_back_is_the_identity() -> None:
    latents = _latents(2)
    torch.testing.assert_close(normalise(denormalise(latents)), latents)


@pytest.mark.parametrize(
    "config",
    [
        WanVAEConfig(dim=4, num_res_blocks=1),
        WanVAEConfig(dim=6, dim_mult=(1, 2, 4), temporal_downsample=(True, False)),
    ],
)
def test_sizes_are_read_from_the_state_dict(config: WanVAEConfig) -> None:
    original = WanVAE(config)
    loaded = WanVAE.from_state_dict(original.state_dict())
    assert loaded.config == config
    assert all(map(torch.equal, original.state_dict().values(), loaded.state_dict().values()))


def test_half_precision_weights_are_upcast(vae: WanVAE) -> None:
    weights = {key: tensor.bfloat16() for key, tensor in vae.state_dict().items()}
    loaded = WanVAE.from_state_dict(weights)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("key", ["encoder.conv1.weight", "decoder.upsamples.3.residual.6.bias"])
def test_a_missing_key_is_named(vae: WanVAE, key: str) -> None:
    weights = dict(vae.state_dict())
    del weights[key]
    with pytest.raises(ValueError, match=f"no key '{key}'"):
        WanVAE.from_state_dict(weights)


def test_a_foreign_key_and_a_wrong_shape_are_named(vae: WanVAE) -> None:
    weights = dict(vae.state_dict())
    with pytest.raises(ValueError, match="'discriminator.weight'"):
        WanVAE.from_state_dict(weights | {"discriminator.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="'decoder.head.2.bias' has shape"):
        WanVAE.from_state_dict(weights | {"decoder.head.2.bias": torch.zeros(4)})


def test_another_number_of_latent_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="16 latent channels, this one has 48"):
        WanVAEConfig(dim=4, z_dim=48)


def test_wrong_shapes_say_what_came(vae: WanVAE, decoder: StreamingDecoder) -> None:
    with pytest.raises(ValueError, match=r"\[B, 16, F, h, w\], got \(16, 3, 3, 3\)"):
        decoder.decode(_latents(3)[0], None)
    with pytest.raises(ValueError, match=r"got \(1, 4, 2, 3, 3\)"):
        decoder.decode(_latents(2)[:, :4], None)
    with pytest.raises(ValueError, match="F = 0"):
        decoder.decode(_latents(1)[:, :, :0], None)
    with pytest.raises(ValueError, match=r"T = 4\*n \+ 1"):
        vae.encode(torch.zeros(1, 3, 4, 16, 16))
    with pytest.raises(ValueError, match=r"\[B, 3, T, H, W\]"):
        vae.encode(torch.zeros(3, 5, 16, 16))


def test_a_module_that_is_no_wan_vae_is_refused(vae: WanVAE) -> None:
    with pytest.raises(TypeError, match="Linear is not a Wan 2.1 VAE"):
        StreamingDecoder(nn.Linear(1, 1))
    other = WanVAE(WanVAEConfig(dim=4, num_res_blocks=1))
    other.decoder.upsamples[0] = nn.Conv3d(1, 1, 1)
    with pytest.raises(TypeError, match="layers of class Conv3d"):
        StreamingDecoder(other)


def test_a_state_does_not_print_its_tensors(decoder: StreamingDecoder) -> None:
    _, state = decoder.decode(_latents(1), None)
    assert isinstance(state, DecoderState)
    assert repr(state) == "DecoderState()"
