"""Make a chunk's candidates: plan who is tried, draw their noise, denoise, decode, ask the rewards.

Candidates read their parent's context and never write to it. Nothing is known here of what the
answers add up to, and of what becomes of a candidate.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from . import noise, scoring, search
from .batching import in_batches
from .budget import Allotment
from .config import StreamConfig
from .deadline import OutOfTime
from .denoise import denoise
from .early import prune_early
from .events import PrunedEarly
from .kv import Past
from .meter import Meter
from .scoring import Answers
from .state import Beam, Candidate, StreamState
from .tools import Tools
from .work import Work

DenoiseSome = Callable[[list[Candidate], range], list[Candidate]]  # latents after these steps


def plan(
    state: StreamState, config: StreamConfig, allotted: Allotment | None = None
) -> list[Candidate]:
    """Candidates of the next chunk: a parent and a seed each."""
    if allotted:
        count = allotted.candidates
    elif state.chunk == 0:
        count = config.plan.candidates
    else:
        count = config.plan.branch_factor * len(state.beams)
    branches = search.share_out(count, len(state.beams))
    parent_seeds = [beam.chunk.seed if beam.chunk else None for beam in state.beams]
    repeat_parent = config.noise is not None and not state.reseed
    seeds = search.seeds(state.chunk, parent_seeds, config.seed, branches, repeat_parent)
    tried = [(state.beams[place], seed) for place, seed in seeds]
    return [Candidate(parent, parent.rank, seed) for parent, seed in tried]


def add_noise(
    candidate: Candidate, tools: Tools, config: StreamConfig, latent_hw: tuple[int, int]
) -> Candidate:
    """Draw a candidate's random numbers; mix its first noise with its parent's."""
    shape = (tools.model.backbone.in_dim, config.frames_per_chunk, *latent_hw)
    draws = tools.draw(candidate.seed, len(config.schedule.steps), shape)
    mixed = noise.propagate(draws[0], candidate.parent.noise, config.noise)
    return replace(candidate, noise=mixed, renoise=draws[1:])


@dataclass(frozen=True, eq=False)
class Made:
    """Candidates with latents, frames and what every reward answered; those pruned before that."""

    candidates: list[Candidate] = field(repr=False)
    answers: Answers = field(repr=False)
    pruned_early: tuple[PrunedEarly, ...] = ()


def make(candidates: list[Candidate], work: Work) -> Made:
    """Denoise, decode and judge: all together, or one by one where there is a deadline."""
    tools, config, meter = work.tools, work.config, work.meter
    pasts = {parent: work.lay_out(parent.kv) for parent in {c.parent for c in candidates}}
    denoise_some = functools.partial(_denoised, work, pasts)
    if meter.deadline:
        return _one_by_one(candidates, work, denoise_some)
    todo, pruned = range(len(config.schedule.steps)), ()
    if config.plan.finished(len(candidates)) < len(candidates):
        first, todo = todo[: config.plan.early.step], todo[config.plan.early.step :]
        with meter.phase("denoise"):
            candidates = denoise_some(candidates, first)
        with meter.phase("early"):
            candidates, pruned = prune_early(candidates, work.chunk, tools.critic, config)
    with meter.phase("denoise"):
        candidates = denoise_some(candidates, todo)
    with meter.phase("decode"):
        candidates = scoring.decode(candidates, tools.critic, config)
    candidates = _as_shown(candidates, tools, meter)
    with meter.phase("score"):
        answers = scoring.ask(candidates, tools.critic, config)
    return Made(candidates, answers, pruned)


def _one_by_one(candidates: list[Candidate], work: Work, denoise_some: DenoiseSome) -> Made:
    """As many as there is time for, one that can go on at least; each is done before the next."""
    tools, config, meter = work.tools, work.config, work.meter
    made: list[Candidate] = []
    answers: list[Answers] = []
    steps = range(len(config.schedule.steps))
    try:
        for candidate in candidates:
            decodes = tools.showing.decodes(candidate) if tools.showing else 0
            meter.begin_candidate(len(steps), decodes, must=all(c.failure for c in made))
            with meter.phase("denoise"):
                one = denoise_some([candidate], steps)
            meter.next_piece()
            with meter.phase("decode"):
                one = scoring.decode(one, tools.critic, config)
            one = _as_shown(one, tools, meter)
            meter.next_piece()
            with meter.phase("score"):
                answers.append(scoring.ask(one, tools.critic, config))
            made += one
    except OutOfTime:
        pass
    return Made(made, scoring.together(answers))


def _as_shown(candidates: list[Candidate], tools: Tools, meter: Meter) -> list[Candidate]:
    """To be judged as the video's decoder makes them, where this chunk's are."""
    if tools.showing is None:
        return candidates
    with meter.phase("video"):
        return [tools.showing(c, meter.before_decode) for c in candidates]


def _denoised(
    work: Work, pasts: Mapping[Beam, Past], candidates: list[Candidate], steps: range
) -> list[Candidate]:
    """Add latents, after these steps: all candidates in one batch, or as few as memory allows."""
    config, meter, model, text = work.config, work.meter, work.tools.model, work.tools.text
    device, first_frame = model.exact_device, config.first_frame(work.chunk)

    def before_call(calls: int) -> None:
        if meter.deadline:
            model.wait()  # so that the clock tells what the last call took
            meter.next_piece()
        meter.before_call(calls)

    def batch(some: list[Candidate]) -> list[Candidate]:
        past = [pasts[c.parent] for c in some]

        def flow(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return model.flow(noisy, timesteps, first_frame, text, past)

        latents = denoise(
            flow,
            torch.stack([c.latent if steps.start else c.noise for c in some]).to(
                device, non_blocking=True
            ),
            torch.stack([c.renoise for c in some]).to(device, non_blocking=True),
            config.schedule,
            lambda: before_call(len(some)),
            steps,
        )
        return [c.with_latent(x.clone()) for c, x in zip(some, latents.cpu(), strict=True)]

    return in_batches(candidates, batch)
