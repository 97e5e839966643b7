"""Stream-T1's chunk loop: plan, noise, denoise, decode, score, prune, commit. Read this first.

A video is made chunk by chunk. For each chunk every beam is tried several times; the candidates
are scored, the best become the next beams, and only those get the context pass that makes their
keys and values. Candidates read their parent's context and never write to it.

Source: Stream-T1 (arXiv 2605.04461); plain streaming (one beam, one branch) is LongLive.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from . import noise, scoring, search, sinks
from .batching import in_batches
from .causal_wan import CausalWan, Text
from .config import StreamConfig
from .denoise import FlowFunction, denoise
from .events import (
    CandidateReport,
    CandidatesMade,
    ChunkDone,
    Emit,
    RunDone,
    RunStarted,
    StepDone,
)
from .kv import Past, Route, live_bytes
from .rewards.mix import prompt_readers
from .scoring import Critic
from .state import Beam, Candidate, Chunk, StreamState


@dataclass(frozen=True, eq=False)
class Tools:
    """What a run works with: the model, its prompt, and what scores its chunks."""

    model: CausalWan
    text: Text = field(repr=False)
    critic: Critic = field(default_factory=Critic)
    draw: Callable[[int, int, tuple[int, int, int, int]], Tensor] = noise.draw


@dataclass(frozen=True, eq=False)
class Video:
    """The chosen path: latent [1, C, F, h, w]; frames [T, H, W, 3], or None without a decoder."""

    latent: Tensor = field(repr=False)
    frames: Tensor | None = field(repr=False)
    best_beam: int
    final_scores: tuple[float | None, ...]


def generate(
    tools: Tools, config: StreamConfig, latent_hw: tuple[int, int], emit: Emit = lambda event: None
) -> Video:
    """Make a whole video. ``latent_hw`` is the latent's height and width."""
    *_, state = stream(tools, config, latent_hw, emit)
    return finish(state, tools, config, emit)


def stream(
    tools: Tools, config: StreamConfig, latent_hw: tuple[int, int], emit: Emit = lambda event: None
) -> Iterator[StreamState]:
    """Make a video and hand out the state after every chunk. Stop asking to stop early."""
    check(tools, config, latent_hw)
    prompt = tools.critic.prompt
    emit(RunStarted(asdict(config), prompt, config.chunks, config.denoiser_calls))
    state = StreamState()
    for _ in range(config.chunks):
        state = run_chunk(state, tools, config, latent_hw, emit)
        yield state


def run_chunk(
    state: StreamState, tools: Tools, config: StreamConfig, latent_hw: tuple[int, int], emit: Emit
) -> StreamState:
    """One chunk: from the beams of ``state`` to the beams of the state returned."""
    seconds: dict[str, float] = {}
    done = state.chunk * config.denoiser_calls // config.chunks

    def before_call(calls: int) -> None:
        nonlocal done
        emit(StepDone(done))
        done += calls

    candidates = plan(state, config)
    candidates = [add_noise(c, tools, config, latent_hw) for c in candidates]
    with _timed(seconds, "denoise"):
        candidates = denoise_all(candidates, state.chunk, tools, config, before_call)
    with _timed(seconds, "decode"):
        candidates = scoring.decode(candidates, tools.critic, config)
    with _timed(seconds, "score"):
        scored = scoring.score(candidates, state.chunk, tools.critic, config, state.seen)
        candidates = [add_route(c, config) for c in scored.candidates]
    emit(CandidatesMade(state.chunk, tuple(c.frames for c in candidates)))
    kept = prune(candidates, state.chunk, config)
    reports = tuple(_report(c, kept, i) for i, c in enumerate(candidates))
    survivors = [candidates[i] for i in kept]
    seen, left_out = scored.seen, scored.left_out
    # pruned candidates hold decoder states: let them go before the context passes
    del candidates, scored
    with _timed(seconds, "commit"):
        beams = commit(survivors, state.chunk, tools, config, before_call)
    kv_bytes = live_bytes(chunk for beam in beams for chunk in beam.kv)
    sink_counts = tuple(len(beam.sinks) for beam in beams)
    emit(ChunkDone(state.chunk, reports, sink_counts, seconds, kv_bytes, left_out))
    return StreamState(state.chunk + 1, beams, seen)


def plan(state: StreamState, config: StreamConfig) -> list[Candidate]:
    """Candidates of the next chunk: a parent and a seed each."""
    parent_seeds = [beam.chunk.seed if beam.chunk else None for beam in state.beams]
    repeat_parent = config.noise is not None
    seeds = search.seeds(state.chunk, parent_seeds, config.seed, config.plan, repeat_parent)
    return [Candidate(state.beams[rank], rank, seed) for rank, seed in seeds]


def add_noise(
    candidate: Candidate, tools: Tools, config: StreamConfig, latent_hw: tuple[int, int]
) -> Candidate:
    """Draw a candidate's random numbers; mix its first noise with its parent's."""
    shape = (tools.model.backbone.in_dim, config.frames_per_chunk, *latent_hw)
    draws = tools.draw(candidate.seed, len(config.schedule.steps), shape)
    mixed = noise.propagate(draws[0], candidate.parent.noise, config.noise)
    return replace(candidate, noise=mixed, renoise=draws[1:])


def denoise_all(
    candidates: Sequence[Candidate],
    chunk: int,
    tools: Tools,
    config: StreamConfig,
    before_call: Callable[[int], None],
) -> list[Candidate]:
    """Add latents: the candidates of one parent in one batch, one parent's context at a time."""
    done: list[Candidate] = []
    for _, siblings in itertools.groupby(candidates, key=lambda c: c.parent_rank):
        group = list(siblings)
        past = tools.model.lay_out(group[0].parent.kv, tuple(group[0].noise.shape[-2:]))

        def flow(noisy: Tensor, timesteps: Tensor, past: Past = past) -> Tensor:
            first_frame = chunk * config.frames_per_chunk
            return tools.model.flow(noisy, timesteps, first_frame, tools.text, past)

        def batch(some: list[Candidate], flow: FlowFunction = flow) -> list[Candidate]:
            latents = denoise(
                flow,
                torch.stack([c.noise for c in some]),
                torch.stack([c.renoise for c in some]),
                config.schedule,
                lambda: before_call(len(some)),
            )
            return [_with_latent(c, x.clone()) for c, x in zip(some, latents, strict=True)]

        done += in_batches(group, batch)
    return done


def add_route(candidate: Candidate, config: StreamConfig) -> Candidate:
    """Decide what will become of this chunk when it leaves the window."""
    tip = candidate.parent.chunk
    if not config.memory.routing or tip is None or candidate.failure:
        return candidate
    scores = candidate.scores
    earlier = [chunk.scores.short for chunk in tip.path() if chunk.scores.short is not None]
    if None in (scores.short, scores.long, tip.scores.long) or not earlier:
        return replace(candidate, route=Route.DROP)  # a reward was left out: nothing to judge by
    route = sinks.decide(scores.short, scores.long, earlier, tip.scores.long, config.memory)
    return replace(candidate, route=route)


def prune(candidates: Sequence[Candidate], chunk: int, config: StreamConfig) -> list[int]:
    """Indices of the survivors, best first."""
    fused = [None if c.failure else c.scores.fused for c in candidates]
    kept = search.keep_best(fused, config.plan.beam_width)
    if not kept:
        reasons = "; ".join(f"seed {c.seed}: {c.failure}" for c in candidates)
        raise RuntimeError(
            f"chunk {chunk}: no candidate can go on ({reasons}). Try another seed; if it happens "
            "again, check the model's precision (bfloat16 or float32) and the rewards' inputs"
        )
    return kept


def commit(
    survivors: Sequence[Candidate],
    chunk: int,
    tools: Tools,
    config: StreamConfig,
    before_call: Callable[[int], None],
) -> tuple[Beam, ...]:
    """Make survivors permanent: context pass, then sinks and window for the next chunk."""
    memory, frames_per_chunk = config.memory, config.frames_per_chunk
    timesteps = torch.full((frames_per_chunk,), config.schedule.context_timestep)

    @functools.cache  # siblings that evict the same chunk share the blended sink
    def blend(sink, evicted):
        return sink.blend(evicted, memory.alpha)

    beams = []
    for candidate in survivors:
        before_call(1)
        parent = candidate.parent
        kv = tools.model.context_pass(
            candidate.latent[None],
            timesteps,
            chunk * frames_per_chunk,
            tools.text,
            tools.model.lay_out(parent.kv, tuple(candidate.latent.shape[-2:])),
            candidate.route,
        )
        kept = sinks.remember(parent.sinks, parent.window, kv, memory, frames_per_chunk)
        kept = sinks.make_room(*kept, memory, frames_per_chunk, blend)
        record = Chunk(
            index=chunk,
            seed=candidate.seed,
            latent=candidate.latent,
            frames=candidate.frames,
            scores=candidate.scores,
            route=candidate.route,
            parent=parent.chunk,
        )
        beams.append(Beam(record, candidate.noise, *kept, candidate.decoder_state))
    return tuple(beams)


def finish(state: StreamState, tools: Tools, config: StreamConfig, emit: Emit) -> Video:
    """Choose the best beam by the long reward of its whole video; a state cut short is fine."""
    tips = [beam.chunk for beam in state.beams]
    final = tuple(scoring.final_score(tip, tools.critic, config, state.seen) for tip in tips)
    best = search.choose(final)
    path = tips[best].path()
    emit(RunDone(final, best, tuple(c.seed for c in path), tuple(c.route for c in path)))
    latent, frames = scoring.video(tips[best], tools.critic, config)
    return Video(latent, frames, best, final)


def check(tools: Tools, config: StreamConfig, latent_hw: tuple[int, int]) -> None:
    """Find what cannot work before the first denoiser call."""
    critic = tools.critic
    _, patch_h, patch_w = tools.model.backbone.patch_size
    if latent_hw[0] % patch_h or latent_hw[1] % patch_w or min(latent_hw) < 1:
        raise ValueError(
            f"latent of {latent_hw[0]} x {latent_hw[1]}: height and width must be multiples of "
            f"{patch_h} and {patch_w} (pixels: multiples of 16 for Wan)"
        )
    if config.search and config.search.candidates > 1 and not (critic.short or critic.long):
        raise ValueError(
            "Reward Pruner: several candidates but no reward to choose by; plug one in"
        )
    for reward in filter(None, (critic.short, critic.long)):
        readers = [name for name in prompt_readers(reward) if not critic.prompt.strip()]
        if readers:
            raise ValueError(
                f"Reward Pruner: reward '{readers[0]}' reads the prompt, but the prompt text is "
                "empty; wire the text that goes into CLIP Text Encode into its prompt input too"
            )
    if (critic.short or critic.long) and critic.decoder is None:
        raise ValueError("rewards look at frames, so they need a decoder (VAE)")
    if config.memory.routing and not (critic.short and critic.long):
        raise ValueError(
            "Memory Sink: routes are decided by a short and a long reward; plug both into the "
            "Reward Pruner, or turn routing off"
        )


def _with_latent(candidate: Candidate, latent: Tensor) -> Candidate:
    finite = bool(torch.isfinite(latent).all())
    return replace(candidate, latent=latent, failure=None if finite else "latent not finite")


def _report(candidate: Candidate, kept: list[int], index: int) -> CandidateReport:
    scores = candidate.scores
    return CandidateReport(
        parent=candidate.parent_rank,
        seed=candidate.seed,
        short=scores.short,
        long=scores.long,
        fused=None if candidate.failure else scores.fused,
        parts=scores.parts,
        standard=scores.standard,
        route=candidate.route.value if candidate.route else None,
        rank=kept.index(index) if index in kept else None,
        failure=candidate.failure,
    )


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
