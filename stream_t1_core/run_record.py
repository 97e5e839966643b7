"""Read a report back: a run as its lines tell it, in small frozen records.

It knows the schema at the top of ``report.py`` and trusts no line: a report may come from a file,
so every value that is used is checked, and an error names the line. What is not used is not looked
at, be it a value or an event. It draws nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .report import VERSION

ROUTES = ("drop", "blend", "append")
EARLIER = {"pruned_early": []}  # what the first reports do not say
MOST = 2**63  # of any number: what is larger is damage, and arithmetic on it fails


@dataclass(frozen=True)
class Refined:
    """What refining made of a survivor: the scores with which it went on."""

    passes: int
    accepted: int
    short: float | None
    long: float | None
    fused: float | None


@dataclass(frozen=True)
class Tried:
    """One candidate. A score is None where the run had none or it was not finite."""

    parent: int  # rank of its parent among the survivors of the chunk before
    short: float | None
    long: float | None
    fused: float | None
    route: str | None
    rank: int | None  # 0 is the best survivor; None if pruned
    failure: str | None
    refined: Refined | None = None  # None: it was not; scores above are from before

    @property
    def went_on(self) -> "Tried | Refined":
        """What has the scores of the chunk that it became."""
        return self.refined or self

    @property
    def score(self) -> float | None:
        """What it was compared by; None if there was nothing to compare by."""
        if self.failure or self.short is None and self.long is None:
            return None
        return self.fused


@dataclass(frozen=True)
class GivenUp:
    """A candidate that was pruned before it was done."""

    parent: int  # rank of its parent
    score: float | None  # short reward of what it would have become


@dataclass(frozen=True)
class ChunkRecord:
    candidates: tuple[Tried, ...]
    sinks: tuple[int, ...]  # of each survivor, best first
    seconds: float
    kv_bytes: int
    left_out: dict[str, str]  # rewards without a number, and why
    prompt: str | None = None  # if it changed with this chunk
    chosen: str | None = None  # artist: by hand; timeout: asked in vain; None: by score
    pruned_early: tuple[GivenUp, ...] = ()

    @property
    def survivors(self) -> list[int]:
        """Indices of the candidates that were kept, best first."""
        kept = [i for i, candidate in enumerate(self.candidates) if candidate.rank is not None]
        return sorted(kept, key=lambda i: self.candidates[i].rank)


@dataclass(frozen=True)
class RunRecord:
    prompt: str
    planned: int  # chunks
    first_sinks: int = 0  # chunks that are sinks from the start and never leave
    early_step: int | None = None  # after which candidates are pruned early; None: they are not
    chunks: tuple[ChunkRecord, ...] = ()
    best_beam: int | None = None  # None until the run is done
    final_scores: tuple[float | None, ...] = ()
    stopped: str | None = None  # the reason

    @property
    def status(self) -> str:
        if self.stopped is not None:
            return "stopped"
        return "running" if self.best_beam is None else "done"

    @property
    def path(self) -> list[int]:
        """Candidate of each chunk on the chosen path, or on the leading one until the run is done.

        Ends with the last chunk that has a survivor.
        """
        path: list[int] = []
        rank = self.best_beam or 0
        for chunk in reversed(self.chunks):
            if chunk.survivors:
                path.append(chunk.survivors[rank])
                rank = chunk.candidates[path[-1]].parent
        return path[::-1]


def read_report(text: str) -> RunRecord:
    """The run of one report. Raises ValueError naming the line that cannot be read."""
    run: RunRecord | None = None
    for number, record in report_lines(text):
        try:
            run = _add(run, record)
        except ValueError as error:
            raise ValueError(f"report line {number}: {error}") from error
    if run is None:
        raise ValueError("the report is empty: connect the sampler's report output")
    return run


def report_lines(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line that is not blank, with its number from 1."""
    for number, line in enumerate(text.split("\n"), 1):  # splitlines knows ends that JSON does not
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"report line {number} is not JSON ({error}): give a report as the sampler wrote it"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"report line {number} is no JSON object, but {_shown(record)}")
        yield number, record


def _add(run: RunRecord | None, record: Mapping[str, Any]) -> RunRecord:
    """The run with one more line told."""
    event = record.get("event")
    if run is None:
        if event != "run_started":
            raise ValueError(f"begins with {_shown(event)}: a report begins with run_started")
        return _started(record)
    if event == "chunk_done":
        chunk = _count(record, "chunk")
        if chunk != len(run.chunks):
            raise ValueError(f"chunk {chunk} where chunk {len(run.chunks)} is next")
        parents = len(run.chunks[-1].survivors) if run.chunks else 1
        return replace(run, chunks=(*run.chunks, _chunk(record, parents)))
    if event == "run_done":
        beams = len(run.chunks[-1].survivors) if run.chunks else 0
        best = _count(record, "best_beam", below=beams)
        scores = [_score({"final score": s}, "final score") for s in _list(record, "final_scores")]
        return replace(run, best_beam=best, final_scores=tuple(scores))
    if event == "run_stopped":
        return replace(run, stopped=_text(record, "reason") or "")
    if event == "run_started":
        raise ValueError("a second run starts here: give the report of one run")
    if not isinstance(event, str):
        raise ValueError(f"event {_shown(event)} is not known: give a report of the sampler")
    return run  # a question to the artist, or a later version's


def _started(record: Mapping[str, Any]) -> RunRecord:
    version = _count(record, "version")
    if version > VERSION:
        raise ValueError(
            f"version {version} is newer than {VERSION}, the one that can be read: update the pack"
        )
    settings = _object(record, "settings")
    first = 0
    if isinstance(settings.get("memory"), dict):
        each = _count(settings, "frames_per_chunk")
        first = _count(settings["memory"], "sink_frames") // max(1, each)
    search = settings.get("search")
    early = search.get("early") if isinstance(search, dict) else None
    step = _count(early, "step") if isinstance(early, dict) else None
    return RunRecord(_text(record, "prompt") or "", _count(record, "chunks"), first, step)


def _chunk(record: Mapping[str, Any], parents: int) -> ChunkRecord:
    candidates = tuple(_candidate(item, parents) for item in _list(record, "candidates"))
    ranks = sorted(c.rank for c in candidates if c.rank is not None)
    if ranks != list(range(len(ranks))):
        raise ValueError("the survivors' ranks do not count from 0 without a gap")
    sinks = tuple(_count({"sinks": item}, "sinks") for item in _list(record, "sinks"))
    if len(sinks) != len(ranks):
        raise ValueError(f"{len(sinks)} numbers of sinks for {len(ranks)} survivors")
    phases = _object(record, "seconds")
    return ChunkRecord(
        candidates,
        sinks,
        sum(_score(phases, phase) or 0.0 for phase in phases),
        _count(record, "kv_bytes"),
        {name: str(reason) for name, reason in _object(record, "left_out").items()},
        _text(record, "prompt"),
        _text(record, "chosen"),
        tuple(_given_up(item, parents) for item in _list({**EARLIER, **record}, "pruned_early")),
    )


def _given_up(item: object, parents: int) -> GivenUp:
    if not isinstance(item, dict):
        raise ValueError(f"candidate {_shown(item)} is no object")
    return GivenUp(_count(item, "parent", below=parents), _score(item, "score"))


def _candidate(item: object, parents: int) -> Tried:
    if not isinstance(item, dict):
        raise ValueError(f"candidate {_shown(item)} is no object")
    route = _text(item, "route")
    if route not in (None, *ROUTES):
        raise ValueError(f"route {_shown(route)}: it is one of {', '.join(ROUTES)}, or null")
    return Tried(
        parent=_count(item, "parent", below=parents),
        short=_score(item, "short"),
        long=_score(item, "long"),
        fused=_score(item, "fused"),
        route=route,
        rank=None if item.get("rank") is None else _count(item, "rank"),
        failure=_text(item, "failure"),
        refined=None if item.get("refined") is None else _refined(_object(item, "refined")),
    )


def _refined(item: Mapping[str, Any]) -> Refined:
    passes, accepted = _count(item, "passes"), _count(item, "accepted")
    return Refined(passes, accepted, *(_score(item, name) for name in ("short", "long", "fused")))


def _count(record: Mapping[str, Any], key: str, below: int | None = None) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key} {_shown(value)}: it is a whole number from 0")
    if value > MOST:
        raise ValueError(f"{key} is a number of {len(str(value))} digits, which no run has")
    if below is not None and value >= below:
        raise ValueError(f"{key} {_shown(value)}: there are only {below} to choose from")
    return value


def _score(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{key} {_shown(value)}: it is a number or null")
    if not abs(value) < MOST:
        raise ValueError(f"{key} {_shown(value)} is no number that a run gives")
    return float(value)


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if not isinstance(value, str | None):
        raise ValueError(f"{key} {_shown(value)}: it is text or null")
    return value


def _list(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key} {_shown(value)}: it is a list")
    return value


def _object(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key, {})  # left_out is missing in the first reports
    if not isinstance(value, dict):
        raise ValueError(f"{key} {_shown(value)}: it is an object")
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _shown(value: object) -> str:
    """A value as an error tells it: short, whatever it is."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "..."
