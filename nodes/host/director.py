"""Asks the artist which candidates go on, through the run that browsers watch.

The sampler's thread waits here in short slices, so that the host's interrupt is seen and its server
stays free. No answer in time: the score decides. It knows a run and its question, not how an answer
reaches it (``live.py``) and not what a score is made of.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from comfy.model_management import throw_exception_if_processing_interrupted

from ...stream_t1_core.events import CandidateReport, ChoiceAsked, Emit
from .live import LiveRun
from .question import Question

SLICE_SECONDS = 0.1


@dataclass(frozen=True)
class Directing:
    """When to ask, and how long to wait."""

    timeout_seconds: float
    margin: float | None = None  # of the fused score; None: ask at every chunk

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise ValueError(f"Director: timeout_seconds {self.timeout_seconds} is not above 0")
        if self.margin is not None and not self.margin >= 0:
            raise ValueError(f"Director: margin {self.margin}: 0 or more is allowed")

    def asks(self, fused: Sequence[float]) -> bool:
        """Whether to ask about candidates with these scores; one alone is no choice."""
        if len(fused) < 2:
            return False
        best, second = sorted(fused, reverse=True)[:2]
        return self.margin is None or best - second < self.margin


@dataclass(frozen=True, eq=False)
class LiveDirector:
    """The core's ``Director``: callable with a chunk's candidates and what the score would keep."""

    directing: Directing
    live: LiveRun

    def __call__(
        self, chunk: int, candidates: tuple[CandidateReport, ...], kept: list[int], emit: Emit
    ) -> tuple[list[int], str | None]:
        """Survivors, best first, and who chose them: "artist", "timeout" or None (not asked)."""
        if not self.directing.asks([c.fused for c in candidates if c.failure is None]):
            return kept, None
        question = Question(chunk, tuple(c.failure for c in candidates), most=len(kept))
        self.live.question = question  # before it is told: an answer may come at once
        try:
            emit(ChoiceAsked(chunk, candidates, self.directing.timeout_seconds))
            self._wait(question)
        finally:
            answer = question.close()
            self.live.question = None
        return (kept, "timeout") if answer is None else (answer, "artist")

    def _wait(self, question: Question) -> None:
        end = time.monotonic() + self.directing.timeout_seconds
        while (left := end - time.monotonic()) > 0 and not question.wait(min(left, SLICE_SECONDS)):
            throw_exception_if_processing_interrupted()
