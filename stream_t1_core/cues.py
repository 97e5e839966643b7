"""Cues: prompts at seconds become prompts at chunks, cross-fades spelled out.

A chunk is made under one prompt, so a prompt begins with the chunk whose start is nearest to its
second. Knows the video's layout in time; nothing of models or of where the prompts come from.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .config import StreamConfig
from .timeline import clock

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TimedPrompt:
    """A prompt that begins at a second of the video, given footage counted.

    ``rows`` [1, L, text_dim] are the text encoder's. The prompt before it is blended into it over
    ``fade_seconds``. ``keep_sinks``: see ``recache.recache``.
    """

    seconds: float
    rows: Tensor = field(repr=False)
    prompt: str = ""
    fade_seconds: float = 0.0
    keep_sinks: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.seconds < math.inf and 0 <= self.fade_seconds < math.inf):
            raise ValueError(
                f"Prompt Timeline: a prompt at second {self.seconds:g} with a fade of "
                f"{self.fade_seconds:g} s; both must be 0 or more"
            )


@dataclass(frozen=True, eq=False)
class Cue:
    """From ``first_chunk`` on: these rows [1, L, text_dim]; ``prompt`` is "" where unknown."""

    first_chunk: int
    rows: Tensor = field(repr=False)
    prompt: str
    keep_sinks: bool


def start_of(chunk: int, config: StreamConfig) -> float:
    """The second of a chunk's first pixel frame."""
    frame = config.first_frame(chunk)
    return (4 * frame - 3 if frame else 0) / config.fps


def chunk_at(seconds: float, config: StreamConfig) -> int:
    """The chunk that starts nearest to a second, the earlier of two; it may lie beyond the end."""
    frame = (seconds * config.fps + 3) / 4  # latent frames, not yet whole
    below = max(0, math.floor((frame - config.given_frames) / config.frames_per_chunk))
    return min((below, below + 1), key=lambda chunk: abs(start_of(chunk, config) - seconds))


def schedule(prompts: Sequence[TimedPrompt], config: StreamConfig) -> list[Cue]:
    """Cues in order, the first at chunk 0, of one or more prompts in any order.

    Prompts beyond the end are left out with a warning.
    """
    prompts = sorted(prompts, key=lambda prompt: prompt.seconds)
    if prompts[0].seconds > 0:
        raise ValueError(
            f"Prompt Timeline: no prompt at second 0, the first begins at "
            f"{clock(prompts[0].seconds)}; add one that begins at 0, or has no time"
        )
    chunks = [chunk_at(prompt.seconds, config) for prompt in prompts]
    used = sum(chunk < config.chunks for chunk in chunks)
    if used < len(prompts):
        log.warning(
            "Stream-T1: prompts from %s on are not used; the last chunk begins at %s",
            clock(prompts[used].seconds),
            clock(start_of(config.chunks - 1, config)),
        )
    cues: list[Cue] = []
    for i, prompt in enumerate(prompts[:used]):
        following = prompts[i + 1] if i + 1 < len(prompts) else None
        if following and chunks[i + 1] == chunks[i]:
            _check_past(prompt, following, chunks[i], config)
            continue
        cues += _fade_in(prompt, prompts[i - 1] if i else prompt, chunks[i], config)
        if following and cues[-1].first_chunk >= chunks[i + 1]:
            raise ValueError(
                f"Prompt Timeline: the prompt at {clock(prompt.seconds)} fades in over "
                f"{prompt.fade_seconds:g} s, but the next one begins at {clock(following.seconds)}"
                "; make the fade shorter, or begin the next one later"
            )
    return [cue for cue in cues if cue.first_chunk < config.chunks]  # a fade may reach beyond


def _check_past(
    prompt: TimedPrompt, following: TimedPrompt, chunk: int, config: StreamConfig
) -> None:
    """Two prompts at one chunk: fine only where the first one was for given footage."""
    if chunk == 0 and config.given_frames and prompt.seconds < following.seconds:
        return
    length = config.frames_per_chunk * 4 / config.fps
    raise ValueError(
        f"Prompt Timeline: the prompts at {clock(prompt.seconds)} and {clock(following.seconds)} "
        f"both begin with chunk {chunk + 1}, at {clock(start_of(chunk, config))}. A chunk has one "
        f"prompt: move them at least {length:g} s apart, or remove one"
    )


def _fade_in(
    prompt: TimedPrompt, before: TimedPrompt, chunk: int, config: StreamConfig
) -> list[Cue]:
    """One cue per chunk of the fade, the last one all new; a short fade is a hard switch."""
    cue = Cue(chunk, prompt.rows, prompt.prompt, prompt.keep_sinks)
    steps = max(1, chunk_at(prompt.seconds + prompt.fade_seconds, config) - chunk)
    if before is prompt or steps == 1:
        return [cue]
    old, new = _same_length(before.rows.float(), prompt.rows.float())
    faded = [
        replace(cue, first_chunk=chunk + i, rows=torch.lerp(old, new, (i + 1) / steps))
        for i in range(min(steps - 1, config.chunks - chunk))
    ]
    return [*faded, replace(cue, first_chunk=chunk + steps - 1)]


def _same_length(old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Both with zero rows at the end up to the longer one, which loses its own.

    The model pads to its length with zero rows in any case; a long fade has one tensor per chunk.
    """
    longest = max(old.shape[1], new.shape[1])
    old, new = (pad(rows, (0, 0, 0, longest - rows.shape[1])) for rows in (old, new.to(old)))
    filled = (old.ne(0) | new.ne(0)).any(dim=2).nonzero()  # (rows that are not zero, 2)
    length = int(filled[-1, 1]) + 1 if len(filled) else 1
    return old[:, :length], new[:, :length]
