"""Stream-T1's chunk loop: plan, noise, denoise, decode, score, prune, refine, commit. Begin here.

A video is made chunk by chunk. For each chunk every beam is tried several times; the candidates
are scored, the best become the next beams, and only those get the context pass that makes their
keys and values. Candidates read their parent's context and never write to it.

Source: Stream-T1 (arXiv 2605.04461); plain streaming (one beam, one branch) is LongLive.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch

from .accounts import close_chunk, open_chunk, within
from .budget import Allotment
from .candidates import add_noise, make, plan
from .check import check
from .commit import begin, commit
from .config import StreamConfig
from .events import ChunkDone, Emit, RunStarted, StepDone
from .finish import Video, finish
from .improve import improve
from .kv import KVPlace, live_bytes
from .prune import Pruned, prune
from .recache import recache
from .replay import Replay, replay_chunk, tell_candidates, tell_chunk
from .scoring import score
from .settle import settle
from .show import show_given, show_settled
from .state import StreamState
from .tools import Tools
from .work import Work, begin_chunk

log = logging.getLogger(__name__)

NOTHING = Replay()


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
        tools = replace(tools, switch=None, new_prompt=None)
        if chunk in switches:
            tools = tools.under(switches[chunk])
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
    opened = begin_chunk(state.chunk, latent_hw, tools, config, emit, since)
    if tools.switch:
        state = under_new_prompt(state, tools, config, emit)
    if state.chunk < len(replay.chunks):
        return replay_chunk(state, replay, opened)
    allotted = open_chunk(state, opened)
    work = within(opened, state, allotted)
    pruned = search_chunk(state, work, allotted)
    if config.refine:
        pruned = improve(pruned, work)
    with work.meter.phase("commit"):
        beams = commit(work.meter.in_time(pruned.survivors), work)
    after = replace(state, chunk=state.chunk + 1, beams=beams, seen=pruned.seen, reseed=False)
    if tools.decoder:
        with work.meter.phase("video"):
            after = show_settled(after, tools.decoder, tools.behind, config)
    reports, spent = pruned.told_of(len(beams)), None
    if allotted:
        spending, spent = close_chunk(opened, state, after, allotted, reports, pruned.early)
        after = replace(after, spending=spending)
    done = ChunkDone(
        state.chunk,
        reports,
        sinks=tuple(len(beam.sinks) for beam in beams),
        seconds=work.meter.seconds,
        kv_bytes=live_bytes(chunk for beam in beams for chunk in beam.wide_kv),
        left_out=pruned.left_out,
        prompt=tools.new_prompt,
        chosen=pruned.chosen,
        budget=spent,
        pruned_early=pruned.early,
    )
    emit(done)
    return after


def search_chunk(state: StreamState, work: Work, allotted: Allotment | None) -> Pruned:
    """Try candidates and prune them. What the pruned held is free before the context passes."""
    planned = plan(state, work.config, allotted)
    planned = [add_noise(c, work.tools, work.config, work.latent_hw) for c in planned]
    made = make(planned, work)
    critic = work.tools.critic
    scored = score(made.candidates, made.answers, work.chunk, critic, work.config, state.seen)
    tell_candidates(scored.candidates, work.chunk, work.emit)
    return prune(scored, made.pruned_early, work)


def under_new_prompt(
    state: StreamState, tools: Tools, config: StreamConfig, emit: Emit
) -> StreamState:
    """Every beam's memory recomputed under the prompt that begins here."""
    beams = []
    for beam in state.beams:
        emit(StepDone(state.chunk * config.denoiser_calls // config.chunks))
        beams.append(recache(beam, tools.model, tools.text, config, tools.switch.keep_sinks))
    return replace(state, beams=tuple(beams))
