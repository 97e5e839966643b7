"""Score a finished video, whoever made it: every reward on the whole of it and on each chunk.

It knows frames and rewards, as the search does, and uses the same functions; it knows no model and
no latents. Of a reward that is a mix every single reward is told by itself.

A chunk is a run of pixel frames: the first ``first_frames``, then ``chunk_frames`` each, the last
what is left. Wan's VAE makes 4 pixel frames of a latent frame, but 1 of the very first, so three
latent frames a chunk are 9 and then 12: the defaults cut a video where the sampler put it together.

JSON, version 1: ``frames``, ``fps``, ``prompt``; ``chunks``, each with ``start`` (frame, from 0)
and ``frames``; ``rewards``, each with ``name``, ``weight``, ``video`` (score of the whole),
``chunks`` (scores in order) and ``error`` (why a score is missing, or null); ``total``, the
weighted sum, with ``video`` and ``chunks``. A score that is missing or not finite is null, and so
is a total that it is in.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from .rewards.base import Footage, Piece, Reward
from .rewards.mix import judge, named_terms, prompt_readers

VERSION = 1
FIRST_FRAMES, CHUNK_FRAMES = 9, 12

Progress = Callable[[int, int], None]  # parts of the video scored, and their number


@dataclass(frozen=True)
class Marks:
    """One reward's scores in its own unit; NaN where it has none."""

    name: str
    weight: float
    video: float
    chunks: tuple[float, ...]
    error: str | None = None  # the first, and where it happened


@dataclass(frozen=True)
class Evaluation:
    """What is known of a video."""

    prompt: str
    fps: float
    lengths: tuple[int, ...]  # pixel frames of each chunk
    marks: tuple[Marks, ...]

    @property
    def starts(self) -> list[int]:
        """The first pixel frame of each chunk."""
        return [sum(self.lengths[:i]) for i in range(len(self.lengths))]

    @property
    def total(self) -> Marks:
        """The weighted sum of all rewards."""
        chunks = tuple(
            sum(m.weight * m.chunks[i] for m in self.marks) for i in range(len(self.lengths))
        )
        return Marks("total", 1.0, sum(m.weight * m.video for m in self.marks), chunks)

    def to_json(self) -> str:
        """See the top of this file."""
        record = {
            "version": VERSION,
            "frames": sum(self.lengths),
            "fps": self.fps,
            "prompt": self.prompt,
            "chunks": [
                {"start": start, "frames": length}
                for start, length in zip(self.starts, self.lengths, strict=True)
            ],
            "rewards": [
                {"name": m.name, "weight": m.weight, **_scores(m), "error": m.error}
                for m in self.marks
            ],
            "total": _scores(self.total),
        }
        return json.dumps(record, allow_nan=False)

    def table(self) -> str:
        """Markdown that also reads as plain text: a column for each reward, a row for each part."""
        columns = [*self.marks, self.total] if len(self.marks) > 1 else [*self.marks]
        weights = [f"{m.weight:g}" for m in self.marks] + [""] * (len(columns) - len(self.marks))
        rows = [
            ["", "frames", *(m.name for m in columns)],
            ["weight", "", *weights],
            ["video", f"0-{sum(self.lengths) - 1}", *(_shown(m.video) for m in columns)],
        ]
        for i, (start, length) in enumerate(zip(self.starts, self.lengths, strict=True)):
            scores = (_shown(m.chunks[i]) for m in columns)
            rows.append([f"chunk {i + 1}", f"{start}-{start + length - 1}", *scores])
        errors = [f"- {m.name}: {m.error}" for m in self.marks if m.error]
        return "\n".join([*_aligned(rows), *(["", "Missing scores:", *errors] if errors else [])])


def evaluate(
    frames: Tensor,
    reward: Reward,
    prompt: str = "",
    fps: float = 16.0,
    chunk_frames: int = CHUNK_FRAMES,
    first_frames: int = FIRST_FRAMES,
    progress: Progress | None = None,
) -> Evaluation:
    """Score ``frames`` [T, H, W, 3] in 0..1 by every single reward in ``reward``.

    A reward that fails is told with its error and has no score there; the others go on.
    ``progress`` may raise to stop. Raises ValueError for what cannot be scored at all.
    """
    _check(frames, reward, prompt, fps, (first_frames, chunk_frames))
    lengths = chunk_lengths(len(frames), chunk_frames, first_frames)
    pieces = frames.split(lengths)
    parts = {"the whole video": frames}
    parts |= {f"chunk {i}": piece for i, piece in enumerate(pieces, 1)}
    found = []
    for done, part in enumerate(parts.values()):
        if progress:
            progress(done, len(parts))
        found.append(judge(reward, Footage([[Piece(part)]], [pieces[0]], prompt, fps)))
    if progress:
        progress(len(parts), len(parts))
    marks = []
    for name, (weight, _) in named_terms(reward).items():
        whole, *chunks = (by_name[name].values.item() for by_name in found)
        errors = [
            f"{where}: {by_name[name].error or 'not a finite number'}"
            for where, by_name in zip(parts, found, strict=True)
            if not math.isfinite(by_name[name].values.item())
        ]
        marks.append(Marks(name, weight, whole, tuple(chunks), errors[0] if errors else None))
    return Evaluation(prompt, fps, tuple(lengths), tuple(marks))


def chunk_lengths(total: int, chunk_frames: int, first_frames: int) -> list[int]:
    """Pixel frames of each chunk of a video of ``total``: 33, 12, 9 gives 9, 12, 12."""
    first = min(first_frames, total)
    whole, rest = divmod(total - first, chunk_frames)
    return [first, *whole * [chunk_frames], *([rest] if rest else [])]


def _check(
    frames: Tensor, reward: Reward, prompt: str, fps: float, lengths: tuple[int, int]
) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"video of shape {list(frames.shape)}: give [frames, height, width, 3], RGB from 0 to "
            "1, with at least one frame"
        )
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"frame rate {fps}: give frames a second, above 0 (LongLive: 16)")
    if min(lengths) < 1:
        raise ValueError(
            f"chunks of {lengths[0]}, then {lengths[1]} pixel frames: give 1 or more (the "
            f"sampler's: {FIRST_FRAMES}, then {CHUNK_FRAMES})"
        )
    readers = prompt_readers(reward)
    if readers and not prompt.strip():
        raise ValueError(
            f"reward '{readers[0]}' reads the prompt, but the prompt text is empty: give the text "
            "that the video was made from"
        )


def _scores(marks: Marks) -> dict[str, float | None | list[float | None]]:
    return {"video": _finite(marks.video), "chunks": [_finite(score) for score in marks.chunks]}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table: the first row is its head, the first column is text."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    rule = " | ".join(["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return [f"| {line} |" for line in (lines[0], rule, *lines[1:])]


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None


def _shown(score: float) -> str:
    return f"{score:.4g}" if math.isfinite(score) else "-"
