"""Make chunks again that an earlier run has made: nothing is denoised, nothing is scored.

Latents, seeds, scores and routes are as they were kept; decoder and context passes run again over
them, in the same batches, so that the stream goes on as if it had never stopped, bit for bit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from . import noise, scoring
from .accounts import read_back
from .commit import commit
from .config import StreamConfig
from .events import (
    BudgetReport,
    CandidateReport,
    CandidatesMade,
    ChunkDone,
    Emit,
    PrunedEarly,
    Refinement,
    SurvivorsRefined,
)
from .kv import Route
from .reel_content import StoredChunk
from .rewards.tally import Tallies, count_in
from .show import show_settled
from .state import Beam, Candidate, Scores, StreamState
from .tools import Tools
from .work import Work


@dataclass(frozen=True, eq=False)
class Replay:
    """Chunks from the first on, and who goes on after them.

    ``keep``: after these chunks only survivors of these ranks. ``picked``: of the last chunk this
    candidate alone goes on, whatever its score. ``reseed``: see ``StreamState``, for what follows.
    ``state``: what the stream was after them, where that was kept; then they are only told.
    """

    chunks: Sequence[StoredChunk] = field(default=(), repr=False)
    keep: Mapping[int, Sequence[int]] = field(default_factory=dict)
    picked: int | None = None
    reseed: bool = False
    state: StreamState | None = field(default=None, repr=False)


def tell_candidates(candidates: Sequence[Candidate], chunk: int, emit: Emit) -> None:
    """Show a chunk's candidates before the pruned are forgotten."""
    made = ((c.frames, c.latent, c.noise) for c in candidates)
    emit(CandidatesMade(chunk, *zip(*made, strict=True)))


def tell_refined(changed: Mapping[int, Candidate], chunk: int, emit: Emit) -> None:
    """Show the candidates, by index, that refining has changed, if there are any."""
    if changed:
        frames = {i: candidate.frames for i, candidate in changed.items()}
        emit(SurvivorsRefined(chunk, frames, {i: c.latent for i, c in changed.items()}))


def tell_chunk(stored: StoredChunk, emit: Emit) -> None:
    """Send a chunk's event as it was, without pictures."""
    reports = tuple(map(_report, stored.record["candidates"]))
    emit(_done(stored, reports, tuple(stored.record["sinks"]), stored.record["chosen"]))


def replay_chunk(state: StreamState, replay: Replay, work: Work) -> StreamState:
    """The next chunk as it was; events are sent as if it were made."""
    index, tools, config, emit = work.chunk, work.tools, work.config, work.emit
    stored = replay.chunks[index]
    reports = [_report(told) for told in stored.record["candidates"]]
    budget = stored.record.get("budget")
    as_shown = bool(budget and budget["allotted"].get("as_shown"))
    last = index == len(replay.chunks) - 1
    picked = replay.picked if last else None
    if picked is not None:
        reports = [replace(r, rank=0 if i == picked else None) for i, r in enumerate(reports)]
    parents = {beam.rank: beam for beam in state.beams}
    candidates = [
        _candidate(parents.get(told["parent"]), told, latent, stored.noise, tools, config, as_shown)
        for told, latent in zip(stored.record["candidates"], stored.latents, strict=True)
    ]
    candidates = scoring.decode(candidates, tools.critic, config)
    tell_candidates(candidates, index, emit)
    ranked = sorted((r.rank, i) for i, r in enumerate(reports) if r.rank is not None)
    refined = {i: candidates[i].with_latent(latent) for i, latent in stored.refined.items()}
    refined = {i: scoring.decode([c], tools.critic, config)[0] for i, c in refined.items()}
    tell_refined(refined, index, emit)
    survivors = [refined.get(i, candidates[i]) for _, i in ranked]
    beams = commit(survivors, work)
    chosen = stored.record["chosen"] if picked is None else "artist"
    done = _done(stored, tuple(reports), tuple(len(beam.sinks) for beam in beams), chosen)
    emit(done)
    spending = read_back(config, state.spending, done.budget, reports, beams)
    if index in replay.keep:
        beams = tuple(beam for beam in beams if beam.rank in replay.keep[index])
    seen = _counted(state.seen, stored.record["candidates"], as_shown)
    reseed = last and replay.reseed
    state = replace(
        state, chunk=index + 1, beams=beams, seen=seen, reseed=reseed, spending=spending
    )
    return show_settled(state, tools.decoder, tools.behind, config)


def _done(
    stored: StoredChunk,
    reports: tuple[CandidateReport, ...],
    sinks: tuple[int, ...],
    chosen: str | None,
) -> ChunkDone:
    told = {key: stored.record[key] for key in ("seconds", "kv_bytes", "left_out", "prompt")}
    budget = stored.record.get("budget")
    budget = budget and BudgetReport(**budget)
    told["pruned_early"] = tuple(
        PrunedEarly(**candidate) for candidate in stored.record.get("pruned_early", ())
    )
    return ChunkDone(stored.record["chunk"], reports, sinks, chosen=chosen, budget=budget, **told)


def _report(told: dict[str, Any]) -> CandidateReport:
    values = {key: value for key, value in told.items() if key != "kept"}
    refined = values.get("refined")
    values["refined"] = refined and Refinement(**{**refined, "standard": _pair(refined)})
    return CandidateReport(**{**values, "standard": _pair(values)})


def _pair(told: Mapping[str, Any]) -> tuple[float | None, float | None] | None:
    return told["standard"] and tuple(told["standard"])


def _candidate(
    parent: Beam | None,
    told: dict[str, Any],
    latent: Tensor,
    kept_noise: Tensor,
    tools: Tools,
    config: StreamConfig,
    as_shown: bool,
) -> Candidate:
    """``kept_noise``: of the survivors; the others' is drawn again from their seeds.

    Without a parent, whose beam a lock has ended, it is told and neither decoded nor continued.
    """
    gone, parent = parent is None, parent or Beam()
    if told["rank"] is None:
        draws = tools.draw(told["seed"], len(config.schedule.steps), tuple(latent.shape))
        first = noise.propagate(draws[0], parent.noise, config.noise)
    else:
        first = kept_noise[told["rank"]]
    failed = told["failure"] is not None
    scores = told.get("refined") or told
    return Candidate(
        parent=parent,
        parent_rank=told["parent"],
        seed=told["seed"],
        noise=first,
        latent=latent,
        scores=Scores(
            scores["short"],
            scores["long"],
            0.0 if failed else scores["fused"],
            {name: math.nan if x is None else x for name, x in scores["parts"].items()},
            _pair(scores),
            as_shown,
        ),
        route=told["route"] and Route(told["route"]),
        # as at decoding, so that the same candidates are decoded together
        failure="its beam was given up" if gone else _failure(latent, told),
    )


def _failure(latent: Tensor, told: dict[str, Any]) -> str | None:
    return None if torch.isfinite(latent).all() else told["failure"]


def _counted(seen: Tallies, told: Sequence[dict[str, Any]], as_shown: bool) -> Tallies:
    """What was seen of each reward, with this chunk's values."""
    values: dict[str, list[float]] = {}
    for candidate in told:
        for name, value in candidate["parts"].items():
            values.setdefault(name, []).append(math.nan if value is None else value)
    return count_in(seen, scoring.tallied(values, as_shown))
