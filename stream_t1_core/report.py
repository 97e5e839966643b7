"""The report of a run: JSON lines, one event each, append-only, made of the emitted events.

Schema, version 1. Every line is an object with ``event``; numbers that are not finite are null.

- ``run_started``: ``version``, ``settings`` (the run's whole configuration), ``prompt`` (the text
  that rewards read; empty without one), ``chunks``, ``denoiser_calls`` (planned, one per candidate
  and step, context passes included)
- ``chunk_done``: ``chunk`` (from 0); ``candidates`` in the order tried, each with ``parent`` (rank
  of its parent beam), ``seed``, ``short``, ``long``, ``fused``, ``parts`` (single rewards by name),
  ``standard`` (short and long as they were fused, in standard deviations; null where rewards are
  added as they are), ``route`` (taken when the chunk leaves the window: drop, blend, append; null
  for chunk 0), ``kept``, ``rank`` (0 = best survivor, null = pruned), ``failure`` (why it could not
  win, or null); ``sinks`` per surviving beam; ``seconds`` by phase (denoise, decode, score,
  commit); ``kv_bytes`` live after pruning, shared chunks counted once; ``left_out``: rewards
  without a number for any candidate, by name, with the reason: this chunk's scores go without them
- ``run_done``: ``final_scores`` of the surviving beams (long reward of the whole video),
  ``best_beam``, the chosen path's ``seeds`` and ``routes`` by chunk, ``seconds`` in all
- ``run_stopped``, instead of ``run_done``: ``reason``, when the run was cancelled or failed
"""

import json
import math
from dataclasses import asdict
from typing import Any

from .events import CandidateReport, ChunkDone, Event, RunDone, RunStarted

VERSION = 1


class Report:
    """Collects events as records; hand it to ``generate`` as (part of) ``emit``."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted | ChunkDone | RunDone):
            self.records.append(_finite(_record(event)))

    def stop(self, reason: str) -> None:
        self.records.append({"event": "run_stopped", "reason": reason})

    def __str__(self) -> str:
        return "".join(json.dumps(record, allow_nan=False) + "\n" for record in self.records)


def _record(event: RunStarted | ChunkDone | RunDone) -> dict[str, Any]:
    if isinstance(event, RunStarted):
        return {"event": "run_started", "version": VERSION, **asdict(event)}
    if isinstance(event, RunDone):
        return {"event": "run_done", **asdict(event)}
    return {
        "event": "chunk_done",
        "chunk": event.chunk,
        "candidates": [_candidate(candidate) for candidate in event.candidates],
        "sinks": event.sinks,
        "seconds": event.seconds,
        "kv_bytes": event.kv_bytes,
        "left_out": event.left_out,
    }


def _candidate(candidate: CandidateReport) -> dict[str, Any]:
    return {**asdict(candidate), "kept": candidate.rank is not None}


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot carry by None, everywhere."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
