"""Trains the small Wan VAE that ships with the pack: `python -m training.train_vae`.

Three phases: pictures cropped around the object, cropped clips, whole clips. The decoder sees
latents with noise on them, so that the latents are smooth and a generator's small errors stay
small. At the end each latent channel is moved to mean 0 and standard deviation 1 in the generator's
(normalised) space. Needs one CPU core for about a quarter of an hour. Knows the clips and the VAE,
nothing of the generator.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stream_t1_core.streaming_vae import LATENT_MEAN, LATENT_STD, walk_decoder
from stream_t1_core.wan_vae import CausalConv3d, Resample, ResidualBlock, WanVAE, WanVAEConfig
from training import clips
from training.muon import orthogonal

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "tiny_model" / "wan_tiny_vae.safetensors"
SEED = 20
MOST_NOISE = 0.3  # standard deviation, where the latents' is about 1
SQUARED_ERROR_WEIGHT = 3.0
MOMENT_WEIGHT = 0.05
WARM_UP_STEPS = 20
CHECKPOINT_STEPS = 100
AFFINE_CLIPS = 24
EVALUATION_CLIPS = 12
EVALUATION_FRAMES = 33


@dataclass(frozen=True)
class Phase:
    """`side`: pixels of the crop around the object. Learning rate falls from `high` to `low`."""

    name: str
    steps: int
    batch: int
    frames: tuple[int, ...]  # clip lengths, in turn
    side: int
    high: float
    low: float


PHASES = (
    Phase("pictures", 400, 16, (1,), 32, high=6e-3, low=2e-3),
    Phase("cropped clips", 350, 4, (5, 9), 32, high=3e-3, low=1.5e-3),
    Phase("whole clips", 400, 2, (9, 9, 13), clips.SIDE, high=2e-3, low=2e-5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="weights file to write")
    parser.add_argument("--sheet", type=Path, help="PNG to write: originals above reconstructions")
    arguments = parser.parse_args()
    output, sheet = arguments.output, arguments.sheet
    output.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # convolutions this small gain little from a second thread
    torch.manual_seed(SEED)
    vae = WanVAE(WanVAEConfig(dim=8))
    start_near_identity(vae)
    began = time.monotonic()
    clip = 0
    for phase in PHASES:
        for step, loss in enumerate(train(vae, phase, clip), start=1):
            if step % 25 == 0:
                print(
                    f"{time.monotonic() - began:6.0f} s  {phase.name} {step}: {loss:.4f}",
                    flush=True,
                )
            if step % CHECKPOINT_STEPS == 0:
                save(vae, output.with_suffix(".checkpoint.safetensors"))
        clip += phase.steps * phase.batch
    normalise_latents(vae)
    save(vae, output)
    output.with_suffix(".checkpoint.safetensors").unlink()
    print(f"{time.monotonic() - began:6.0f} s  wrote {output}")
    evaluate(output, sheet)


@torch.no_grad()
def start_near_identity(vae: WanVAE) -> None:
    """Before training: residual branches are quiet, the way past them keeps what it can carry.

    Every convolution sees little but its own frame, and time is resampled by copying.
    """
    ends = (vae.encoder.conv1, vae.encoder.head[2], vae.conv1)
    ends += (vae.conv2, vae.decoder.conv1, vae.decoder.head[2])
    for module in vae.modules():
        if isinstance(module, CausalConv3d) and module.kernel_size[0] == 3:
            module.weight[:, :, :-1] *= 0.02
        if isinstance(module, ResidualBlock):
            module.residual[6].weight *= 0.1
            module.residual[6].bias.zero_()
            if isinstance(module.shortcut, CausalConv3d):
                nn.init.orthogonal_(module.shortcut.weight)
        if isinstance(module, Resample):
            nn.init.orthogonal_(module.resample[1].weight)
        if isinstance(module, Resample) and hasattr(module, "time_conv"):
            weight = module.time_conv.weight  # (C or 2C, C, 3, 1, 1)
            weight *= 0.2
            copies = weight.shape[0] // weight.shape[1]
            weight[:, :, -1, 0, 0] += torch.eye(weight.shape[1]).repeat(copies, 1)
            module.time_conv.bias.zero_()
    for conv in ends:
        conv.weight[:, :, -1] = nn.init.orthogonal_(torch.empty_like(conv.weight[:, :, -1]))


class Muon(torch.optim.Optimizer):
    """Momentum whose step has all singular values near 1 (Jordan et al. 2024), for convolutions.

    Scaled to the size of an Adam step (Liu et al. 2025), so both share a learning rate.
    """

    def __init__(self, weights: list[nn.Parameter], momentum: float = 0.9) -> None:
        super().__init__(weights, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:  # resampling in time rests while pictures are trained
                    continue
                state = self.state[weight]
                average = state.setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"]).flatten(1)
                size = 0.2 * math.sqrt(max(ahead.shape))
                weight.sub_(orthogonal(ahead[None]).view_as(weight), alpha=group["lr"] * size)


def train(vae: WanVAE, phase: Phase, first_clip: int) -> Iterator[float]:
    """Trains in place, yields the loss of each step."""
    matrices = [weight for weight in vae.parameters() if weight.ndim > 1 and weight[0].numel() > 1]
    vectors = [weight for weight in vae.parameters() if weight.ndim == 1 or weight[0].numel() == 1]
    optimisers = Muon(matrices), torch.optim.Adam(vectors, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(SEED + first_clip)
    for step in range(phase.steps):
        progress = step / phase.steps
        rate = phase.low + (phase.high - phase.low) * (1 + math.cos(math.pi * progress)) / 2
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARM_UP_STEPS)
        frames = phase.frames[step % len(phase.frames)]
        seeds = range(first_clip + step * phase.batch, first_clip + (step + 1) * phase.batch)
        pixels = torch.stack([training_clip(seed, frames, phase.side, generator) for seed in seeds])
        value = loss(vae, pixels, generator)
        vae.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        yield value.item()


def training_clip(index: int, frames: int, side: int, generator: torch.Generator) -> Tensor:
    """A clip in -1..1, cut to `side` pixels about the object: [3, T, side, side]."""
    scene = clips.sample_scene(clips.training_seed(index), clips.ANYWHERE)
    pixels = to_pixels(clips.draw(scene, frames))
    if side == clips.SIDE:
        return pixels
    centre = clips.centres(scene, frames)[frames // 2].round().int().tolist()
    off = torch.randint(-side // 4, side // 4 + 1, (2,), generator=generator).tolist()
    shift = [side // 2 + o - c for o, c in zip(off, centre, strict=True)]  # the world is a torus
    return pixels.roll((shift[1], shift[0]), dims=(2, 3))[:, :, :side, :side]


def to_pixels(frames: Tensor) -> Tensor:
    """Frames [T, H, W, 3] in 0..1 to pixels [3, T, H, W] in -1..1."""
    return frames.permute(3, 0, 1, 2) * 2 - 1


def loss(vae: WanVAE, pixels: Tensor, generator: torch.Generator) -> Tensor:
    mu, _ = vae.moments(pixels)
    strength = torch.rand(mu.shape[0], 1, 1, 1, 1, generator=generator) * MOST_NOISE
    noisy = mu + strength * torch.randn(mu.shape, generator=generator)
    error = decode(vae, noisy) - pixels
    spread, mean = torch.std_mean(mu, dim=(0, 2, 3, 4))
    moments = (mean.square() + (spread - 1).square()).mean()
    return (
        error.abs().mean() + SQUARED_ERROR_WEIGHT * error.square().mean() + MOMENT_WEIGHT * moments
    )


def decode(vae: WanVAE, mu: Tensor) -> Tensor:
    """All frames after the first in one pass: quicker, and short clips have the memory."""
    if mu.shape[2] == 1:
        decoder = vae.decoder
        return decoder.head(decoder.upsamples(decoder.middle(decoder.conv1(vae.conv2(mu)))))
    first, state = walk_decoder(vae, mu[:, :, :1], None)
    rest, _ = walk_decoder(vae, mu[:, :, 1:], state)
    return torch.cat([first, rest], dim=2)


@torch.no_grad()
def normalise_latents(vae: WanVAE) -> None:
    """Folds an affine map into the 1x1 convolutions on both sides of the latents.

    Afterwards `encode` gives every channel mean 0 and standard deviation 1 over whole clips.
    The unused log variance becomes that of the noise trained with.
    """
    seeds = range(AFFINE_CLIPS)
    drawn = [
        clips.draw(clips.sample_scene(clips.training_seed(s), clips.ANYWHERE), EVALUATION_FRAMES)
        for s in seeds
    ]
    mu = torch.cat([vae.moments(to_pixels(frames)[None])[0] for frames in drawn])
    spread, mean = torch.std_mean(mu, dim=(0, 2, 3, 4))
    print("latent std before the affine map:", [round(v, 2) for v in spread.tolist()])
    wan_mean, wan_std = torch.tensor(LATENT_MEAN), torch.tensor(LATENT_STD)
    scale = wan_std / spread
    shift = wan_mean - mean * scale  # mu -> mu * scale + shift
    channels = scale.shape[0]
    last, first = vae.conv1, vae.conv2
    last.weight[:channels] *= scale.view(-1, 1, 1, 1, 1)
    last.bias[:channels] = last.bias[:channels] * scale + shift
    last.weight[channels:] = 0
    last.bias[channels:] = 2 * torch.log(MOST_NOISE / 2 * wan_std)
    first.weight /= scale.view(1, -1, 1, 1, 1)
    first.bias -= first.weight[:, :, 0, 0, 0] @ shift


def save(vae: WanVAE, path: Path) -> None:
    weights = {name: tensor.half().contiguous() for name, tensor in vae.state_dict().items()}
    save_file(weights, path)


@torch.no_grad()
def evaluate(path: Path, sheet: Path | None) -> None:
    """Prints quality and latent statistics of the saved file on clips that were not trained on."""
    vae = WanVAE.from_state_dict(load_file(path))
    scenes = [
        clips.sample_scene(clips.evaluation_seed(i), clips.ANYWHERE)
        for i in range(EVALUATION_CLIPS)
    ]
    originals = torch.stack([to_pixels(clips.draw(scene, EVALUATION_FRAMES)) for scene in scenes])
    latents = torch.cat([vae.encode(clip[None]) for clip in originals])
    decoded = torch.cat([vae.decode(z[None]).clamp(-1, 1) for z in latents])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED))
    shaken = torch.cat([vae.decode(z[None]).clamp(-1, 1) for z in latents + 0.1 * noise])
    quality = psnr(originals, decoded)
    print(
        f"PSNR: mean {quality.mean():.1f} dB, worst clip {quality.min():.1f} dB, "
        f"with latent noise 0.1 {psnr(originals, shaken).mean():.1f} dB"
    )
    for part in (slice(0, 1), slice(1, 17), slice(17, 33)):
        value = psnr(originals[:, :, part], decoded[:, :, part]).mean()
        print(f"PSNR of frames {part.start} to {part.stop - 1}: {value:.1f} dB")
    spread, mean = torch.std_mean(latents, dim=(0, 2, 3, 4))
    print(
        f"normalised latents: channel means within {mean.abs().max():.2f}, standard deviations "
        f"{spread.min():.2f} to {spread.max():.2f}, largest value {latents.abs().max():.1f}"
    )
    print(f"{path.stat().st_size} bytes")
    if sheet is not None:
        write_sheet(originals, decoded, sheet)


def psnr(originals: Tensor, decoded: Tensor) -> Tensor:
    """Decibels of each clip, from pixels in -1..1."""
    error = ((originals - decoded) / 2).square().mean(dim=(1, 2, 3, 4))
    return -10 * error.log10()


def write_sheet(originals: Tensor, decoded: Tensor, path: Path) -> None:
    columns = []
    for original, ours in zip(originals[:6], decoded[:6], strict=True):
        for frame in (0, 1, 4, 20, EVALUATION_FRAMES - 1):
            columns.append(torch.cat([original[:, frame], ours[:, frame]], dim=1))
    rows = [torch.cat(columns[i : i + 10], dim=2) for i in range(0, len(columns), 10)]
    picture = (torch.cat(rows, dim=1).permute(1, 2, 0) + 1) * 127.5
    height, width, _ = picture.shape
    image = Image.fromarray(picture.round().byte().numpy())
    image.resize((2 * width, 2 * height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
