"""Trains the tiny transformer: `python -m training.train_model`, after the VAE and the text part.

Teacher forcing on clips in latent space, at the four noise levels that streaming uses and no
others. First come prototypes, from pure noise alone: one clip for every combination of words, all
in the same place, so that each prompt has one answer and words are learned in minutes. Among clips
that differ in place, size and speed the outline hardly shows in the mean, and is never learned.
The clean context gets a little noise. In the last part of training the model also meets its own
guesses, in the context and at the last level, so that at inference they are nothing new.
Knows how to teach; `teacher.py` knows what a chunk may see.
"""

import argparse
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stream_t1_core.backbone import BackboneShape, WanBackbone
from stream_t1_core.config import Schedule
from stream_t1_core.denoise import sigma_of, warped_timesteps
from stream_t1_core.tiny import TEXT_FILE, TRANSFORMER_FILE, VAE_FILE, read_tensors
from stream_t1_core.tiny_text import PromptEncoder
from stream_t1_core.wan_vae import WanVAE

from . import clips
from .latents import Library, make_library
from .muon import Muon
from .teacher import Lesson, TeacherForcing, TextBatch
from .train_text import ROW_SCALE, caption

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "training" / "cache"
SHAPE = BackboneShape(dim=256, ffn_dim=512, num_layers=5, num_heads=2)
SEED = 30
FRAMES_PER_CHUNK = 3
MOST_CONTEXT_NOISE = 0.15  # sigma
LONGEST_JUMP = 40  # chunks
OWN_CONTEXT = 0.3  # share of context chunks that are the model's own guess
OWN_START = 0.7  # the same for the noisy chunks of the last level
LEVEL_SHARES = (0.25, 0.2, 0.25, 0.3)  # how often each level is taught
PURE_NOISE = (1.0, 0.0, 0.0, 0.0)  # the same, for prototypes


@dataclass(frozen=True)
class Plan:
    """How much to train. A step sees `long_batch` whole streams and `short_batch` first chunks."""

    steps: int = 2600
    prototype_steps: int = 400  # the first of them
    prototype_batch: int = 32
    long_batch: int = 3
    short_batch: int = 12
    copies: int = 2  # noisy versions of each short clip
    long_clips: int = 800
    short_clips: int = 4000
    warm_up: int = 50
    matrix_rate: float = 0.02  # for the layers' matrices (Muon)
    rate: float = 2e-3  # for everything else (AdamW)
    average: float = 0.997  # decay of the weights' moving average, which is what ships
    own_guess_from: float = 0.6  # share of training after which it also learns from its guesses


@dataclass(eq=False)
class Levels:
    """The noise levels of streaming inference."""

    timesteps: Tensor = field(repr=False)  # [4]
    sigmas: Tensor = field(repr=False)  # [4]

    @classmethod
    def of(cls, schedule: Schedule) -> "Levels":
        timesteps = warped_timesteps(schedule)
        return cls(timesteps, sigma_of(timesteps, schedule.shift))


class Trainer:
    """One training run: model, optimisers, averaged weights and its lessons' chance."""

    def __init__(self, library: Library, encode: PromptEncoder, plan: Plan) -> None:
        torch.manual_seed(SEED)
        self.library, self.encode, self.plan = library, encode, plan
        self.prototypes = clips.prototypes()
        self.rng = random.Random(SEED)
        self.levels = Levels.of(Schedule())
        self.model = WanBackbone(SHAPE)
        start_well(self.model)
        self.teacher = TeacherForcing(self.model)
        self.optimisers = make_optimisers(self.model, plan)
        self.averaged = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def step(self, number: int) -> tuple[float, float]:
        """One update; returns the losses on first chunks and on whole streams."""
        rate = self._rate(number)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * rate
        if number < self.plan.prototype_steps:
            short, long = self._prototype_loss(), torch.zeros(())
        else:
            own_guess = number >= self.plan.own_guess_from * self.plan.steps
            short, long = self._short_loss(own_guess), self._long_loss(own_guess)
        (short + long).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        decay = min(self.plan.average, (1 + number) / (10 + number))
        for key, value in self.model.state_dict().items():
            self.averaged[key].lerp_(value, 1 - decay)
        return short.item(), long.item()

    def _rate(self, number: int) -> float:
        """Share of the full learning rate: a short rise, a plateau, a fall to nothing."""
        left = (self.plan.steps - number) / self.plan.steps
        return min(1.0, (number + 1) / self.plan.warm_up, left / 0.4)

    def _prototype_loss(self) -> Tensor:
        count = len(self.library.prototypes)
        picks = [self.rng.randrange(count) for _ in range(self.plan.prototype_batch)]
        clean = _chunks(self.library.prototypes[picks])
        text = self._text([self.prototypes[i] for i in picks])
        return self._loss(clean[:, :0], clean, clean, (0,), 0, text, PURE_NOISE)

    def _short_loss(self, own_guess: bool) -> Tensor:
        picks = [self.rng.randrange(len(self.library.short)) for _ in range(self.plan.short_batch)]
        clean = _chunks(self.library.short[picks]).expand(-1, self.plan.copies, -1, -1, -1, -1)
        text = self._text([self.library.short_scene(i) for i in picks])
        numbers = (0,) * self.plan.copies
        guess = self._guess(clean[:, :0], clean, numbers, 0, text) if own_guess else clean
        return self._loss(clean[:, :0], clean, guess, numbers, 0, text)

    def _long_loss(self, own_guess: bool) -> Tensor:
        picks = [self.rng.randrange(len(self.library.long)) for _ in range(self.plan.long_batch)]
        chunks = _chunks(self.library.long[picks])
        text = self._text([self.library.long_scene(i) for i in picks])
        jump = self.rng.randint(1, LONGEST_JUMP) if self.rng.random() < 0.3 else 0
        numbers = tuple(range(chunks.shape[1]))
        context, guess = chunks[:, :-1], chunks
        if own_guess:
            guess = self._guess(context, chunks, numbers, jump, text)
            context = _swap(context, guess[:, :-1], OWN_CONTEXT)
        sigma = MOST_CONTEXT_NOISE * torch.rand(*context.shape[:2], 1, 1, 1, 1)
        context = (1 - sigma) * context + sigma * torch.randn_like(context)
        return self._loss(context, chunks, guess, numbers, jump, text)

    @torch.no_grad()
    def _guess(
        self, context: Tensor, clean: Tensor, numbers: tuple[int, ...], jump: int, text: TextBatch
    ) -> Tensor:
        """What the model makes of the chunks at the last level but one."""
        sigma = self.levels.sigmas[-2]
        noisy = (1 - sigma) * clean + sigma * torch.randn(clean.shape)
        times = self.levels.timesteps[-2].expand(clean.shape[:2])
        flow = self.teacher.flow(Lesson(context, noisy, times, numbers, jump), text)
        return noisy - sigma * flow

    def _loss(
        self,
        context: Tensor,
        clean: Tensor,
        guess: Tensor,
        numbers: tuple[int, ...],
        jump: int,
        text: TextBatch,
        level_shares: tuple[float, ...] = LEVEL_SHARES,
    ) -> Tensor:
        """Mean squared error of the flow, every chunk at a noise level of its own.

        At the last level the noisy chunk is mostly made from the guess, as it is at inference; else
        the model would read the form off the signal and never off the prompt.
        """
        shares = torch.tensor(level_shares)
        level = torch.multinomial(shares, clean.shape[:2].numel(), True).view(clean.shape[:2])
        sigma = self.levels.sigmas[level][..., None, None, None, None]
        last = (level == len(shares) - 1)[..., None, None, None, None]
        start = torch.where(last, _swap(clean, guess, OWN_START), clean)
        noisy = (1 - sigma) * start + sigma * torch.randn(clean.shape)
        lesson = Lesson(context, noisy, self.levels.timesteps[level], numbers, jump)
        return (self.teacher.flow(lesson, text) - (noisy - clean) / sigma).square().mean()

    @torch.no_grad()
    def _text(self, scenes: list[clips.Scene]) -> TextBatch:
        captions = [caption(scene, self.rng) for scene in scenes]
        rows = [self.encode.encoder(self.encode.tokens(text)) for text in captions]
        return TextBatch.of(rows, SHAPE.text_len)


def start_well(model: WanBackbone) -> None:
    """Text rows are small, so their first layer starts large; the output starts at zero.

    A prompt has some ten words and five hundred rows of padding, all alike. Queries start turned
    away from the padding's key: else a word begins with a 500th of the attention, and what only one
    word says is learned late or never.
    """
    with torch.no_grad():
        for layer in model.blocks:
            attn = layer.cross_attn
            away = torch.randn(attn.k.bias.shape)
            for part, share in ((attn.k, 0.05), (attn.q, -0.75)):
                part.bias.copy_(share * part.weight.norm() / len(away) ** 0.5 * away)
        model.text_embedding[0].weight /= ROW_SCALE
        model.head.head.weight.zero_()
        model.head.head.bias.zero_()


def make_optimisers(model: WanBackbone, plan: Plan) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    wide = model.text_embedding[0].weight
    taken = {id(p) for p in [*matrices, wide]}
    rest = [p for p in model.parameters() if id(p) not in taken]
    # 4096 inputs move an output 16 times as far as 256 would; small rows take part of it back
    groups = [
        {"params": rest, "full_rate": plan.rate},
        {"params": [wide], "full_rate": plan.rate * 256 / 4096 / ROW_SCALE},
    ]
    return [
        Muon(matrices, plan.matrix_rate),
        torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(trainer: Trainer, save: Callable[[dict[str, Tensor]], None]) -> None:
    """All steps, with a line of progress every 50 and a save every 250."""
    began, sums = time.monotonic(), [0.0, 0.0]
    for number in range(trainer.plan.steps):
        for i, loss in enumerate(trainer.step(number)):
            assert math.isfinite(loss), "training diverged"
            sums[i] += loss
        if (number + 1) % 50 == 0:
            short, long = (total / 50 for total in sums)
            sums = [0.0, 0.0]
            seconds = time.monotonic() - began
            print(f"step {number + 1}: {short:.4f} {long:.4f}, {seconds:.0f} s", flush=True)
        if (number + 1) % 250 == 0:
            save(trainer.averaged)
    save(trainer.averaged)


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    """In bfloat16, as Wan's own files are."""
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in weights.items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "tiny_model")
    folder = parser.parse_args().folder
    plan = Plan()
    vae = WanVAE.from_state_dict(read_tensors(folder / VAE_FILE))
    encode = PromptEncoder.from_state_dict(read_tensors(folder / TEXT_FILE))
    library = make_library(vae, plan.long_clips, plan.short_clips, CACHE / "latents.pt")
    trainer = Trainer(library, encode, plan)
    train(trainer, lambda weights: write_weights(weights, folder / TRANSFORMER_FILE))


def _swap(chunks: Tensor, others: Tensor, share: float) -> Tensor:
    """A share of the chunks [B, S, ...] taken from others, at random."""
    return torch.where(torch.rand(*chunks.shape[:2], 1, 1, 1, 1) < share, others, chunks)


def _chunks(latents: Tensor) -> Tensor:
    """[B, C, F, H, W] float16 -> [B, chunks, C, 3, H, W] float32."""
    return latents.float().unflatten(2, (-1, FRAMES_PER_CHUNK)).transpose(1, 2)


if __name__ == "__main__":
    main()
