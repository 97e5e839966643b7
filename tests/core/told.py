"""Reports for tests, made of a run's own events: small ones, long ones, stopped and odd ones."""

from __future__ import annotations

import json
from collections.abc import Sequence

from stream_t1_core.events import CandidateReport, ChunkDone, RunDone, RunStarted
from stream_t1_core.report import Report

SETTINGS = {"frames_per_chunk": 3, "memory": {"sink_frames": 3}}
ROUTES = ("drop", "blend", "append")


def candidate(
    fused: float | None = 1.0, rank: int | None = None, parent: int = 0, **changed: object
) -> CandidateReport:
    scores = {"short": fused, "long": fused, "fused": fused}
    rest = {"seed": 42, "parts": {}, "route": None, "failure": None}
    return CandidateReport(**{"parent": parent, "rank": rank, **scores, **rest, **changed})


def chunk(number: int, *candidates: CandidateReport, **changed: object) -> ChunkDone:
    kept = sum(c.rank is not None for c in candidates)
    seconds = {"denoise": 1.5, "decode": 0.5}
    given = {"sinks": (1,) * kept, "seconds": seconds, "kv_bytes": 2_000_000, **changed}
    return ChunkDone(number, candidates, **given)


def report(
    *chunks: ChunkDone,
    prompt: str = "a red circle",
    best: int | None = 0,
    stopped: str | None = None,
    final: Sequence[float | None] | None = None,
) -> str:
    """A report of these chunks; without ``best`` the run is not done."""
    told = Report()
    told(RunStarted(SETTINGS, prompt, max(1, len(chunks)), 9))
    for done in chunks:
        told(done)
    if best is not None:
        scores = [1.0] * len(chunks[-1].sinks) if final is None else final
        told(RunDone(tuple(scores), best, (), ()))
    if stopped is not None:
        told.stop(stopped)
    return str(told)


def searched(chunks: int, width: int, branches: int) -> str:
    """A finished search: in chunk ``n`` candidate ``(n + i)`` is the i-th best."""
    made = []
    for number in range(chunks):
        count = width * branches
        places = [(i - number) % count for i in range(count)]
        made.append(
            chunk(
                number,
                *(
                    candidate(
                        fused=10.0 - place + number / 7,
                        rank=place if place < width else None,
                        parent=i // branches if number else 0,
                        route=ROUTES[number % 3] if number else None,
                    )
                    for i, place in enumerate(places)
                ),
            )
        )
    return report(*made)


def line_of(text: str, number: int, **changed: object) -> str:
    """The report with keys of one line (from 1) set."""
    lines = text.splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **changed})
    return "\n".join(lines)
