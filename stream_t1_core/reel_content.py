"""What the files of a reel hold, and whether what is read is that.

Knows chunks, takes and their sections as plain values; no folders and no files (``reel.py``).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

LATENT_KEYS = ("channels", "frames_per_chunk", "latent_height", "latent_width")
SHA = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class StoredChunk:
    """A finished chunk: what was tried, what was kept, and under which prompt (its SHA)."""

    record: dict[str, Any] = field(repr=False)  # the report's chunk_done
    latents: Tensor = field(repr=False)  # [n, C, F, h, w], all candidates in the order tried
    noise: Tensor = field(repr=False)  # [k, C, F, h, w], survivors, best first
    prompt: str
    keep_sinks: bool
    refined: Mapping[int, Tensor] = field(default_factory=dict, repr=False)  # by candidate


@dataclass(frozen=True)
class Section:
    """What held from ``first_chunk`` on, to the next section or the take's end.

    ``through`` has a candidate for each chunk that was settled when the section began: only beams
    that came by them went on. The first ``lock`` of these chunks must not be made again.
    """

    first_chunk: int
    through: tuple[int, ...]
    lock: int
    settings: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Take:
    """One way through the reel: its parent's chunks before ``first_chunk``, then its own."""

    number: int
    parent: int | None
    first_chunk: int
    seed: int
    pick: tuple[int, int] | None  # (chunk, candidate) taken over from the parent to begin with
    sections: tuple[Section, ...]

    @property
    def locked(self) -> tuple[int, ...]:
        """The candidates of the locked chunks."""
        section = self.sections[-1]
        return section.through[: section.lock]

    @property
    def settings(self) -> dict[str, Any]:
        return self.sections[-1].settings


def check_chunk(
    about: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    chunk: int,
    geometry: Mapping[str, Any],
) -> None:
    """Record and tensors fit each other and the reel; nothing is read by its own word."""
    record, prompt = about.get("record"), about.get("prompt")
    if not isinstance(record, dict) or record.get("chunk") != chunk:
        raise ValueError(f"its record is not of chunk {chunk}")
    candidates = record.get("candidates")
    if not isinstance(candidates, list) or not all(map(_is_candidate, candidates)):
        raise ValueError("its candidates are not a list of candidates")
    ranks = sorted(c["rank"] for c in candidates if c["rank"] is not None)
    if not ranks or ranks != list(range(len(ranks))):
        raise ValueError(f"its survivors have ranks {ranks}")
    if not isinstance(prompt, str) or not SHA.fullmatch(prompt):
        raise ValueError(f"its prompt is {prompt!r}")
    if not isinstance(about.get("keep_sinks"), bool):
        raise ValueError(f"keep_sinks is {about.get('keep_sinks')!r}")
    latent = tuple(geometry[key] for key in LATENT_KEYS)  # (C, F, h, w)
    wanted = {"latents": (len(candidates), *latent), "noise": (len(ranks), *latent)}
    if changed := changed_candidates(record):
        wanted["refined"] = (len(changed), *latent)
    if dict(shapes) != wanted:
        raise ValueError(f"its tensors are {dict(shapes)}, not {wanted}")


def read_take(found: Mapping[str, Any], number: int) -> Take:
    """Check what take.json holds; ValueError, KeyError or TypeError if it is not a take's."""
    parent, pick = found["parent"], found["pick"]
    sections = tuple(_section(section) for section in found["sections"])
    firsts = [section.first_chunk for section in sections]
    first_chunk, seed = found["first_chunk"], found["seed"]
    sound = (
        (parent is None or is_count(parent) and 0 < parent < number)
        and (pick is None or len(pick) == 2 and all(map(is_count, pick)))
        and is_count(seed)
        and (parent is not None or first_chunk == 0)
        and firsts[:1] == [first_chunk]
        and firsts == sorted(set(firsts))
    )
    if not sound:
        raise ValueError("its parts do not fit")
    return Take(number, parent, first_chunk, seed, tuple(pick) if pick else None, sections)


def _section(found: Mapping[str, Any]) -> Section:
    first_chunk, through, lock = found["first_chunk"], found["through"], found["lock"]
    counts = all(map(is_count, (first_chunk, lock, *through)))
    if not counts or not lock <= len(through) <= first_chunk:
        raise ValueError("a section is not one")
    if not isinstance(found["settings"], dict):
        raise ValueError("a section has no settings")
    return Section(first_chunk, tuple(through), lock, found["settings"])


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_candidate(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_count(value.get("parent"))
        and is_count(value.get("seed"))
        and "rank" in value
        and (value["rank"] is None or is_count(value["rank"]))
        and _is_refinement(value.get("refined"))
    )


def _is_refinement(value: Any) -> bool:
    return value is None or isinstance(value, dict) and is_count(value.get("accepted"))


def changed_candidates(record: Mapping[str, Any]) -> list[int]:
    """The candidates that refining has changed, in the order tried."""
    told = [candidate.get("refined") for candidate in record["candidates"]]
    return [i for i, refined in enumerate(told) if refined and refined["accepted"]]


def survivor(record: Mapping[str, Any], rank: int) -> int:
    """The candidate that survived in this place."""
    for index, candidate in enumerate(record["candidates"]):
        if candidate["rank"] == rank:
            return index
    raise ValueError(
        f"Reel: chunk {record['chunk'] + 1} has no survivor {rank + 1} that the next chunk goes on "
        "from: the reel was changed by hand; put a copy back"
    )
