"""What one chunk takes while it is made: denoiser calls, and seconds by phase.

It has the run's clock and tells the progress. How long a chunk may take is decided in
``budget.py``, when to stop in ``deadline.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from .deadline import Deadline, OutOfTime
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
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    calls_in: dict[str, int] = field(default_factory=dict)  # the same

    def before_call(self, calls: int) -> None:
        """Before every batch of so many denoiser calls; may raise to cancel."""
        self.emit(StepDone(min(self.done, self.end)))
        self.done += calls
        self.calls += calls

    def before_step(self, calls: int) -> None:
        """The same for a candidate's own calls; raises OutOfTime where it cannot be done."""
        if self.deadline:
            self.deadline = self.deadline.next_call(self.clock())
        self.before_call(calls)

    def before_refining(self, calls: int) -> None:
        """The same for a refinement pass; raises OutOfTime where time is up."""
        if self.deadline and not self.deadline.allows(self.deadline.after_all, self.clock()):
            raise OutOfTime
        self.before_call(calls)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Seconds and calls add up where a phase comes again."""
        started, calls = self.clock(), self.calls
        yield
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
        for place, candidate in enumerate(survivors):
            late = self.deadline and not self.deadline.allows(self.deadline.context, self.clock())
            if place and late:
                return
            yield candidate

    def passes(self, most: int, survivors: int) -> int:
        """Refinement passes that there is time for."""
        return self.deadline.passes(most, survivors, self.clock()) if self.deadline else most

    @property
    def elapsed(self) -> float:
        return self.clock() - self.since
