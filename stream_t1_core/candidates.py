"""Make a chunk's candidates: plan who is tried, draw their noise, denoise them.

Candidates read their parent's context and never write to it. Knows beams, noise and the model; no
rewards but those that prune early, and nothing of what becomes of a candidate.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from . import noise, search
from .batching import in_batches
from .budget import Allotment
from .config import StreamConfig
from .deadline import OutOfTime
from .denoise import denoise
from .early import prune_early
from .events import PrunedEarly
from .kv import LayOut
from .meter import Meter
from .state import Candidate, StreamState
from .tools import Tools


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


def make(
    candidates: list[Candidate],
    chunk: int,
    tools: Tools,
    config: StreamConfig,
    meter: Meter,
    lay_out: LayOut,
) -> tuple[list[Candidate], tuple[PrunedEarly, ...]]:
    """Those that are made to their end, with latents, and those that are pruned before."""
    todo, pruned = range(len(config.schedule.steps)), ()
    if config.plan.finished(len(candidates)) < len(candidates) and not meter.deadline:
        first, todo = todo[: config.plan.early.step], todo[config.plan.early.step :]
        with meter.phase("denoise"):
            candidates = denoise_all(candidates, chunk, tools, config, meter, lay_out, first)
        with meter.phase("early"):
            candidates, pruned = prune_early(candidates, chunk, tools.critic, config)
    with meter.phase("denoise"):
        return denoise_all(candidates, chunk, tools, config, meter, lay_out, todo), pruned


def denoise_all(
    candidates: Sequence[Candidate],
    chunk: int,
    tools: Tools,
    config: StreamConfig,
    meter: Meter,
    lay_out: LayOut,
    steps: range,
) -> list[Candidate]:
    """Add latents, after these steps: all candidates in one batch, or as few as memory allows.

    Where there is a deadline they are made one by one, and those returned are done in time.
    """
    model, device = tools.model, tools.model.exact_device
    pasts = {parent: lay_out(parent.kv) for parent in {c.parent for c in candidates}}

    def before_step(calls: int) -> None:
        if meter.deadline:
            model.wait()  # so that the clock tells what the last call took
        meter.before_step(calls)

    def batch(some: list[Candidate]) -> list[Candidate]:
        past = [pasts[c.parent] for c in some]

        def flow(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return model.flow(noisy, timesteps, config.first_frame(chunk), tools.text, past)

        latents = denoise(
            flow,
            torch.stack([c.latent if steps.start else c.noise for c in some]).to(
                device, non_blocking=True
            ),
            torch.stack([c.renoise for c in some]).to(device, non_blocking=True),
            config.schedule,
            lambda: before_step(len(some)),
            steps,
        )
        return [c.with_latent(x.clone()) for c, x in zip(some, latents.cpu(), strict=True)]

    done: list[Candidate] = []
    try:
        for some in [[c] for c in candidates] if meter.deadline else [[*candidates]]:
            done += in_batches(some, batch)
    except OutOfTime:
        pass
    return done
