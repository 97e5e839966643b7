"""What a run tells while it runs: small records handed to ``emit``.

``StepDone`` moves a progress bar and ``CandidatesMade`` has pictures to show. The others, written
one JSON object a line, are the report: see ``report.py`` for the schema.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class RunStarted:
    settings: dict[str, Any]
    prompt: str  # the text that rewards read; empty without one
    chunks: int
    denoiser_calls: int


@dataclass(frozen=True)
class StepDone:
    """``done`` of ``denoiser_calls`` calls are made. Sent before each call; may raise to cancel."""

    done: int


@dataclass(frozen=True, eq=False)
class CandidatesMade:
    """Frames of a chunk's candidates, in the order tried; sent before the pruned are forgotten."""

    chunk: int
    frames: tuple[Tensor | None, ...] = field(repr=False)  # [T, H, W, 3] each; None: not decoded


@dataclass(frozen=True)
class CandidateReport:
    """One candidate of one chunk, in the order they were tried."""

    parent: int  # rank of the parent beam
    seed: int
    short: float | None
    long: float | None
    fused: float | None
    parts: dict[str, float]
    route: str | None
    rank: int | None  # place among the survivors, 0 is best; None if pruned
    failure: str | None
    standard: tuple[float | None, float | None] | None = None  # short and long, if standardised


@dataclass(frozen=True, eq=False)
class ChunkDone:
    chunk: int
    candidates: tuple[CandidateReport, ...]
    sinks: tuple[int, ...]  # sinks of each surviving beam, best first
    seconds: dict[str, float]
    kv_bytes: int
    left_out: dict[str, str] = field(default_factory=dict)  # rewards that failed, and how


@dataclass(frozen=True)
class RunDone:
    final_scores: tuple[float | None, ...]  # of the surviving beams, best last chunk first
    best_beam: int
    seeds: tuple[int, ...]  # of the chosen path, by chunk
    routes: tuple[str | None, ...]


Event = RunStarted | StepDone | CandidatesMade | ChunkDone | RunDone
Emit = Callable[[Event], None]
