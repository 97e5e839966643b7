"""The refiner: after pruning, make a survivor's clean latent anew from a little noise, if better.

A pass noises and denoises the latent (how: ``config.Refine``) and counts only where the fused score
does not fall. All survivors are refined, not the winner alone: the path that wins in the end often
goes through others, and a score raised for one of them only would decide the next pruning. Their
order stays what pruning made it. This file knows neither frames nor rewards: it is handed a judge.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .batching import in_batches
from .config import StreamConfig
from .deadline import OutOfTime
from .denoise import FlowFunction, add_noise, denoise, sigma_of, warped_timesteps
from .events import Refinement
from .state import Candidate, Scores
from .tools import Tools
from .work import Work

GAINED = ("short", "long", "fused")
Judge = Callable[[Candidate], Candidate]  # decoded, scored, with its route; failed if it cannot be


@dataclass(frozen=True, eq=False)
class Refined:
    """A survivor as it goes on, and what became of its passes; None: there were none."""

    candidate: Candidate = field(repr=False)
    told: Refinement | None


def refine(
    survivors: Sequence[Candidate], work: Work, judge: Judge, before_call: Callable[[int], None]
) -> list[Refined]:
    """Every survivor after its passes, one after the other."""
    return [_refined(c, work, judge, before_call) for c in survivors]


def seed_of(seed: int, chunk: int, number: int, member: int) -> int:
    """Seed of one denoising of a pass: no candidate's, and no other pass's."""
    digest = hashlib.sha256(f"refine {seed} {chunk} {number} {member}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # below 2^63


def vote(latents: Tensor, how: str) -> Tensor:
    """One latent [C, F, h, w] of many [n, C, F, h, w]: their mean, or the one nearest to all."""
    if how == "mean":
        return latents.mean(dim=0)
    flat = latents.flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")  # (n, n)
    return latents[int(distances.sum(dim=1).argmin())].clone()


def _refined(
    candidate: Candidate, work: Work, judge: Judge, before_call: Callable[[int], None]
) -> Refined:
    tools, config = work.tools, work.config
    most, tried, accepted, before = config.refine.passes, 0, 0, candidate.scores
    if not most or before.short is None and before.long is None:
        return Refined(candidate, None)  # no reward had a number: nothing to accept by
    past, first_frame = work.lay_out(candidate.parent.wide_kv), config.first_frame(work.chunk)

    def flow(noisy: Tensor, timesteps: Tensor) -> Tensor:
        return tools.model.flow(noisy, timesteps, first_frame, tools.text, past)

    for number in range(most):
        seeds = [seed_of(candidate.seed, work.chunk, number, i) for i in range(config.refine.tries)]
        try:
            latents = _made_anew(candidate.latent, seeds, flow, tools, config, before_call)
            made = judge(candidate.with_latent(vote(torch.stack(latents), config.refine.vote)))
        except OutOfTime:
            break
        tried += 1
        if not made.failure and _standing(made) >= _standing(candidate):
            candidate, accepted = made, accepted + 1
    scores = candidate.scores
    told = Refinement(
        tried,
        accepted,
        scores.short,
        scores.long,
        scores.fused,
        scores.parts,
        scores.standard,
        _gain(before, scores),
    )
    return Refined(candidate, told)


def _gain(before: Scores, after: Scores) -> dict[str, float | None]:
    """What each score rose by; None where there is none."""
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in GAINED}
    return {name: None if None in pair else pair[1] - pair[0] for name, pair in pairs.items()}


def _standing(candidate: Candidate) -> tuple[float, float]:
    """What passes are compared by: the fused score, and of equals the plain ones.

    Standardised scores are equal as long as a run has seen one value of each reward only.
    """
    scores = candidate.scores
    return scores.fused, (scores.short or 0.0) + (scores.long or 0.0)


def _made_anew(
    clean: Tensor,
    seeds: list[int],
    flow: FlowFunction,
    tools: Tools,
    config: StreamConfig,
    before_call: Callable[[int], None],
) -> list[Tensor]:
    """The latent [C, F, h, w] noised and denoised again, once for each seed."""
    schedule = config.refine.schedule(config.schedule)
    first = sigma_of(warped_timesteps(schedule)[:1], schedule.shift)  # (1,)
    device = tools.model.exact_device

    def batch(some: list[int]) -> list[Tensor]:
        draws = [tools.draw(seed, len(schedule.steps), tuple(clean.shape)) for seed in some]
        drawn = torch.stack(draws)  # (n, steps, C, F, h, w)
        noisy = add_noise(clean, drawn[:, 0], first)
        begun = (tensor.to(device, non_blocking=True) for tensor in (noisy, drawn[:, 1:]))
        return [*denoise(flow, *begun, schedule, lambda: before_call(len(some))).cpu()]

    return in_batches(seeds, batch)
