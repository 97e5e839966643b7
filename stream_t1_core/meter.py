"""What one chunk takes while it is made: denoiser calls, and seconds by phase.

It has the run's clock and tells the progress. How long a chunk may take is decided in
``budget.py``, when to stop in ``deadline.py``.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .deadline import LATE, Deadline, OutOfTime
from .events import Emit, StepDone
from .state import Candidate


@dataclass(eq=False)
class Meter:
    """``done``: denoiser calls that the progress is at, ``end``: where this chunk leaves it.

    ``since``: when the chunk began.
    """

    clock: Callable[[], float] = field(repr=False)
    emit: Emit = field(repr=False)
    done: int
    end: int
    since: float
    deadline: Deadline | None = None
    calls: int = 0
    decodes: int = 0  # of candidates by the video's decoder
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    calls_in: dict[str, int] = field(default_factory=dict)  # the same
    left: deque[str] = field(default_factory=deque)  # pieces of the candidate that is being made
    late: float = 0.0  # denoiser calls that the chunk may be late by for it

    def before_call(self, calls: int) -> None:
        """Before every batch of so many denoiser calls; may raise to cancel."""
        self.emit(StepDone(min(self.done, self.end)))
        self.done += calls
        self.calls += calls

    def begin_candidate(self, steps: int, decodes: int, must: bool) -> None:
        """One that is made by itself. ``must``: it is made to its end however late that is.

        ``decodes``: by the video's decoder, besides the one for scoring.
        """
        pieces = ["denoise"] * steps + ["decode"] + ["video"] * decodes + ["score"]
        self.left = deque(pieces)
        self.late = math.inf if must else 0.0

    def next_piece(self) -> None:
        """Before each of its pieces of work; raises OutOfTime where it cannot be done in time."""
        self.deadline = self.deadline.begin(self.left, self.clock(), self.late)
        self.late = max(self.late, LATE)
        self.left.popleft()

    def before_decode(self) -> None:
        """Before the video's decoder runs for a candidate; the same where there is a deadline."""
        if self.deadline:
            self.next_piece()
        self.decodes += 1

    def refining(self, *pieces: str) -> None:
        """Before these pieces of a refinement pass; the same."""
        if self.deadline:
            self.deadline = self.deadline.begin(pieces, self.clock(), LATE)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Seconds and calls add up where a phase comes again; one cut short counts too."""
        started, calls = self.clock(), self.calls
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - started
            self.calls_in[name] = self.calls_in.get(name, 0) + self.calls - calls

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time that is nobody's fault, such as a person's to choose: it does not count."""
        started = self.clock()
        yield
        waited = self.clock() - started
        self.since += waited
        if self.deadline:
            self.deadline = replace(self.deadline, end=self.deadline.end + waited)

    def in_time(self, survivors: Sequence[Candidate]) -> Iterator[Candidate]:
        """Those that there is time to commit, in their order; the first in any case."""
        if self.deadline:
            at_last = [piece for piece in self.deadline.after if piece != "commit"]
            self.deadline = replace(self.deadline, after=at_last)
        for place, candidate in enumerate(survivors):
            if self.deadline:
                late = 0.0 if place else math.inf
                try:
                    self.deadline = self.deadline.begin(["commit"], self.clock(), late)
                except OutOfTime:
                    return
            yield candidate

    def passes(self, most: int, survivors: int) -> int:
        """Refinement passes that there is time for."""
        return self.deadline.passes(most, survivors, self.clock()) if self.deadline else most

    @property
    def elapsed(self) -> float:
        return self.clock() - self.since
