"""Decode candidates to frames and score them: short reward on the chunk, long on its past too.

The decoder's causal state is carried from chunk to chunk, so each chunk is decoded once and the
long reward reuses earlier frames. ``isolated`` decodes as the released code does instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from . import search
from .batching import in_batches
from .config import StreamConfig
from .rewards.base import Clips, Reward
from .rewards.mix import evaluate
from .state import Candidate, Chunk, Scores


class DecoderState(Protocol):
    """What a causal decoder carries on; a value, never changed once made."""

    def repeat(self, count: int) -> "DecoderState":
        """A state for ``count`` branches that continue this one."""
        ...

    def row(self, index: int) -> "DecoderState":
        """One branch's state, owning its memory."""
        ...


class Decoder(Protocol):
    """A causal video decoder."""

    def decode(
        self, latents: Tensor, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState | None]:
        """Latents [B, C, F, h, w], state or None at the start -> frames [B, T, H, W, 3], state."""
        ...


@dataclass(frozen=True, eq=False)
class Critic:
    """Decoder, rewards and prompt: all that turns latents into scores."""

    decoder: Decoder | None = None
    short: Reward | None = None
    long: Reward | None = None
    prompt: str = ""


def decode(
    candidates: Sequence[Candidate], critic: Critic, config: StreamConfig
) -> list[Candidate]:
    """Add frames, and the decoder's state after them; one parent's candidates in one batch."""
    if critic.decoder is None:
        return list(candidates)

    def batch(some: list[Candidate]) -> list[Candidate]:
        before = None if config.isolated else some[0].parent.decoder_state
        before = before and before.repeat(len(some))
        frames, after = critic.decoder.decode(torch.stack([c.latent for c in some]), before)
        after = None if config.isolated else after
        return [
            replace(c, frames=frames[i].cpu().clone(), decoder_state=after and after.row(i))
            for i, c in enumerate(some)
        ]

    done: list[Candidate] = []
    for (_, failed), group in groupby(candidates, lambda c: (c.parent_rank, bool(c.failure))):
        siblings = list(group)
        done += siblings if failed else in_batches(siblings, batch)
    return done


def score(
    candidates: Sequence[Candidate], chunk: int, critic: Critic, config: StreamConfig
) -> list[Candidate]:
    """Add scores, one batch per reward; a candidate whose score is not finite has failed."""
    alive = [c for c in candidates if not c.failure]
    if critic.decoder is None or not alive:
        return list(candidates)
    shorts, short_parts = _evaluate(critic.short, [c.frames for c in alive], alive, critic, config)
    spans = [_span(c, critic, config) for c in alive] if critic.long else []
    longs, long_parts = _evaluate(critic.long, spans, alive, critic, config)
    weight = search.short_weight(chunk, config.chunks, config.plan.tau)
    scored = {}
    for i, candidate in enumerate(alive):
        short, long = shorts[i], longs[i]
        parts = {f"short.{name}": values[i] for name, values in short_parts.items()}
        parts |= {f"long.{name}": values[i] for name, values in long_parts.items()}
        broken = [name for name, value in parts.items() if not torch.isfinite(torch.tensor(value))]
        scores = Scores(short, long, search.fuse(short, long, weight), parts)
        failure = f"reward not finite: {', '.join(broken)}" if broken else None
        scored[id(candidate)] = replace(candidate, scores=scores, failure=failure)
    return [scored.get(id(c), c) for c in candidates]


def video(tip: Chunk, critic: Critic, config: StreamConfig) -> tuple[Tensor, Tensor | None]:
    """The path to ``tip`` as latent [1, C, F, h, w] and frames [T, H, W, 3], trimmed."""
    path = tip.path()
    latent = torch.cat([chunk.latent for chunk in path], dim=1)[None]
    frames = None
    if critic.decoder is not None and config.isolated:
        frames = critic.decoder.decode(latent, None)[0][0].cpu()
    elif critic.decoder is not None:
        frames = torch.cat([chunk.frames for chunk in path])
    surplus = latent.shape[2] - config.latent_frames
    if surplus > 0:
        if frames is not None:
            per_latent = (len(frames) - 1) // (latent.shape[2] - 1)
            frames = frames[: len(frames) - surplus * per_latent]
        latent = latent[:, :, : config.latent_frames]
    return latent, frames


def final_score(tip: Chunk, critic: Critic, config: StreamConfig) -> float | None:
    """Long reward of a whole path; None without such a reward or where it is not finite."""
    if critic.decoder is None or critic.long is None:
        return None
    _, frames = video(tip, critic, config)
    first = tip.path()[0].frames
    clips = Clips(frames[None], first[None], critic.prompt, config.fps)
    score = evaluate(critic.long, clips)[0].item()
    return score if torch.isfinite(torch.tensor(score)) else None


def _evaluate(
    reward: Reward | None,
    clips: list[Tensor],
    candidates: list[Candidate],
    critic: Critic,
    config: StreamConfig,
) -> tuple[list[float | None], dict[str, list[float]]]:
    if reward is None:
        return [None] * len(candidates), {}
    first = torch.stack([_first_frames(c) for c in candidates])
    total, parts = evaluate(reward, Clips(torch.stack(clips), first, critic.prompt, config.fps))
    return total.tolist(), {name: values.tolist() for name, values in parts.items()}


def _first_frames(candidate: Candidate) -> Tensor:
    tip = candidate.parent.chunk
    return candidate.frames if tip is None else tip.path()[0].frames


def _span(candidate: Candidate, critic: Critic, config: StreamConfig) -> Tensor:
    """Frames [T, H, W, 3] of the candidate and the chunks before it, ``span_chunks`` in all."""
    tip = candidate.parent.chunk
    earlier = tip.path() if tip else []
    earlier = earlier[max(0, len(earlier) - config.plan.span_chunks + 1) :]
    if config.isolated:
        latent = torch.cat([*(chunk.latent for chunk in earlier), candidate.latent], dim=1)
        return critic.decoder.decode(latent[None], None)[0][0].cpu()
    return torch.cat([*(chunk.frames for chunk in earlier), candidate.frames])
