"""What a run asks of its reel, and where it opens: go on, reroll, pick, lock.

Plain rules over a ``Reel``; no tensors and no models. A run never changes chunks that are made: to
do one again is to branch off a new take before it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from os.path import commonprefix
from typing import Any

from .reel import Reel, plain
from .reel_content import Section, Take

ACTIONS = ("continue", "reroll", "pick")
UNLOCK = -1
SEED_STEP = 1_000_003  # per take: no two takes of a reel share candidates' seeds
MOST_SEED = 2**53
MOST_SHOWN = 60  # letters of a setting in an error


@dataclass(frozen=True)
class ReelRequest:
    """What to do with a reel. Chunks and candidates count from 0, takes from 1.

    ``chunk`` is where reroll starts and what pick replaces, by ``candidate``. ``lock`` settles
    that many chunks; 0 keeps the lock as it is, ``UNLOCK`` lifts it. ``take`` None is the newest.
    """

    action: str = "continue"
    chunk: int | None = None
    candidate: int | None = None
    lock: int = 0
    take: int | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(
                f"Reel: action is '{self.action}'; one of {', '.join(ACTIONS)} is allowed"
            )
        if self.action != "continue" and (self.chunk is None or self.chunk < 0):
            raise ValueError(f"Reel: {self.action} needs a chunk, counted from 1")
        if self.action == "pick" and (self.candidate is None or self.candidate < 0):
            raise ValueError("Reel: pick needs a candidate, counted from 1")
        if self.lock < UNLOCK:
            raise ValueError(f"Reel: lock is {self.lock}; {UNLOCK} (lift it) or more is allowed")


@dataclass(frozen=True)
class Opening:
    """Where a run starts: ``replay`` stored chunks of ``take`` first, then new ones.

    ``picked`` (chunk, candidate): that chunk comes next and is the parent take's candidate, alone.
    ``keep``: ranks of survivors by chunk: after that chunk only beams of these ranks go on.
    ``reseed``: the next chunk draws no noise that its parents' chunks have drawn.
    """

    take: Take
    replay: int
    picked: tuple[int, int] | None = None
    keep: dict[int, tuple[int, ...]] = field(default_factory=dict)
    reseed: bool = False


def start_take(
    reel: Reel, request: ReelRequest, seed: int, settings: Mapping[str, Any], chunks: int
) -> Opening:
    """Find or begin the take that this run makes longer; to be called while ``reel.writing()``.

    ``settings`` are what the run depends on besides seed and length, plain JSON values; ``chunks``
    is the length asked for. An existing take goes on with its own seed.
    """
    takes = reel.takes()
    if not takes:
        check_first(request, reel.folder.name)
        return Opening(reel.new_take(None, 0, seed, settings), 0)
    take = reel.take(request.take) if request.take else takes[-1]
    locked = _locked(reel, take, request)
    if request.action == "continue":
        return _go_on(reel, take, locked, plain(settings), chunks)
    if request.action == "pick":
        _check_pick(reel, take, request, locked)
    _check_branch(reel, take, request, locked, chunks)
    new_seed = (take.seed + SEED_STEP * (takes[-1].number + 1)) % MOST_SEED
    pick = (request.chunk, request.candidate) if request.action == "pick" else None
    # what comes before is what was seen: a reroll follows the path that won, a pick its own
    through = locked if pick else reel.winner(take)[: request.chunk]
    branch = reel.new_take(take, request.chunk, new_seed, settings, through, len(locked), pick)
    kept = _kept(reel, branch, request.chunk)
    return Opening(branch, request.chunk, pick, kept, reseed=pick is None)


def check_first(request: ReelRequest, name: str) -> None:
    """ValueError where a request needs chunks, for a reel that has none."""
    if request.action != "continue" or request.lock > 0 or request.take:
        asked = request.action if request.action != "continue" else "a lock or a take"
        raise ValueError(
            f"Reel: '{name}' has no chunks yet, so {asked} has nothing to work on; set "
            "action to continue and lock and take to 0 first, or check the reel's name"
        )


def _go_on(
    reel: Reel, take: Take, locked: tuple[int, ...], settings: dict[str, Any], chunks: int
) -> Opening:
    length = reel.length(take)
    differing = list(_differing(take.settings, settings))
    if differing and chunks <= length:
        raise ValueError(
            f"Reel: take {take.number} of '{reel.folder.name}' already has {length} chunks, "
            f"{chunks} are asked for, and these settings are not those it was made with: "
            f"{'; '.join(differing)}. Set them back, ask for a longer video (they then hold for "
            "the new chunks), reroll from the chunk where they should begin, or use another name"
        )
    # a video that was seen to its end is longer from now on; it does not become another one
    seen = chunks > length and reel.ended(take)
    if differing or seen or locked != take.locked:
        through = reel.winner(take) if seen else locked
        take = reel.add_section(take, Section(length, through, len(locked), settings))
    replay = min(length, chunks)
    begins = length == take.first_chunk < chunks
    return Opening(
        take,
        replay,
        take.pick if begins else None,
        _kept(reel, take, replay),
        reseed=begins and take.parent is not None and take.pick is None,
    )


def _locked(reel: Reel, take: Take, request: ReelRequest) -> tuple[int, ...]:
    """The locked part of the path that won: as recorded, or as the request says."""
    if request.lock <= 0:
        return take.locked if request.lock == 0 else ()
    length = reel.length(take)
    if request.lock > length:
        raise ValueError(
            f"Reel: lock is {request.lock}, but take {take.number} of '{reel.folder.name}' has "
            f"{length} chunks; lock that many or fewer (0: as it is, {UNLOCK}: lift the lock)"
        )
    return reel.winner(take)[: request.lock]


def _kept(reel: Reel, take: Take, replay: int) -> dict[int, tuple[int, ...]]:
    """``Opening.keep``: what each section of this take and its parents began with."""
    return {
        section.first_chunk - 1: reel.ranks_from(take, section.first_chunk - 1, section.through)
        for section in reel.sections(take)
        if section.through and section.first_chunk <= replay
    }


def _check_branch(
    reel: Reel, take: Take, request: ReelRequest, locked: tuple[int, ...], chunks: int
) -> None:
    length, lock, name = reel.length(take), len(locked), reel.folder.name
    asked = f"Reel: {request.action} at chunk {request.chunk + 1}"
    if request.chunk > length:
        raise ValueError(
            f"{asked}, but take {take.number} of '{name}' has {length} chunks; choose 1 to "
            f"{length + 1}, or another take"
        )
    if request.chunk < lock:
        fewer = f", or lock = {request.chunk} to keep those before it" if request.chunk else ""
        raise ValueError(
            f"{asked}, but chunks 1 to {lock} of '{name}' are locked; choose a later one, or lift "
            f"the lock: lock = {UNLOCK}{fewer}"
        )
    if request.chunk >= chunks:
        raise ValueError(
            f"{asked}, but the video asked for has {chunks} chunks; ask for a longer one, or "
            "choose an earlier chunk"
        )


def _check_pick(reel: Reel, take: Take, request: ReelRequest, locked: tuple[int, ...]) -> None:
    length, chunk, candidate = reel.length(take), request.chunk, request.candidate
    if chunk >= length:
        raise ValueError(
            f"Reel: pick at chunk {chunk + 1}, but take {take.number} of '{reel.folder.name}' has "
            f"{length} chunks; choose 1 to {length}, or another take"
        )
    tried = reel.record(take, chunk)["candidates"]
    if candidate >= len(tried):
        raise ValueError(
            f"Reel: candidate {candidate + 1} of chunk {chunk + 1} asked for; there are "
            f"{len(tried)}, choose 1 to {len(tried)}"
        )
    if tried[candidate].get("failure"):
        raise ValueError(
            f"Reel: candidate {candidate + 1} of chunk {chunk + 1} failed "
            f"({tried[candidate]['failure']}) and cannot be picked; choose another"
        )
    if candidate == reel.winner(take)[chunk]:
        raise ValueError(
            f"Reel: candidate {candidate + 1} has won chunk {chunk + 1} already; pick another, or "
            f"reroll from chunk {chunk + 2} to make what follows again"
        )
    if chunk >= len(locked) and reel.path(take, chunk, candidate)[: len(locked)] != locked:
        raise ValueError(
            f"Reel: candidate {candidate + 1} of chunk {chunk + 1} does not come from the locked "
            f"chunks 1 to {len(locked)}; choose another, or lift the lock: lock = {UNLOCK}"
        )


def _differing(recorded: Any, asked: Any, name: str = "") -> Iterator[str]:
    """Settings that are not alike, by dotted name, with both values."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in sorted(recorded.keys() | asked.keys()):
            inner = f"{name}.{key}" if name else key
            yield from _differing(recorded.get(key), asked.get(key), inner)
    elif isinstance(recorded, list) and isinstance(asked, list):
        for i, (one, other) in enumerate(zip_longest(recorded, asked)):
            yield from _differing(one, other, f"{name}[{i + 1}]")
    elif recorded != asked:
        one, other = _shortened(str(recorded), str(asked))
        yield f"{name} is {one} in the reel and {other} now"


def _shortened(one: str, other: str) -> tuple[str, str]:
    """Two long texts from shortly before they differ."""
    start = max(0, len(commonprefix([one, other])) - 20)
    before = "..." if start else ""
    return tuple(
        before + text[start : start + MOST_SHOWN] + ("..." if text[start + MOST_SHOWN :] else "")
        for text in (one, other)
    )
