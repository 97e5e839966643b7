"""The report of a run: JSON lines, one event each, append-only, made of the emitted events.

Schema, version 1. Every line is an object with ``event``; numbers that are not finite are null.

- ``run_started``: ``version``, ``settings`` (the run's whole configuration), ``prompt`` (the text
  that rewards read; empty without one), ``chunks``, ``denoiser_calls`` (planned, one per candidate
  and step, refinement and context passes included)
- ``chunk_done``: ``chunk`` (from 0); ``candidates`` in the order tried, each with ``parent`` (rank
  of its parent beam), ``seed``, ``short``, ``long``, ``fused``, ``parts`` (single rewards by name),
  ``standard`` (short and long as they were fused, in standard deviations; null where rewards are
  added as they are), ``route`` (taken when the chunk leaves the window: drop, blend, append; null
  for chunk 0), ``kept``, ``rank`` (0 = best survivor, null = pruned), ``failure`` (why it could not
  win, or null), ``refined`` (null where it was not; else ``passes`` tried, ``accepted``, and
  ``short``, ``long``, ``fused``, ``parts``, ``standard`` of the chunk as it goes on, where those
  above are what candidates were compared by, and ``gain``, what ``short``, ``long`` and ``fused``
  rose by: the first two in the rewards' own units, ``fused`` as it is, which with ``standard`` is
  in standard deviations of the candidates so far, few and often alike in the first chunk);
  ``sinks`` per surviving beam; ``seconds`` by phase
  (denoise, early, decode, score, refine, commit, and video: decoding what is settled, and the
  candidates of some chunks, where others are scored by other frames); ``kv_bytes`` live after
  pruning, chunks remembered to refine by included, shared chunks counted once; ``left_out``:
  rewards without a number for any candidate, by name, with the reason: this chunk's scores go
  without them;
  ``prompt``, if it changed with this chunk, or null; ``chosen``: ``artist`` where survivors were
  chosen by hand, ``timeout`` where that was asked for in vain, null where the scores decided;
  ``budget``, null without one: ``allotted`` before the chunk (``candidates``, ``beam_width``,
  refinement ``passes``, whether ``rewards`` run, ``rung`` of the ladder from 0, ``predicted``
  seconds or null, and in its ``unit``, seconds or denoiser calls: ``due``, an equal share of the
  budget, its own ``share``, the same unless adaptive, and the ``least`` that a chunk can take, null
  until that is measured; ``as_shown``: whether candidates are judged by frames of the video's
  decoder where there is one for scoring too), and what it took: ``seconds`` since the chunk
  before, ``calls``, ``passes``; fewer candidates than allotted, with those pruned early: time was
  up; ``warning``: why the budget cannot be kept, once in a run, else null; ``pruned_early``:
  candidates that were given up before they were done, besides ``candidates`` and in the order
  tried, each with ``parent``,
  ``seed`` and ``score`` (short reward of the clean estimate, in standard deviations of the chunk's
  where rewards are standardised; null without a number)
- ``choice_asked``, before the ``chunk_done`` of a chunk whose survivors may be chosen by hand:
  ``chunk``, ``candidates`` as they will be told then, kept and rank by the scores alone,
  ``seconds`` until the scores decide
- ``run_done``: ``final_scores`` of the last chunk's survivors by rank (long reward of the whole
  video, or of what a run that does not keep it still remembers), ``best_beam`` (a rank), the chosen
  path's ``seeds`` and ``routes`` by chunk, as far as it is remembered; ``budget``, null without
  one: ``calls`` and ``seconds`` of all chunks, and ``error``, the mean of |predicted - taken| /
  taken over the seconds of those chunks that had a prediction, or null
- ``run_stopped``, instead of ``run_done``: ``reason``, when the run was cancelled or failed
"""

import json
import math
from dataclasses import asdict
from typing import Any

from .events import CandidateReport, ChoiceAsked, ChunkDone, Event, RunDone, RunStarted

VERSION = 1

Reported = RunStarted | ChoiceAsked | ChunkDone | RunDone


class Report:
    """Collects events as records; hand it to ``generate`` as (part of) ``emit``."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Reported):
            self.records.append(record(event))

    def stop(self, reason: str) -> None:
        self.records.append({"event": "run_stopped", "reason": reason})

    def __str__(self) -> str:
        return "".join(json.dumps(record, allow_nan=False) + "\n" for record in self.records)


def record(event: Reported) -> dict[str, Any]:
    """An event as a line of the report, plain JSON values."""
    return _finite(_record(event))


def _record(event: Reported) -> dict[str, Any]:
    if isinstance(event, RunStarted):
        return {"event": "run_started", "version": VERSION, **asdict(event)}
    if isinstance(event, RunDone):
        return {"event": "run_done", **asdict(event)}
    candidates = [_candidate(candidate) for candidate in event.candidates]
    told = {"chunk": event.chunk, "candidates": candidates}
    if isinstance(event, ChoiceAsked):
        return {"event": "choice_asked", **told, "seconds": event.seconds}
    return {
        "event": "chunk_done",
        **told,
        "sinks": event.sinks,
        "seconds": event.seconds,
        "kv_bytes": event.kv_bytes,
        "left_out": event.left_out,
        "prompt": event.prompt,
        "chosen": event.chosen,
        "budget": event.budget and asdict(event.budget),
        "pruned_early": [asdict(candidate) for candidate in event.pruned_early],
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
