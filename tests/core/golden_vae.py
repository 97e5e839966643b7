"""Compares the VAE with a folder of goldens of kind `wan_vae`. Sizes come from the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from stream_t1_core.streaming_vae import (
    LATENT_MEAN,
    LATENT_STD,
    DecoderState,
    StreamingDecoder,
    denormalise,
    walk_decoder,
)
from stream_t1_core.wan_vae import WanVAE

DECODE_TOLERANCE = 5e-5
ENCODE_TOLERANCE = 2e-5


def check(folder: Path, spec: dict[str, Any]) -> None:
    weights = load_file(folder / f"{spec['weights']}.safetensors")
    goldens = load_file(folder / f"{spec['goldens']}.safetensors")
    vae = WanVAE.from_state_dict(weights)
    if "latent_mean" in goldens:
        _close("latent_mean", torch.tensor(LATENT_MEAN), goldens["latent_mean"], 1e-6)
        _close("latent_std", torch.tensor(LATENT_STD), goldens["latent_std"], 1e-6)
    _check_encodes(vae, goldens)
    _check_decodes(vae, goldens)


def _check_encodes(vae: WanVAE, goldens: dict[str, Tensor]) -> None:
    for name, expected in goldens.items():
        if not name.startswith("encode_"):
            continue
        frames = int(name.split("_")[1])  # encode_9_frames
        with torch.no_grad():
            _close(
                name, vae.encode(goldens["clip_pixels"][:, :, :frames]), expected, ENCODE_TOLERANCE
            )


def _check_decodes(vae: WanVAE, goldens: dict[str, Tensor]) -> None:
    decoder = StreamingDecoder(vae)
    latents, whole = goldens["latents"], goldens["decode_whole"]
    with torch.no_grad():
        _close("decode_whole", vae.decode(latents), whole, DECODE_TOLERANCE)

    chunks = _chunk_latents(latents, goldens)
    states: dict[int, DecoderState | None] = {1: None}
    for number, chunk in chunks.items():
        pixels, states[number + 1] = decoder.decode_unclamped(chunk, states[number])
        _close(f"decode_chunk{number}", pixels, goldens[f"decode_chunk{number}"], DECODE_TOLERANCE)

    for name, expected in goldens.items():
        if name.startswith("decode_branch_"):  # decode_branch_b_chunk2: decoded after branch A's
            branch, number = name.split("_")[2], int(name.split("chunk")[1])
            other = goldens[f"branch_{branch}_chunk{number}_latents"]
            pixels, _ = decoder.decode_unclamped(other, states[number])
            _close(name, pixels, expected, DECODE_TOLERANCE)
            _check_batched(decoder, chunks[number], other, states[number], goldens, name)
        elif name.endswith("_isolated"):
            number = int(name.split("chunk")[1].split("_")[0])
            pixels, _ = decoder.decode_unclamped(chunks[number], None)
            _close(name, pixels, expected, DECODE_TOLERANCE)

    with torch.no_grad():  # all later frames in one pass, instead of one latent frame at a time
        start, state = walk_decoder(vae, denormalise(latents[:, :, :1]), None)
        rest, _ = walk_decoder(vae, denormalise(latents[:, :, 1:]), state)
    _close("split 1 + rest", torch.cat([start, rest], dim=2), whole, DECODE_TOLERANCE)


def _check_batched(
    decoder: StreamingDecoder,
    first: Tensor,
    other: Tensor,
    state: DecoderState | None,
    goldens: dict[str, Tensor],
    name: str,
) -> None:
    """Both branches as one batch from a repeated state give the same as one by one."""
    state = state.repeat(2) if state is not None else None
    pixels, _ = decoder.decode_unclamped(torch.cat([first, other]), state)
    chunk_name = f"decode_{name.split('_')[-1]}"
    _close(
        f"{name} batched", pixels, torch.cat([goldens[chunk_name], goldens[name]]), DECODE_TOLERANCE
    )


def _chunk_latents(latents: Tensor, goldens: dict[str, Tensor]) -> dict[int, Tensor]:
    """The latents of each decode_chunkN: frame counts follow from the pixel frames it gave."""
    sizes: dict[int, int] = {}
    while (name := f"decode_chunk{len(sizes) + 1}") in goldens:
        pixel_frames = goldens[name].shape[2]
        sizes[len(sizes) + 1] = pixel_frames // 4 if sizes else (pixel_frames + 3) // 4
    pieces = latents[:, :, : sum(sizes.values())].split(list(sizes.values()), dim=2)
    return dict(zip(sizes, pieces, strict=True))


def _close(name: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    assert got.shape == expected.shape, f"{name}: {tuple(got.shape)} != {tuple(expected.shape)}"
    difference = (got - expected).abs().max().item()
    assert difference <= tolerance, f"{name}: differs by {difference:.2e}, allowed {tolerance:.0e}"
