"""Stream-T1's chunk loop: plan, noise, denoise, decode, score, prune, commit. Read this first.

A video is made chunk by chunk. For each chunk every beam is tried several times; the candidates
are scored, the best become the next beams, and only those get the context pass that makes their
keys and values. Candidates read their parent's context and never write to it.

Source: Stream-T1 (arXiv 2605.04461); plain streaming (one beam, one branch) is LongLive.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from . import scoring, search, sinks
from .accounts import close_chunk, open_chunk, total, with_passes, within
from .candidates import add_noise, make, plan
from .check import check
from .commit import begin, commit
from .config import StreamConfig
from .events import (
    CandidateReport,
    ChunkDone,
    Emit,
    FramesSettled,
    RunDone,
    RunStarted,
    StepDone,
)
from .kv import KVPlace, Route, live_bytes
from .meter import Meter
from .recache import recache
from .refine import refine
from .replay import Replay, replay_chunk, tell_candidates, tell_chunk, tell_refined
from .settle import hand_out, settle
from .show import Showing, as_shown, show, show_given, show_settled
from .state import Candidate, Shown, StreamState
from .tools import PromptSwitch, Tools

log = logging.getLogger(__name__)

NOTHING = Replay()


@dataclass(frozen=True, eq=False)
class Video:
    """The chosen path: latent [1, C, F, h, w]; frames [T, H, W, 3], or None without a decoder.

    Both are None where the run did not keep the whole video.
    """

    latent: Tensor | None = field(repr=False)
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
    tools: Tools,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    emit: Emit = lambda event: None,
    replay: Replay = NOTHING,
) -> Iterator[StreamState]:
    """Make a video and hand out the state after every chunk. Stop asking to stop early.

    ``replay``: chunks that an earlier run has made and this one goes on from.
    """
    check(tools, config, latent_hw)
    prompt = tools.critic.prompt
    emit(RunStarted(asdict(config), prompt, config.chunks, config.denoiser_calls))
    state = replay.state and replay.state.with_kv(tools.model.store)
    if state is None:
        state = begin(tools.start, tools.model, tools.text, config, tools.critic.decoder)
        if tools.decoder:
            state = show_given(state, tools.start, tools.decoder)
    elif (state.shown is None) != (tools.decoder is None):
        had, do = ("without", "unplug it") if state.shown is None else ("with", "plug it in")
        raise ValueError(
            f"Reel: the snapshot that this run goes on from was made {had} a scoring_vae: {do} "
            "again, or use another name"
        )
    switches = {switch.chunk: switch for switch in tools.switches}
    since = tools.clock()
    for chunk in range(config.chunks):
        tools = replace(tools, new_prompt=None)
        if chunk in switches:
            tools = tools.under(switches[chunk])
            if chunk == state.chunk:
                state = under_new_prompt(state, switches[chunk], tools, config, emit)
        if chunk < state.chunk:
            tell_chunk(replay.chunks[chunk], emit)
            if chunk + 1 == state.chunk:
                yield state
            continue
        after = None
        try:
            after = run_chunk(state, tools, config, latent_hw, emit, replay, since)
        except torch.cuda.OutOfMemoryError:
            if tools.model.kv_place is not KVPlace.DEVICE:
                raise
        if after is None:  # outside the handler, so that what the failed attempt held is free
            log.warning("Stream-T1: out of memory; keys and values go to the CPU's memory")
            tools = replace(tools, model=tools.model.with_kv_at(KVPlace.CPU))
            state = state.with_kv(tools.model.store)
            after = run_chunk(state, tools, config, latent_hw, emit, replay, since)
        since = tools.clock()
        state = settle(after, config, emit)
        yield state


def run_chunk(
    state: StreamState,
    tools: Tools,
    config: StreamConfig,
    latent_hw: tuple[int, int],
    emit: Emit,
    replay: Replay = NOTHING,
    since: float | None = None,
) -> StreamState:
    """One chunk: from the beams of ``state`` to the beams of the state returned.

    ``since``: when the chunk before was done, by the tools' clock; now, if not given.
    """
    done, end = (
        chunk * config.denoiser_calls // config.chunks for chunk in (state.chunk, state.chunk + 1)
    )
    meter = Meter(tools.clock, emit, done, end, tools.clock() if since is None else since)
    if state.chunk < len(replay.chunks):
        return replay_chunk(state, replay, tools, config, emit, meter.before_call)
    allotted = open_chunk(state, tools, config, meter)
    if allotted and not allotted.rewards:
        tools = tools.without_rewards()
    elif allotted and allotted.as_shown:
        tools = replace(tools, showing=Showing(state.shown, tools.decoder, config.plan.span_chunks))
    whole, config = config, within(config, allotted)
    candidates = plan(state, config, allotted)
    candidates = [add_noise(c, tools, config, latent_hw) for c in candidates]
    lay_out = tools.model.layout(latent_hw, config.relative(state.chunk))
    made = make(candidates, state.chunk, tools, config, meter, lay_out)
    scored = scoring.score(
        made.candidates, made.answers, state.chunk, tools.critic, config, state.seen
    )
    candidates = [add_route(c, config) for c in scored.candidates]
    told = {"left_out": scored.left_out, "prompt": tools.new_prompt}
    told["pruned_early"] = made.pruned_early
    # pruned candidates hold decoder states: let them go before the context passes
    del made
    scored = replace(scored, candidates=[])
    tell_candidates(candidates, state.chunk, emit)
    with meter.waiting():
        candidates, told["candidates"], told["chosen"] = prune(
            candidates, state.chunk, tools, config, emit
        )
    if config.refine:
        config = with_passes(config, meter.passes(config.refine.passes, len(candidates)))
        with meter.phase("refine"):
            candidates, told["candidates"] = improve(
                candidates,
                told["candidates"],
                scored,
                state.chunk,
                tools,
                config,
                emit,
                meter,
            )
    with meter.phase("commit"):
        in_time = meter.in_time(candidates)
        beams = commit(
            in_time, state.chunk, tools.model, tools.text, config, meter.before_call, lay_out
        )
    after = replace(state, chunk=state.chunk + 1, beams=beams, seen=scored.seen, reseed=False)
    if tools.decoder:
        with meter.phase("video"):
            after = show_settled(after, tools.decoder, config)
    told["candidates"] = tuple(_ranked_below(r, len(beams)) for r in told["candidates"])
    if allotted:
        spending, told["budget"] = close_chunk(
            whole, state, after, allotted, meter, told["candidates"], told["pruned_early"]
        )
        after = replace(after, spending=spending)
    told["sinks"] = tuple(len(beam.sinks) for beam in beams)
    kv_bytes = live_bytes(chunk for beam in beams for chunk in beam.wide_kv)
    emit(ChunkDone(state.chunk, seconds=meter.seconds, kv_bytes=kv_bytes, **told))
    return after


def under_new_prompt(
    state: StreamState, switch: PromptSwitch, tools: Tools, config: StreamConfig, emit: Emit
) -> StreamState:
    """Every beam's memory recomputed under the prompt that begins here."""
    beams = []
    for beam in state.beams:
        emit(StepDone(state.chunk * config.denoiser_calls // config.chunks))
        beams.append(recache(beam, tools.model, tools.text, config, switch.keep_sinks))
    return replace(state, beams=tuple(beams))


def add_route(candidate: Candidate, config: StreamConfig) -> Candidate:
    """Decide what will become of this chunk when it leaves the window."""
    tip = candidate.parent.chunk
    if not config.memory.routing or tip is None or candidate.failure:
        return candidate
    scores = candidate.scores
    total, count = tip.shorts
    alike = tip.scores.as_shown == scores.as_shown
    if None in (scores.short, scores.long, tip.scores.long) or not count or not alike:
        # given, a reward left out, or frames by another decoder: nothing to go by
        return replace(candidate, route=Route.DROP)
    route = sinks.decide(scores.short, scores.long, total / count, tip.scores.long, config.memory)
    return replace(candidate, route=route)


def prune(
    candidates: Sequence[Candidate], chunk: int, tools: Tools, config: StreamConfig, emit: Emit
) -> tuple[list[Candidate], tuple[CandidateReport, ...], str | None]:
    """Survivors, best first; what is told of all candidates; who chose, if not the scores."""
    kept, chosen = best_of(candidates, chunk, config), None
    if tools.director is not None:
        kept, chosen = tools.director(chunk, _reports(candidates, kept), kept, emit)
    return [candidates[i] for i in kept], _reports(candidates, kept), chosen


def best_of(candidates: Sequence[Candidate], chunk: int, config: StreamConfig) -> list[int]:
    """Indices of those with the best scores, best first."""
    fused = [None if c.failure else c.scores.fused for c in candidates]
    kept = search.keep_best(fused, config.plan.beam_width)
    if not kept:
        reasons = "; ".join(f"seed {c.seed}: {c.failure}" for c in candidates)
        raise RuntimeError(
            f"chunk {chunk}: no candidate can go on ({reasons}). Try another seed; if it happens "
            "again, check the model's precision (bfloat16 or float32) and the rewards' inputs"
        )
    return kept


def improve(
    survivors: Sequence[Candidate],
    reports: Sequence[CandidateReport],
    scored: scoring.Scoring,
    chunk: int,
    tools: Tools,
    config: StreamConfig,
    emit: Emit,
    meter: Meter,
) -> tuple[list[Candidate], tuple[CandidateReport, ...]]:
    """Survivors refined, in their order; what is told of all candidates then."""
    video = ("video",) if tools.showing else ()

    def before_call(calls: int) -> None:
        if meter.deadline:
            tools.model.wait()
        meter.refining("denoise", "decode", *video, "score")
        meter.before_call(calls)

    def judge(candidate: Candidate) -> Candidate:
        meter.refining("decode", *video, "score")
        [candidate] = scoring.decode([candidate], tools.critic, config)
        if tools.showing:
            candidate = tools.showing(candidate, lambda: meter.refining("video", "score"))
        meter.refining("score")
        candidate = scoring.score_again(candidate, chunk, tools.critic, config, scored)
        return add_route(candidate, config)

    refined = refine(survivors, chunk, tools, config, judge, before_call)
    by_index = {i: refined[r.rank] for i, r in enumerate(reports) if r.rank is not None}
    changed = {i: r.candidate for i, r in by_index.items() if r.told and r.told.accepted}
    tell_refined(changed, chunk, emit)
    told = list(reports)
    for i, after in by_index.items():
        route = after.candidate.route
        told[i] = replace(told[i], refined=after.told, route=route.value if route else None)
    return [after.candidate for after in refined], tuple(told)


def finish(state: StreamState, tools: Tools, config: StreamConfig, emit: Emit) -> Video:
    """Choose the best beam by the long reward of its whole video; a state cut short is fine."""
    critic = tools.critic_at(state.chunk - 1)
    tips = {beam.rank: beam.chunk for beam in state.beams}
    ends: dict[int, Shown] = {}
    if all(tip.scores.as_shown for tip in tips.values()):  # as the last chunk's candidates were
        ends = {rank: show(state.shown, tip, tools.decoder) for rank, tip in tips.items()}
    scores = {}
    for rank, tip in tips.items():
        judged = as_shown(ends[rank], tip.path()) if ends else None
        scores[rank] = scoring.final_score(tip, critic, config, state.seen, judged)
    best = [*tips][search.choose([*scores.values()])]
    final = tuple(scores.get(rank) for rank in range(max(scores) + 1))
    latent, frames = (None, None)
    shown, decoder = state.shown, tools.decoder or critic.decoder
    if shown and not config.isolated:
        shown = ends.get(best) or show(shown, tips[best], decoder)
    if config.whole:
        latent, frames = scoring.video(tips[best], decoder, config, shown)
    if config.isolated:
        emit(FramesSettled(0, latent[0], frames))
    else:
        hand_out(tips[best], state.settled, config, emit, shown)
    path = [chunk for chunk in tips[best].path() if chunk.seed is not None]
    seeds, routes = tuple(c.seed for c in path), tuple(c.route for c in path)
    emit(RunDone(final, best, seeds, routes, total(config, state.spending)))
    return Video(latent, frames, best, final)


def _ranked_below(report: CandidateReport, beams: int) -> CandidateReport:
    """The report of a candidate that was kept only if there was time to commit it."""
    kept = report.rank is not None and report.rank < beams
    return report if kept else replace(report, rank=None)


def _reports(candidates: Sequence[Candidate], kept: list[int]) -> tuple[CandidateReport, ...]:
    return tuple(_report(c, kept, i) for i, c in enumerate(candidates))


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
