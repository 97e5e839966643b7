"""What a run tells while it runs: small records handed to ``emit``.

``StepDone`` moves a progress bar, ``CandidatesMade`` and ``SurvivorsRefined`` have pictures to show
and ``FramesSettled`` the video as it grows. The others, written one JSON object a line, are the
report: see ``report.py`` for the schema.
"""

from collections.abc import Callable, Mapping
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
    """A chunk's candidates, in the order tried; sent before the pruned are forgotten."""

    chunk: int
    frames: tuple[Tensor | None, ...] = field(repr=False)  # [T, H, W, 3] each; None: not decoded
    latents: tuple[Tensor, ...] = field(repr=False)  # [C, F, h, w] each
    noise: tuple[Tensor, ...] = field(repr=False)  # [C, F, h, w] each, as the denoiser began


@dataclass(frozen=True)
class Refinement:
    """What refining a survivor came to: passes, and the scores of the chunk that goes on.

    ``gain`` is what ``short``, ``long`` and ``fused`` rose by, None where there was none. Where
    rewards are standardised, that of ``fused`` is in standard deviations of the candidates so far:
    few in the first chunk, and where they are alike a small change is many of them. Those of the
    others are in the rewards' own units.
    """

    passes: int
    accepted: int
    short: float | None
    long: float | None
    fused: float
    parts: dict[str, float]
    standard: tuple[float | None, float | None] | None
    gain: dict[str, float | None] = field(default_factory=dict)  # empty: of an earlier version


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
    refined: Refinement | None = None  # None: not refined; scores above are from before


@dataclass(frozen=True)
class PrunedEarly:
    """A candidate that was given up before it was done."""

    parent: int  # rank of the parent beam
    seed: int
    score: float | None  # short reward of what it would have become; None: no number


@dataclass(frozen=True, eq=False)
class ChoiceAsked:
    """The run waits: someone may choose who survives. ``rank`` is what the scores would keep."""

    chunk: int
    candidates: tuple[CandidateReport, ...]
    seconds: float  # until the scores decide


@dataclass(frozen=True, eq=False)
class SurvivorsRefined:
    """The candidates of a chunk that refining has changed, by index in the order tried."""

    chunk: int
    frames: Mapping[int, Tensor] = field(repr=False)  # [T, H, W, 3] each
    latents: Mapping[int, Tensor] = field(repr=False)  # [C, F, h, w] each


@dataclass(frozen=True)
class BudgetReport:
    """What a chunk was allotted (``budget.Allotment`` as an object), and what it took."""

    allotted: dict[str, Any]
    seconds: float
    calls: int
    passes: int  # of refinement
    warning: str | None = None  # why the budget cannot be kept, told once in a run


@dataclass(frozen=True)
class BudgetTotals:
    """What all chunks took of a budget, and how well their seconds were predicted."""

    calls: int
    seconds: float
    error: float | None  # mean of |predicted - seconds| / seconds; None: nothing was predicted


@dataclass(frozen=True, eq=False)
class ChunkDone:
    chunk: int
    candidates: tuple[CandidateReport, ...]
    sinks: tuple[int, ...]  # sinks of each surviving beam, best first
    seconds: dict[str, float]
    kv_bytes: int
    left_out: dict[str, str] = field(default_factory=dict)  # rewards that failed, and how
    prompt: str | None = None  # if it changed with this chunk
    chosen: str | None = None  # "artist"; "timeout": asked in vain; None: by score
    budget: BudgetReport | None = None  # None: the run has none
    pruned_early: tuple[PrunedEarly, ...] = ()  # besides ``candidates``, in the order tried


@dataclass(frozen=True, eq=False)
class FramesSettled:
    """The next stretch of the video that no later decision can change; together, the video."""

    first: int  # latent frame
    latent: Tensor = field(repr=False)  # [C, F, h, w]
    frames: Tensor | None = field(repr=False)  # [T, H, W, 3]; None: not decoded


@dataclass(frozen=True)
class RunDone:
    final_scores: tuple[float | None, ...]  # of the last survivors by rank; None: none, or gone
    best_beam: int  # its rank
    seeds: tuple[int, ...]  # of the chosen path, by chunk, as far as it is remembered
    routes: tuple[str | None, ...]
    budget: BudgetTotals | None = None  # None: the run has none


Event = (
    RunStarted
    | StepDone
    | CandidatesMade
    | ChoiceAsked
    | SurvivorsRefined
    | ChunkDone
    | FramesSettled
    | RunDone
)
Emit = Callable[[Event], None]
