"""Decode candidates to frames and score them: short reward on the chunk, long on its past too.

The decoder's causal state is carried from chunk to chunk, so each chunk is decoded once and the
long reward reuses earlier frames. ``isolated`` decodes as the released code does instead.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Protocol

import torch
from torch import Tensor

from . import search
from .batching import in_batches
from .config import StreamConfig
from .rewards.base import Footage, Piece, Reward
from .rewards.mix import Errors, Part, judge
from .rewards.tally import Tallies, count_in
from .settle import footage
from .state import AsShown, Candidate, Chunk, Scores, Shown

log = logging.getLogger(__name__)

KINDS = ("short", "long")
AS_SHOWN = "as shown: "  # before a reward's name, in tallies of frames by the video's decoder
Answers = Mapping[str, Part]  # of single rewards by name, KIND.NAME


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
    """Decoder, rewards and prompt: all that turns latents into scores.

    ``decoder`` makes the frames that candidates are judged and shown by. They are the video's too,
    unless that has a decoder of its own (``Tools.decoder``), by whose frames a candidate is judged
    that has them (``Candidate.as_shown``).
    """

    decoder: Decoder | None = None
    short: Reward | None = None
    long: Reward | None = None
    prompt: str = ""
    fatal: Errors = ()  # errors that end the run when a reward raises them, such as a host's Cancel


def decode(
    candidates: Sequence[Candidate], critic: Critic, config: StreamConfig
) -> list[Candidate]:
    """Add frames, and the decoder's state after them; one parent's candidates in one batch.

    Frames stay where the decoder leaves them, for rewards to read them there.
    """
    if critic.decoder is None:
        return list(candidates)

    def batch(some: list[Candidate]) -> list[Candidate]:
        before = None if config.isolated else some[0].parent.decoder_state
        before = before and before.repeat(len(some))
        frames, after = critic.decoder.decode(torch.stack([c.latent for c in some]), before)
        if frames.is_cuda:  # so that the clock tells what decoding took
            torch.cuda.synchronize(frames.device)
        after = None if config.isolated else after
        return [
            replace(c, piece=Piece(frames[i].clone()), decoder_state=after and after.row(i))
            for i, c in enumerate(some)
        ]

    done: list[Candidate] = []
    for (_, failed), group in groupby(candidates, lambda c: (c.parent_rank, bool(c.failure))):
        siblings = list(group)
        done += siblings if failed else in_batches(siblings, batch)
    return done


@dataclass(frozen=True, eq=False)
class Scoring:
    """What scoring a chunk gives: candidates with scores, and what is known of the rewards now."""

    candidates: list[Candidate]
    seen: Tallies
    left_out: dict[str, str] = field(default_factory=dict)  # rewards without a number, and why


def ask(candidates: Sequence[Candidate], critic: Critic, config: StreamConfig) -> Answers:
    """What every reward says of the candidates that have not failed, one batch per reward."""
    alive = [c for c in candidates if not c.failure]
    return _parts(alive, critic, config) if critic.decoder and alive else {}


def together(answers: Sequence[Answers]) -> Answers:
    """Answers to one candidate after the other, as if they had been asked at once."""
    asked = [parts for parts in answers if parts]
    return {
        name: Part(
            part.weight,
            torch.cat([parts[name].values for parts in asked]),
            next((parts[name].error for parts in asked if parts[name].error), None),
        )
        for name, part in (asked[0] if asked else {}).items()
    }


def score(
    candidates: Sequence[Candidate],
    parts: Answers,
    chunk: int,
    critic: Critic,
    config: StreamConfig,
    seen: Tallies,
) -> Scoring:
    """Add up what rewards answered; a candidate whose score is not finite has failed."""
    alive = [c for c in candidates if not c.failure]
    if critic.decoder is None or not alive:
        return Scoring(list(candidates), seen)
    if config.plan.strict:
        _check_all(parts, f"chunk {chunk + 1}")
    as_shown = alive[0].as_shown is not None
    values = {name: part.values.tolist() for name, part in parts.items()}
    seen = count_in(seen, tallied(values, as_shown))
    used = {name: part for name, part in parts.items() if torch.isfinite(part.values).any()}
    left_out = {
        name: part.error or "not a finite number for any candidate"
        for name, part in parts.items()
        if name not in used
    }
    for name, reason in left_out.items():
        log.warning("Stream-T1: chunk %d is scored without reward '%s': %s", chunk, name, reason)
    own = _of_decoder(seen, as_shown)
    scored = {id(c): _scored(c, i, parts, used, chunk, config, own) for i, c in enumerate(alive)}
    return Scoring([scored.get(id(c), c) for c in candidates], seen, left_out)


def early_scores(
    candidates: Sequence[Candidate], chunk: int, critic: Critic, config: StreamConfig
) -> list[float | None]:
    """Short reward of unfinished candidates as they look; None where there is no number.

    Standardised, if rewards are, over these candidates alone: the finished ones look different.
    """
    decoded = decode(candidates, critic, config)
    alive = [c for c in decoded if not c.failure]
    pieces = [[c.piece] for c in alive]
    parts = _judge("short", critic.short, pieces, alive, critic, config) if alive else {}
    if config.plan.strict:
        _check_all(parts, f"unfinished candidates of chunk {chunk + 1}")
    used = {name: part for name, part in parts.items() if torch.isfinite(part.values).any()}
    seen = count_in({}, {name: part.values.tolist() for name, part in used.items()})
    totals = {
        id(c): _total(used, "short", i, seen if config.plan.standardise else None)
        for i, c in enumerate(alive)
    }
    found = [totals.get(id(c)) for c in decoded]
    return [x if x is not None and math.isfinite(x) else None for x in found]


def score_again(
    candidate: Candidate,
    chunk: int,
    critic: Critic,
    config: StreamConfig,
    seen: Tallies,
    left_out: Collection[str],
) -> Candidate:
    """Score another version of a candidate as those of its chunk were; it is not counted in."""
    if candidate.failure:
        return candidate
    parts = _parts([candidate], critic, config)
    if config.plan.strict:
        _check_all(parts, f"a refined survivor of chunk {chunk + 1}")
    used = {name: part for name, part in parts.items() if name not in left_out}
    own = _of_decoder(seen, candidate.as_shown is not None)
    return _scored(candidate, 0, parts, used, chunk, config, own)


def tallied(values: Mapping[str, list[float]], as_shown: bool) -> Mapping[str, list[float]]:
    """The same under the names that tallies have, by the decoder that made the frames."""
    return {AS_SHOWN + name: value for name, value in values.items()} if as_shown else values


def video(
    tip: Chunk, decoder: Decoder | None, config: StreamConfig, shown: Shown | None = None
) -> tuple[Tensor, Tensor | None]:
    """The path to ``tip`` as latent [1, C, F, h, w] and frames [T, H, W, 3], trimmed."""
    path = tip.path()
    latent = torch.cat([footage(chunk, config)[0] for chunk in path], dim=1)[None]
    if decoder is None:
        return latent, None
    shown_path = [chunk for chunk in path if chunk.seed is None] if config.isolated else path
    frames = [footage(chunk, config, shown)[1] for chunk in shown_path]
    if config.isolated:
        decoded = decoder.decode(latent, None)[0][0].cpu()
        frames.append(decoded[sum(map(len, frames)) :])
    return latent, torch.cat(frames)


def final_score(
    tip: Chunk,
    critic: Critic,
    config: StreamConfig,
    seen: Tallies,
    as_shown: AsShown | None = None,
) -> float | None:
    """Long reward of a whole path; None without such a reward or where it is not finite.

    ``as_shown``: the path by the video's decoder, if it is to be judged by that.
    """
    if critic.decoder is None or critic.long is None:
        return None
    pieces, opening = [c.piece for c in tip.path()], tip.opening
    if as_shown:
        pieces, opening = [*as_shown.pieces], as_shown.opening
    elif config.isolated:
        pieces = [Piece(video(tip, critic.decoder, config)[1])]
    clip = Footage([pieces], [opening], critic.prompt, config.fps)
    parts = judge(critic.long, clip, critic.fatal)
    named = {f"long.{name}": part for name, part in parts.items()}
    if config.plan.strict:
        _check_all(named, "the whole video")
    own = _of_decoder(seen, as_shown is not None)
    total = _total(named, "long", 0, own if config.plan.standardise else None)
    return total if math.isfinite(total) else None


def _parts(candidates: list[Candidate], critic: Critic, config: StreamConfig) -> Answers:
    parts = _judge(
        "short", critic.short, [[c.judged] for c in candidates], candidates, critic, config
    )
    spans = [_span(c, critic, config) for c in candidates] if critic.long else []
    parts |= _judge("long", critic.long, spans, candidates, critic, config)
    return parts


def _of_decoder(seen: Tallies, as_shown: bool) -> Tallies:
    """What was seen of one decoder's frames, by the rewards' own names."""
    return {
        name.removeprefix(AS_SHOWN): tally
        for name, tally in seen.items()
        if name.startswith(AS_SHOWN) == as_shown
    }


def _scored(
    candidate: Candidate,
    index: int,
    parts: Mapping[str, Part],
    used: Mapping[str, Part],
    chunk: int,
    config: StreamConfig,
    seen: Tallies,
) -> Candidate:
    """A candidate with its scores: it stands at ``index`` in the answers, which ``used`` count."""
    short, long = (_total(used, kind, index) for kind in KINDS)
    standard = None
    if config.plan.standardise:
        standard = tuple(_total(used, kind, index, seen) for kind in KINDS)
    weight = search.short_weight(chunk, config.chunks, config.plan.tau)
    values = {name: part.values[index].item() for name, part in parts.items()}
    fused = search.fuse(*(standard or (short, long)), weight)
    as_shown = candidate.as_shown is not None
    scores = Scores(short, long, fused, values, standard, as_shown)
    failure = _failure({name: used[name] for name in used if not math.isfinite(values[name])})
    return replace(candidate, scores=scores, failure=failure)


def _judge(
    kind: str,
    reward: Reward | None,
    pieces: list[list[Piece]],
    candidates: list[Candidate],
    critic: Critic,
    config: StreamConfig,
) -> Answers:
    if reward is None:
        return {}
    firsts = [_first_frames(c) for c in candidates]
    clips = Footage(pieces, firsts, critic.prompt, config.fps)
    parts = judge(reward, clips, critic.fatal)
    return {f"{kind}.{name}": part for name, part in parts.items()}


def _check_all(parts: Mapping[str, Part], where: str) -> None:
    """Strict: every reward has a number for every candidate."""
    for name, part in parts.items():
        missing = [
            i + 1 for i, value in enumerate(part.values.tolist()) if not math.isfinite(value)
        ]
        if missing:
            raise RuntimeError(
                f"Reward Pruner: reward '{name}' failed on {where}, candidate "
                f"{', '.join(map(str, missing))}: {part.error or 'not a finite number'}. Turn off "
                "'strict' to go on without it"
            )


def _total(
    parts: Mapping[str, Part], kind: str, index: int, seen: Tallies | None = None
) -> float | None:
    """Weighted sum of one candidate's rewards of a kind, as they are or standardised."""
    terms = []
    for name, part in parts.items():
        if name.startswith(f"{kind}."):
            value = part.values[index].item()
            terms.append(part.weight * (seen[name].standardise(value) if seen else value))
    return sum(terms) if terms else None


def _failure(broken: Mapping[str, Part]) -> str | None:
    """Why a candidate cannot win that these rewards have no number for."""
    if not broken:
        return None
    reasons = [f"{name} ({part.error})" if part.error else name for name, part in broken.items()]
    return f"reward not finite: {', '.join(reasons)}"


def _first_frames(candidate: Candidate) -> Tensor:
    if candidate.as_shown:
        return candidate.as_shown.opening
    tip = candidate.parent.chunk
    return candidate.frames if tip is None else tip.opening


def _span(candidate: Candidate, critic: Critic, config: StreamConfig) -> list[Piece]:
    """Frames of the candidate and the chunks before it, ``span_chunks`` in all."""
    if candidate.as_shown:
        return [*candidate.as_shown.pieces]
    tip = candidate.parent.chunk
    earlier = [*islice(tip.ancestors() if tip else (), config.plan.span_chunks - 1)][::-1]
    if config.isolated:
        latent = torch.cat([*(chunk.latent for chunk in earlier), candidate.latent], dim=1)
        return [Piece(critic.decoder.decode(latent[None], None)[0][0].cpu())]
    return [*(chunk.piece for chunk in earlier), candidate.piece]
