"""Clips as the tiny VAE sees them: drawn, encoded and kept in memory, or in a file between runs.

Three kinds: long clips for whole streams; many short ones of one chunk, because a stream has only
one first chunk and that is where the prompt has to be understood from nothing; and one short clip
for every combination of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stream_t1_core.wan_vae import WanVAE

from . import clips

LONG_FRAMES = 81  # 21 latent frames, 7 chunks
SHORT_FRAMES = 9  # 3 latent frames, 1 chunk
BATCH = 8


@dataclass(frozen=True, eq=False)
class Library:
    """Normalised latents, float16. Clip i of `long` has training seed i; `short` goes on."""

    long: Tensor = field(repr=False)  # [n, 16, 21, 8, 8]
    short: Tensor = field(repr=False)  # [m, 16, 3, 8, 8]
    prototypes: Tensor = field(repr=False)  # [432, 16, 3, 8, 8], in the order of clips.prototypes()

    def long_scene(self, index: int) -> clips.Scene:
        return clips.sample_scene(clips.training_seed(index))

    def short_scene(self, index: int) -> clips.Scene:
        return clips.sample_scene(clips.training_seed(len(self.long) + index))


def make_library(vae: WanVAE, long_count: int, short_count: int, cache: Path) -> Library:
    """Draw and encode; or read `cache`, if it holds as many clips from the same encoder."""
    mark = _fingerprint(vae)
    if cache.is_file():
        kept = torch.load(cache, weights_only=True)
        if kept["vae"] == mark and len(kept["long"]) == long_count:
            if len(kept["short"]) == short_count:
                return Library(kept["long"], kept["short"], kept["prototypes"])
    seeds = range(long_count + short_count)
    scenes = [clips.sample_scene(clips.training_seed(seed)) for seed in seeds]
    long = encode_clips(vae, scenes[:long_count], LONG_FRAMES)
    short = encode_clips(vae, scenes[long_count:], SHORT_FRAMES)
    prototypes = encode_clips(vae, clips.prototypes(), SHORT_FRAMES)
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"vae": mark, "long": long, "short": short, "prototypes": prototypes}, cache)
    return Library(long, short, prototypes)


def long_latents(vae: WanVAE, count: int, cache: Path) -> Tensor:
    """The first `count` long clips [count, 16, 21, 8, 8]: from `cache`, or drawn and encoded."""
    if cache.is_file():
        kept = torch.load(cache, weights_only=True, mmap=True)
        if kept["vae"] == _fingerprint(vae) and len(kept["long"]) >= count:
            return kept["long"][:count].clone()
    scenes = [clips.sample_scene(clips.training_seed(seed)) for seed in range(count)]
    return encode_clips(vae, scenes, LONG_FRAMES)


@torch.no_grad()
def encode_clips(vae: WanVAE, scenes: Sequence[clips.Scene], frames: int) -> Tensor:
    """Latents of the scenes' clips: [n, 16, F, 8, 8] float16."""
    batches = []
    for start in range(0, len(scenes), BATCH):
        batch = scenes[start : start + BATCH]
        pixels = torch.stack([clips.draw(scene, frames) for scene in batch])  # (B, T, H, W, 3)
        latents = vae.encode(pixels.permute(0, 4, 1, 2, 3) * 2 - 1)
        batches.append(latents.half())
    return torch.cat(batches)


def _fingerprint(vae: WanVAE) -> float:
    """Of the encoder and of how the clips are drawn."""
    parts = [*vae.encoder.parameters(), *vae.conv1.parameters()]
    weights = float(sum(p.detach().double().abs().sum() for p in parts))
    return weights + clips.START_SPREAD
