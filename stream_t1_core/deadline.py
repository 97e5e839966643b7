"""When time is up within a chunk: the calls that are left against the seconds that are left.

Candidates are then made one by one, and one that cannot be done in time is given up between two
denoiser calls; those that are complete go on, one at least. It is told the time and has no clock.
"""

from dataclasses import dataclass, replace


class OutOfTime(Exception):
    """There is no time for the next denoiser call."""


@dataclass(frozen=True)
class Deadline:
    """``end``, by the caller's clock, and what is expected to take how many seconds until then."""

    end: float
    steps: int  # denoiser calls of a candidate
    call: float | None = None  # None: the last one's seconds are all that is known
    after_each: float = 0.0  # a candidate's decoding and scoring
    after_all: float = 0.0  # context passes
    context: float = 0.0  # one of them
    refining: float | None = None  # one pass of one survivor
    calls: int = 0  # made so far
    last: float | None = None  # when the last one began

    def next_call(self, now: float) -> "Deadline":
        """Before each denoiser call of a candidate. Raises OutOfTime where one is done already.

        A candidate begins if it will be done in time, as fast as the last call was; one that has
        begun may be late by one call.
        """
        done, begun = divmod(self.calls, self.steps)
        took = 0.0 if self.last is None else now - self.last
        call = took if self.call is None else self.call
        slower = max(1.0, took / call) if call else 1.0
        left = self.steps - begun - (1 if begun else 0)
        needed = left * call + (done + 1) * self.after_each + self.after_all
        if done and now + slower * needed > self.end:
            raise OutOfTime
        return replace(self, calls=self.calls + 1, last=now)

    def allows(self, seconds: float, now: float) -> bool:
        return now + seconds <= self.end

    def passes(self, most: int, survivors: int, now: float) -> int:
        """Refinement passes of all survivors that there is time for; one to learn what it takes."""
        free = self.end - now - self.after_all
        if not self.refining:
            return min(most, 1 if free > 0 else 0)
        return max(0, min(most, int(free / (self.refining * survivors))))
