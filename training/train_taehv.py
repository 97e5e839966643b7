"""Trains the tiny scoring decoder that ships with the pack: `python -m training.train_taehv`.

Distilled: it learns to make the frames that the tiny VAE makes of the same latents, of drawn clips
and of the same with noise on them, streaming from chunk to chunk with its memory as a search does.
Needs one CPU core for about ten minutes. Knows the VAE and its latents, nothing of the generator.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stream_t1_core.streaming_vae import DecoderState, StreamingDecoder
from stream_t1_core.taehv import TAEHV, TAEHVConfig, TAEHVDecoder, walk_decoder
from stream_t1_core.tiny import SCORING_FILE, VAE_FILE
from stream_t1_core.wan_vae import WanVAE
from training import clips
from training.latents import encode_clips, long_latents
from training.train_vae import SQUARED_ERROR_WEIGHT, Muon

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "training" / "cache" / "latents.pt"
WIDTHS = (32, 24, 16, 16)
SEED = 40
CLIPS = 128
MOST_NOISE = 0.4  # standard deviation, where the latents' is 1; on every second clip
BATCH = 8
CHUNK = 3  # latent frames of a step
STEPS = 700
HIGH, LOW = 8e-3, 1e-4  # learning rate
WARM_UP_STEPS = 20
EVALUATION_CLIPS, EVALUATION_FRAMES = 12, 33


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "tiny_model")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # convolutions this small gain little from a second thread
    torch.manual_seed(SEED)
    began = time.monotonic()
    vae = WanVAE.from_state_dict(load_file(folder / VAE_FILE))
    latents = shaken(long_latents(vae, CLIPS, CACHE).float())
    frames = torch.cat([decoded(vae, some) for some in latents.split(BATCH)])
    print(f"{time.monotonic() - began:6.0f} s  decoded {CLIPS} clips", flush=True)
    tiny = TAEHV(TAEHVConfig(WIDTHS))
    for step, loss in enumerate(train(tiny, latents, frames), start=1):
        if step % 25 == 0:
            print(f"{time.monotonic() - began:6.0f} s  {step}: {loss:.4f}", flush=True)
    # float16 says that it reads normalised latents, as taew2_1's file does
    weights = {name: tensor.half().contiguous() for name, tensor in tiny.state_dict().items()}
    save_file(weights, folder / SCORING_FILE)
    print(f"{time.monotonic() - began:6.0f} s  wrote {folder / SCORING_FILE}")
    evaluate(vae, folder / SCORING_FILE)


def shaken(latents: Tensor) -> Tensor:
    """The same latents [n, 16, F, h, w], every second clip with noise of its own strength."""
    strength = MOST_NOISE * torch.rand(len(latents), 1, 1, 1, 1)
    strength[::2] = 0
    return latents + strength * torch.randn_like(latents)


@torch.no_grad()
def decoded(vae: WanVAE, latents: Tensor) -> Tensor:
    """What the VAE makes of whole clips: [B, T, 3, H, W] in 0..1, float16."""
    frames, _ = StreamingDecoder(vae).decode(latents, None)
    return frames.permute(0, 1, 4, 2, 3).half()


def train(tiny: TAEHV, latents: Tensor, frames: Tensor) -> Iterator[float]:
    """Trains in place, a chunk of a batch of clips at each step; yields the loss."""
    matrices = [weight for weight in tiny.parameters() if weight.ndim > 1]
    vectors = [weight for weight in tiny.parameters() if weight.ndim == 1]
    optimisers = Muon(matrices), torch.optim.Adam(vectors, betas=(0.9, 0.98))
    state: DecoderState | None = None
    for step, (chunk, target, begins) in enumerate(lessons(latents, frames)):
        rate = LOW + (HIGH - LOW) * (1 + math.cos(math.pi * step / STEPS)) / 2
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARM_UP_STEPS)
        made, after = walk_decoder(tiny, chunk, None if begins else state)
        state = after.moved(Tensor.detach)
        error = made[:, -target.shape[1] :] - target.float()  # the first three frames mean nothing
        loss = error.abs().mean() + SQUARED_ERROR_WEIGHT * error.square().mean()
        tiny.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tiny.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        yield loss.item()


def lessons(latents: Tensor, frames: Tensor) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Chunk after chunk of batches of clips: latents, frames, and whether the clips begin here."""
    left = STEPS
    while True:
        for batch in torch.randperm(len(latents)).split(BATCH):
            shown = 0
            for first in range(0, latents.shape[2], CHUNK):
                chunk = latents[batch, :, first : first + CHUNK]
                length = 4 * chunk.shape[2] - (3 if first == 0 else 0)
                if not left:
                    return
                yield chunk, frames[batch, shown : shown + length], first == 0
                shown, left = shown + length, left - 1


@torch.no_grad()
def evaluate(vae: WanVAE, path: Path) -> None:
    """Prints how near the saved file's frames are to the VAE's, on clips never trained on."""
    decoder = TAEHVDecoder(TAEHV.from_state_dict(load_file(path)), normalised=True)
    scenes = [clips.sample_scene(clips.evaluation_seed(i)) for i in range(EVALUATION_CLIPS)]
    latents = encode_clips(vae, scenes, EVALUATION_FRAMES).float()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))
    for strength in (0.0, 0.1, 0.3):
        shaken = latents + strength * noise
        ours, _ = decoder.decode(shaken, None)
        error = (ours.permute(0, 1, 4, 2, 3) - decoded(vae, shaken).float()).square()
        quality = -10 * error.mean(dim=(1, 2, 3, 4)).log10()
        print(
            f"PSNR against the VAE, latent noise {strength}: mean {quality.mean():.1f} dB, "
            f"worst clip {quality.min():.1f} dB"
        )
    print(f"{path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
