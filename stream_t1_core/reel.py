"""A reel: a run kept in a folder, chunk by chunk, so that it goes on after any stop.

Knows files, JSON and tensors; no beams and no models. What a run asks of a reel (go on, reroll,
pick, lock) is decided in ``takes.py``; how its beams come back, in ``replay.py``. The folder:

- ``reel.json``: ``version``, ``geometry`` (what cannot change within a reel)
- ``prompts/SHA.safetensors``: ``rows`` [1, L, text_dim]; metadata ``words``
- ``take_001/take.json``: ``version``, ``take``, ``parent`` (take it branched from, or null),
  ``first_chunk`` (chunks before it are the parent's), ``seed``, ``pick`` ([chunk, candidate] that
  it began with, or null), ``sections``: from ``first_chunk`` on these ``settings`` held, only
  beams that came ``through`` these candidates (one per chunk) went on, and so many chunks from the
  first are under ``lock``
- ``take_001/chunk_00000.safetensors``: ``latents`` [n, C, F, h, w] of all candidates in the order
  tried, ``noise`` [k, C, F, h, w] of the survivors, best first, and, where refining has changed
  some (``record`` tells which), ``refined`` [r, C, F, h, w], what they became, in the order tried;
  metadata ``stream_t1`` is JSON:
  ``version``, ``record`` (the report's ``chunk_done``), ``prompt`` (SHA), ``keep_sinks``,
  ``sha256`` over the tensors and the rest of this JSON
- ``take_001/winner.json``: ``version``, ``candidates``: the path chosen when the run last ended
- ``take_001/snapshot.safetensors``, where a run was asked to: the stream's state after the last
  chunk, so that it need not be made again; metadata ``stream_t1``: ``version``, ``after`` (SHA of
  that chunk), ``state`` (see ``snapshot.py``), ``sha256`` as above
- ``writer.lock``: held by the process that writes

Every file is whole or not there. Takes are added and never deleted. Chunks, candidates count from
0 here; takes from 1.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import whole_files
from .reel_content import (
    LATENT_KEYS,
    SHA,
    Section,
    StoredChunk,
    Take,
    changed_candidates,
    check_chunk,
    is_count,
    read_take,
    survivor,
)

VERSION = 1
OWN_FILES = ("writer.lock", "reel.json" + whole_files.PART)  # of a reel that is being made
CHUNK_NAME = re.compile(r"chunk_(\d{5,9})\.safetensors")
TAKE_NAME = re.compile(r"take_(\d{3,9})")


class Reel:
    """The folder of a run. Reading needs nothing; to write, hold ``writing()``."""

    def __init__(self, folder: Path, geometry: Mapping[str, Any]) -> None:
        self.folder = folder
        self.geometry = dict(geometry)

    @classmethod
    def open(cls, folder: Path, geometry: Mapping[str, Any]) -> "Reel":
        """Make the reel, or check that the one in ``folder`` has this geometry.

        ``geometry`` holds ``LATENT_KEYS`` and whatever else must stay as it is, plain JSON values.
        """
        assert all(isinstance(geometry[key], int) for key in LATENT_KEYS)
        reel = cls(folder, plain(geometry))
        path = folder / "reel.json"
        if not path.exists():
            if folder.exists() and not _is_free(folder):
                raise ValueError(f"Reel: {folder} is no reel; it is left alone. Use another name")
            with reel._guarded("the reel", 0):
                whole_files.make_folder(folder)
            with reel.writing(), reel._guarded("the reel", 0):
                if not path.exists():
                    content = {"version": VERSION, "geometry": reel.geometry}
                    whole_files.write_json(path, content)
        reel._check()
        return reel

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes; what a killed run left half written is removed."""
        with ExitStack() as held:
            try:
                with self._guarded("the lock", None):
                    held.enter_context(whole_files.locked(self.folder / "writer.lock"))
            except BlockingIOError as error:
                raise RuntimeError(
                    f"Reel: '{self.folder.name}' is being written by another run "
                    f"({error.strerror}); wait until it has ended, or use another reel name"
                ) from error
            for folder in (self.folder, self.folder / "prompts", *self.folder.glob("take_*")):
                whole_files.sweep(folder)
            yield

    def takes(self) -> list[Take]:
        """All takes, oldest first."""
        return [self.take(number) for number in self._numbers()]

    def take(self, number: int) -> Take:
        if number not in self._numbers():
            found = ", ".join(map(str, self._numbers())) or "none"
            raise ValueError(
                f"Reel: '{self.folder.name}' has no take {number} (there: {found}); ask for one of "
                "these, or for take 0, the newest"
            )
        path = self._take_folder(number) / "take.json"
        found = whole_files.read_json(path)
        self._check_version(found, path)
        try:
            return read_take(found, number)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Reel: {path} is damaged ({error!r}); put a copy back") from error

    def new_take(
        self,
        parent: Take | None,
        first_chunk: int,
        seed: int,
        settings: Mapping[str, Any],
        through: Sequence[int] = (),
        lock: int = 0,
        pick: tuple[int, int] | None = None,
    ) -> Take:
        """Begin a take at ``first_chunk`` of ``parent``; the first one has no parent."""
        section = Section(first_chunk, tuple(through), lock, plain(settings))
        number = max(self._numbers(), default=0) + 1
        while any(map(CHUNK_NAME.fullmatch, _names(self._take_folder(number)))):
            number += 1  # somebody removed a take.json: not ours to mix with
        above = parent.number if parent else None
        take = Take(number, above, first_chunk, seed, pick, (section,))
        with self._guarded(f"take {number}", first_chunk):
            whole_files.make_folder(self._take_folder(number))
        self._write_take(take)
        return take

    def add_section(self, take: Take, section: Section) -> Take:
        """Other settings or another lock from here on; replaces one that no chunk was made in."""
        kept = [old for old in take.sections if old.first_chunk < section.first_chunk]
        section = replace(section, settings=plain(section.settings))
        take = replace(take, sections=(*kept, section))
        self._write_take(take)
        return take

    def sections(self, take: Take) -> list[Section]:
        """What held for this take's chunks from the first on, its parents' sections included."""
        found: list[Section] = list(take.sections)
        while take.parent is not None:
            first, take = found[0].first_chunk, self.take(take.parent)
            found = [section for section in take.sections if section.first_chunk < first] + found
        return found

    def length(self, take: Take) -> int:
        """Finished chunks: 0 to this less one are there, in this take or its parents."""
        end, needed = self._end(take), take.first_chunk
        while take.parent is not None:
            child, take = take, self.take(take.parent)
            if self._end(take) < needed:
                missing = self._take_folder(take.number) / _chunk_name(self._end(take))
                raise ValueError(
                    f"Reel: {missing} is not there, and take {child.number} goes on from it; put "
                    f"the file back, or go on with take {take.number}"
                )
            needed = min(needed, take.first_chunk)
        return end

    def record(self, take: Take, chunk: int) -> dict[str, Any]:
        """The report's line of a chunk, without reading its tensors."""
        path = self._chunk_path(take, chunk)
        with _damage_told(path):
            return self._header(path, chunk)["record"]

    def prompt_of(self, take: Take, chunk: int) -> tuple[str, bool]:
        """SHA of the prompt that a chunk was made under, and ``keep_sinks``."""
        path = self._chunk_path(take, chunk)
        with _damage_told(path):
            about = self._header(path, chunk)
            return about["prompt"], about["keep_sinks"]

    def load(self, take: Take, chunk: int) -> StoredChunk:
        """A chunk of the take or of its parents, checked."""
        path = self._chunk_path(take, chunk)
        with _damage_told(path):
            about = self._header(path, chunk)
            tensors = whole_files.read_tensors(path)
            if about.pop("sha256", None) != whole_files.digest(tensors, about):
                raise ValueError("its checksum is another")
        return StoredChunk(
            about["record"],
            tensors["latents"],
            tensors["noise"],
            about["prompt"],
            about["keep_sinks"],
            dict(zip(changed_candidates(about["record"]), tensors.get("refined", ()), strict=True)),
        )

    def write(self, take: Take, chunk: int, stored: StoredChunk) -> None:
        """Add the next chunk to a take."""
        path = self._take_folder(take.number) / _chunk_name(chunk)
        assert chunk >= take.first_chunk and not path.exists(), "chunks are only added"
        tensors = {"latents": stored.latents, "noise": stored.noise}
        if stored.refined:
            tensors["refined"] = torch.stack(
                [latent for _, latent in sorted(stored.refined.items())]
            )
        about = {
            "version": VERSION,
            "record": stored.record,
            "prompt": stored.prompt,
            "keep_sinks": stored.keep_sinks,
        }
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        check_chunk(about, shapes, chunk, self.geometry)
        about["sha256"] = whole_files.digest(tensors, about)
        with self._guarded(f"chunk {chunk + 1}", chunk):
            whole_files.write_tensors(path, tensors, {"stream_t1": json.dumps(about)})

    def path(self, take: Take, chunk: int, candidate: int) -> tuple[int, ...]:
        """Candidates by chunk, from the first to ``candidate`` of ``chunk``, parent by parent."""
        found, record = [candidate], self.record(take, chunk)
        for index in range(chunk - 1, -1, -1):
            rank = record["candidates"][found[-1]]["parent"]
            record = self.record(take, index)
            found.append(survivor(record, rank))
        return tuple(reversed(found))

    def ranks_from(self, take: Take, chunk: int, through: Sequence[int]) -> tuple[int, ...]:
        """Ranks of the chunk's survivors that came by these candidates."""
        ranks = [candidate["rank"] for candidate in self.record(take, chunk)["candidates"]]
        return tuple(
            rank
            for index, rank in enumerate(ranks)
            if rank is not None and self.path(take, chunk, index)[: len(through)] == tuple(through)
        )

    def ended(self, take: Take) -> bool:
        """Whether the last run of this take got to its end, and with it a winner was chosen."""
        file = self._take_folder(take.number) / "winner.json"
        return file.exists() and len(self._chosen(file)) == self.length(take)

    def winner(self, take: Take) -> tuple[int, ...]:
        """Candidates by chunk of the path that was chosen, or, cut short, of the best beam."""
        length = self.length(take)
        if take.parent is not None and length == take.first_chunk:
            parent = self.take(take.parent)
            chosen = self.path(parent, *take.pick) if take.pick else self.winner(parent)
            return chosen[:length]
        if self.ended(take):
            return self._chosen(self._take_folder(take.number) / "winner.json")
        return self.path(take, length - 1, survivor(self.record(take, length - 1), 0))

    def write_winner(self, take: Take, candidates: Sequence[int]) -> None:
        """Keep which path was chosen at the end: candidates by chunk, from chunk 0."""
        content = {"version": VERSION, "candidates": list(candidates)}
        with self._guarded("the winner", len(candidates)):
            whole_files.write_json(self._take_folder(take.number) / "winner.json", content)

    def write_snapshot(
        self, take: Take, chunks: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> None:
        """Keep a state (``snapshot.save``) after this many chunks, in place of the one before."""
        about = {"version": VERSION, "after": self._sha(take, chunks - 1), "state": state}
        about["sha256"] = whole_files.digest(tensors, about)
        path = self._take_folder(take.number) / "snapshot.safetensors"
        with self._guarded("the snapshot", chunks):
            whole_files.write_tensors(path, tensors, {"stream_t1": json.dumps(about)})

    def load_snapshot(
        self, take: Take, chunks: int
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """For ``snapshot.load``; None where there is none after just these chunks."""
        path = self._take_folder(take.number) / "snapshot.safetensors"
        if not path.exists() or not chunks:
            return None
        try:
            about = self._about(path, whole_files.read_header(path)[0])
            if about.get("after") != self._sha(take, chunks - 1):
                return None
            tensors = whole_files.read_tensors(path)
            if about.pop("sha256", None) != whole_files.digest(tensors, about):
                raise ValueError("its checksum is another")
            return tensors, about["state"]
        except ValueError as error:
            raise ValueError(
                f"Reel: {path} cannot be used: {error}. Delete it; the reel goes on without it, by "
                "making its context again"
            ) from error

    def save_prompt(self, rows: Tensor, words: str) -> str:
        """Keep text rows [1, L, text_dim] and what they say; returns their SHA."""
        sha = whole_files.digest({"rows": rows}, {"words": words})
        path = self._prompt_path(sha)
        if not path.exists():
            with self._guarded("the prompt", 0):
                whole_files.make_folder(path.parent)
                whole_files.write_tensors(path, {"rows": rows}, {"words": words})
        return sha

    def load_prompt(self, sha: str) -> tuple[Tensor, str]:
        path = self._prompt_path(sha)
        try:
            metadata, _ = whole_files.read_header(path)
            tensors, words = whole_files.read_tensors(path), metadata.get("words", "")
            if tensors.keys() != {"rows"} or whole_files.digest(tensors, {"words": words}) != sha:
                raise ValueError(f"{path} is damaged (its checksum is another)")
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"Reel: a prompt cannot be read: {error}. Put a copy of {path} back"
            ) from error
        return tensors["rows"], words

    def _sha(self, take: Take, chunk: int) -> str | None:
        """What a chunk's file says of its content."""
        path = self._chunk_path(take, chunk)
        with _damage_told(path):
            return self._header(path, chunk).get("sha256")

    def _check(self) -> None:
        path = self.folder / "reel.json"
        found = whole_files.read_json(path)
        self._check_version(found, path)
        there = found.get("geometry")
        if not isinstance(there, dict):
            raise ValueError(f"Reel: {path} is damaged (no geometry); put a copy back")
        differing = [
            f"{key} is {there.get(key)} in the reel and {self.geometry.get(key)} now"
            for key in sorted(there.keys() | self.geometry.keys())
            if there.get(key) != self.geometry.get(key)
        ]
        if differing:
            raise ValueError(
                f"Reel: '{self.folder.name}' was made with another geometry: "
                f"{'; '.join(differing)}. Use another reel name, or the reel's own values"
            )

    def _check_version(self, found: Mapping[str, Any], path: Path) -> None:
        version = found.get("version")
        if not is_count(version) or version < 1:
            raise ValueError(f"Reel: {path} is damaged (version {version!r}); put a copy back")
        if version > VERSION:
            raise ValueError(
                f"Reel: {path} has version {version}, this pack reads up to {VERSION}: it was made "
                "by a newer one. Update the pack, or use another reel name"
            )

    def _header(self, path: Path, chunk: int) -> dict[str, Any]:
        """What a chunk's file says of itself, checked against its tensors' shapes."""
        metadata, shapes = whole_files.read_header(path)
        about = self._about(path, metadata)
        check_chunk(about, shapes, chunk, self.geometry)
        return about

    def _about(self, path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
        about = whole_files.parse_json(metadata.get("stream_t1", "null"), path)
        self._check_version(about, path)
        return about

    def _chosen(self, file: Path) -> tuple[int, ...]:
        chosen = whole_files.read_json(file).get("candidates")
        if not isinstance(chosen, list) or not all(map(is_count, chosen)):
            raise ValueError(f"Reel: {file} is damaged (no candidates); delete it")
        return tuple(chosen)

    def _write_take(self, take: Take) -> None:
        content = {
            "version": VERSION,
            "take": take.number,
            "parent": take.parent,
            "first_chunk": take.first_chunk,
            "seed": take.seed,
            "pick": take.pick,
            "sections": [asdict(section) for section in take.sections],
        }
        with self._guarded(f"take {take.number}", take.sections[-1].first_chunk):
            whole_files.write_json(self._take_folder(take.number) / "take.json", content)

    def _end(self, take: Take) -> int:
        """One past the last chunk in the take's own folder."""
        folder = self._take_folder(take.number)
        names = map(CHUNK_NAME.fullmatch, _names(folder))
        own = {int(name[1]) for name in names if name}
        end = take.first_chunk + len(own)
        missing = [i for i in range(take.first_chunk, end) if i not in own]
        if missing:
            raise ValueError(
                f"Reel: {folder / _chunk_name(missing[0])} is not there but later chunks are; put "
                "it back, or delete the later ones of this take so that the reel goes on from there"
            )
        return end

    def _chunk_path(self, take: Take, chunk: int) -> Path:
        while take.parent is not None and chunk < take.first_chunk:
            take = self.take(take.parent)
        return self._take_folder(take.number) / _chunk_name(chunk)

    def _prompt_path(self, sha: str) -> Path:
        assert SHA.fullmatch(sha)
        return self.folder / "prompts" / f"{sha}.safetensors"

    def _take_folder(self, number: int) -> Path:
        return self.folder / f"take_{number:03}"

    def _numbers(self) -> list[int]:
        """Of the takes that were begun: a kill may leave a folder without its take.json."""
        names = map(TAKE_NAME.fullmatch, _names(self.folder))
        numbers = sorted(int(name[1]) for name in names if name)
        return [n for n in numbers if (self._take_folder(n) / "take.json").is_file()]

    @contextmanager
    def _guarded(self, what: str, next_chunk: int | None) -> Iterator[None]:
        """Say what could not be written, that the rest is safe, and where it will go on."""
        try:
            yield
        except BlockingIOError:  # the lock's
            raise
        except OSError as error:
            on = f" from chunk {next_chunk + 1}" if next_chunk else ""
            raise OSError(
                error.errno,
                f"Reel: {what} could not be written to {self.folder} ({error.strerror}). Nothing "
                f"finished is lost: make space there and run again, and it goes on{on}",
            ) from error


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples; the numbers stay exactly as they are."""
    return json.loads(json.dumps(content, allow_nan=False))


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _is_free(folder: Path) -> bool:
    """Empty, or with no more than the beginnings of a reel that a kill cut short."""
    return folder.is_dir() and not {*_names(folder)} - {*OWN_FILES}


def _chunk_name(chunk: int) -> str:
    return f"chunk_{chunk:05}.safetensors"


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"Reel: {path} cannot be used: {error}. Put a copy of it back, or delete it and the "
            f"later chunks in {path.parent.name} so that the reel goes on from there"
        ) from error
