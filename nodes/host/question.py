"""A question to the artist: which candidates go on. Asked by the sampler's thread, answered once,
by a thread of the server.

It knows numbers of candidates, nothing of runs, routes or clocks.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Question:
    """Open until it is answered or closed, whichever is first."""

    chunk: int
    failures: tuple[str | None, ...]  # of each candidate; one that failed cannot be chosen
    most: int  # candidates that may go on
    _answer: list[int] | None = None
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _answered: threading.Event = field(default_factory=threading.Event, repr=False)

    def check(self, candidates: Sequence[int]) -> None:
        """Raises ValueError where these candidates, best first, cannot go on."""
        count = len(self.failures)
        if not 1 <= len(candidates) <= self.most:
            raise ValueError(f"{len(candidates)} candidates: choose 1 to {self.most}")
        for candidate in candidates:
            if not 0 <= candidate < count:
                raise ValueError(
                    f"candidate {candidate}: chunk {self.chunk} has 0 to {count - 1} (from 0)"
                )
            if failure := self.failures[candidate]:
                raise ValueError(f"candidate {candidate} failed and cannot go on: {failure}")
        if len(set(candidates)) < len(candidates):
            raise ValueError(f"candidates {list(candidates)}: name each one once")

    def answer(self, candidates: Sequence[int]) -> bool:
        """Take the answer; False if it comes too late. Raises ValueError as ``check`` does."""
        self.check(candidates)
        with self._lock:
            if self._closed:
                return False
            self._answer, self._closed = list(candidates), True
        self._answered.set()
        return True

    def wait(self, seconds: float) -> bool:
        """Whether it is answered, after that time at most."""
        return self._answered.wait(seconds)

    def close(self) -> list[int] | None:
        """No answer is taken from now on; the one that was, if any."""
        with self._lock:
            self._closed = True
            return self._answer
