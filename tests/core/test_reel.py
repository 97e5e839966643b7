"""The reel on disk: nothing finished is lost, nothing damaged is used, takes branch and lock."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import time
from dataclasses import replace
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from stream_t1_core import whole_files
from stream_t1_core.reel import Reel
from stream_t1_core.reel_content import Section, StoredChunk, Take
from stream_t1_core.takes import Opening, ReelRequest, start_take

FORKS = hasattr(os, "fork")
FORK = multiprocessing.get_context("fork") if FORKS else None  # torch is loaded once
needs_fork = pytest.mark.skipif(not FORKS, reason="no fork")
GEOMETRY = {
    "channels": 4,
    "frames_per_chunk": 3,
    "latent_height": 2,
    "latent_width": 2,
    "layers": 2,
    "given": None,
}
SETTINGS = {"search": {"beam_width": 2, "branch_factor": 2}, "noise": {"beta": -0.1}, "prompt": "a"}
OTHER = {**SETTINGS, "search": {"beam_width": 2, "branch_factor": 3}}


def record_of(chunk: int, failed: int | None = None) -> dict:
    """Four candidates of two parents; 2 and 1 survive. Numbers that are hard to write."""
    ranks = {2: 0, 1: 1}
    return {
        "event": "chunk_done",
        "chunk": chunk,
        "candidates": [
            {
                "parent": i // 2 if chunk else 0,
                "seed": 2**62 + i,
                "fused": 0.1 + 0.2 + i / 3,
                "short": 5e-324,
                "long": None,
                "rank": ranks.get(i),
                "failure": "latent not finite" if i == failed else None,
            }
            for i in range(4)
        ],
        "seconds": {"denoise": 1.1},
        "prompt": None,
    }


def chunk_of(chunk: int, prompt: str, failed: int | None = None) -> StoredChunk:
    generator = torch.Generator().manual_seed(chunk)
    latents = torch.randn(4, 4, 3, 2, 2, generator=generator)
    return StoredChunk(record_of(chunk, failed), latents, latents[[2, 1]] * 2, prompt, False)


def prompt_of(reel: Reel, seed: int) -> str:
    return reel.save_prompt(torch.full((1, 5, 8), float(seed)), f"words {seed}")


def made(folder: Path, chunks: int, failed: int | None = None) -> tuple[Reel, Take]:
    """A reel whose first take has this many chunks."""
    reel = Reel.open(folder / "reel", GEOMETRY)
    with reel.writing():
        take = start_take(reel, ReelRequest(), 42, SETTINGS, chunks).take
        extend(reel, take, chunks, failed)
    return reel, take


def extend(reel: Reel, take: Take, chunks: int, failed: int | None = None) -> None:
    prompt = prompt_of(reel, 0)
    for chunk in range(reel.length(take), chunks):
        reel.write(take, chunk, chunk_of(chunk, prompt, failed))


def ask(reel: Reel, chunks: int, settings: dict = SETTINGS, **request: object) -> Opening:
    with reel.writing():
        return start_take(reel, ReelRequest(**request), 5, settings, chunks)


def write_on(folder: Path, told: Connection) -> None:
    """A run that never ends; tells how many chunks are finished."""
    reel = Reel.open(folder, GEOMETRY)
    with reel.writing():
        opening = start_take(reel, ReelRequest(), 7, SETTINGS, 100_000)
        prompt = prompt_of(reel, 0)
        for chunk in range(opening.replay, 100_000):
            told.send(chunk)
            reel.write(opening.take, chunk, chunk_of(chunk, prompt))


def begin(folder: Path) -> tuple[Process, Connection]:
    told, ours = Pipe(duplex=False)
    writer = FORK.Process(target=write_on, args=(folder, ours))
    writer.start()
    ours.close()
    return writer, told


def kill(writer: Process) -> None:
    writer.kill()
    writer.join()


def chunk_file(reel: Reel, take: int, chunk: int) -> Path:
    return reel.folder / f"take_{take:03}" / f"chunk_{chunk:05}.safetensors"


def assert_same(found: StoredChunk, wanted: StoredChunk) -> None:
    assert found.record == wanted.record
    assert torch.equal(found.latents, wanted.latents) and torch.equal(found.noise, wanted.noise)
    assert (found.prompt, found.keep_sinks) == (wanted.prompt, wanted.keep_sinks)


def test_what_was_written_comes_back_exactly(tmp_path: Path) -> None:
    made(tmp_path, 3)
    reel = Reel.open(tmp_path / "reel", GEOMETRY)
    [take] = reel.takes()
    assert (take.number, take.parent, take.first_chunk, take.seed) == (1, None, 0, 42)
    assert take.locked == ()
    assert take.settings == SETTINGS and reel.length(take) == 3
    for chunk in range(3):
        stored = reel.load(take, chunk)
        assert_same(stored, chunk_of(chunk, prompt_of(reel, 0)))
        assert reel.record(take, chunk) == stored.record
        assert reel.prompt_of(take, chunk) == (stored.prompt, False)
    rows, words = reel.load_prompt(stored.prompt)
    assert words == "words 0" and torch.equal(rows, torch.zeros(1, 5, 8))


@pytest.mark.parametrize("dtype", whole_files.DTYPES, ids=str)
def test_tensors_of_every_kind_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    """With a smaller kind beside them, an empty one, and one that is not contiguous."""
    path = tmp_path / "some.safetensors"
    tensors = {
        "a": torch.arange(3, dtype=torch.uint8),
        "b": (torch.rand(3, 5) * 9).to(dtype).T,
        "c": torch.zeros(0, 2, dtype=dtype),
        "d": torch.tensor(1).to(dtype),
    }
    whole_files.write_tensors(path, tensors, {"words": "é"})
    found = whole_files.read_tensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert whole_files.read_header(path)[0] == {"words": "é"}


def test_same_words_of_another_encoder_are_another_prompt(tmp_path: Path) -> None:
    reel = Reel.open(tmp_path / "reel", GEOMETRY)
    shas = {
        reel.save_prompt(rows, words)
        for rows in (torch.zeros(1, 5, 8), torch.zeros(1, 5, 8, dtype=torch.bfloat16))
        for words in ("a", "b")
    }
    assert len(shas) == 4


@needs_fork
def test_a_kill_at_any_moment_loses_nothing_finished(tmp_path: Path) -> None:
    folder, moments = tmp_path / "reel", random.Random(0)
    finished = 0
    for _ in range(5):
        writer, told = begin(folder)
        time.sleep(moments.uniform(0.0, 0.2))
        kill(writer)
        with contextlib.suppress(EOFError):
            while True:
                finished = told.recv()
        reel = Reel.open(folder, GEOMETRY)
        with reel.writing():  # the dead writer's lock is free, and its half files are gone
            assert not list(folder.rglob("*.part"))
        length = reel.length(reel.take(1)) if reel.takes() else 0
        assert finished <= length <= finished + 1
        for chunk in range(length):
            assert_same(reel.load(reel.take(1), chunk), chunk_of(chunk, prompt_of(reel, 0)))
    assert finished


def test_a_torn_file_is_ignored_and_swept(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 1)
    torn = chunk_file(reel, 1, 1).with_name("chunk_00001.safetensors.part")
    torn.write_bytes(b"half")
    assert reel.length(take) == 1 and torn.exists()
    ask(reel, 2)
    assert not torn.exists()


def test_a_reel_whose_making_was_cut_short_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "reel"
    folder.mkdir()
    (folder / "writer.lock").touch()
    (folder / "reel.json.part").write_bytes(b"{")
    assert Reel.open(folder, GEOMETRY).takes() == []
    (folder / "take_001").mkdir()
    (folder / "take_001" / "take.json.part").write_bytes(b"{")
    assert ask(Reel.open(folder, GEOMETRY), 1).take.number == 1
    assert not list(folder.rglob("*.part"))


@pytest.mark.skipif(os.name == "nt", reason="no limit on file size")
def test_a_full_disk_loses_nothing_finished(tmp_path: Path) -> None:
    import resource

    reel, take = made(tmp_path, 2)
    size = chunk_file(reel, 1, 0).stat().st_size
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, usual[1]))
    try:
        with reel.writing(), pytest.raises(OSError, match="make space.*from chunk 3") as raised:
            reel.write(take, 2, chunk_of(2, prompt_of(reel, 0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert str(reel.folder) in str(raised.value)
    assert not list(reel.folder.rglob("*.part"))
    assert reel.length(take) == 2
    with reel.writing():
        extend(reel, take, 3)
    assert_same(reel.load(take, 2), chunk_of(2, prompt_of(reel, 0)))


def test_refined_latents_come_back_with_their_candidates(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 1)
    stored = chunk_of(1, prompt_of(reel, 0))
    for index, accepted in ((1, 2), (2, 0)):
        stored.record["candidates"][index]["refined"] = {"passes": 2, "accepted": accepted}
    changed = replace(stored, refined={1: torch.full((4, 3, 2, 2), 0.1)})
    with reel.writing():
        for wrong in (stored, replace(stored, refined=dict.fromkeys((1, 2), stored.latents[0]))):
            with pytest.raises(ValueError, match="its tensors are"):
                reel.write(take, 1, wrong)
        reel.write(take, 1, changed)
    found = reel.load(take, 1)
    assert [*found.refined] == [1] and torch.equal(found.refined[1], changed.refined[1])
    assert_same(found, changed)
    assert reel.load(take, 0).refined == {}


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, old: bytes, new: bytes) -> None:
    assert len(old) == len(new) and path.read_bytes().count(old) >= 1
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, -1),
        lambda path: flip(path, 3),
        lambda path: flip(path, 0),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" * 4096),
        lambda path: path.unlink(),
        lambda path: rewrite(path, b"denoise", b"denoisE"),
        lambda path: rewrite(path, b'\\"version\\": 1', b'\\"version\\": 2'),
        lambda path: rewrite(path, b'\\"rank\\": 1', b'\\"rank\\": 7'),
        lambda path: rewrite(path, b'\\"chunk\\": 1', b'\\"chunk\\": 2'),
        lambda path: rewrite(path, b'\\"sha256', b'\\"sha255'),
        lambda path: whole_files.write_tensors(path, {"latents": torch.zeros(1)}, {}),
        lambda path: whole_files.write_tensors(path, {}, {"stream_t1": "[" * 100_000}),
    ],
)
def test_a_damaged_chunk_is_refused_and_the_remedy_works(tmp_path: Path, damage: object) -> None:
    reel, take = made(tmp_path, 3)
    path = chunk_file(reel, 1, 1)
    damage(path)
    with pytest.raises(ValueError, match="delete it and the later chunks in take_001") as raised:
        reel.load(take, 1)
    assert str(path) in str(raised.value)
    reel.load(take, 0)
    path.unlink(missing_ok=True)
    chunk_file(reel, 1, 2).unlink()
    assert ask(reel, 3).replay == 1


def test_a_gap_is_refused(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 3)
    chunk_file(reel, 1, 1).unlink()
    with pytest.raises(ValueError, match="chunk_00001.*is not there but later chunks are"):
        reel.length(take)


def test_a_damaged_prompt_is_refused(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 1)
    [path] = (reel.folder / "prompts").iterdir()
    rewrite(path, b"words 0", b"words 1")
    with pytest.raises(ValueError, match="checksum.*Put a copy"):
        reel.load_prompt(path.stem)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 1}', '{"version": true, "geometry": {}}', "[" * 100_000, "\xff"],
)
def test_a_damaged_reel_is_refused(tmp_path: Path, content: str) -> None:
    reel, _ = made(tmp_path, 1)
    (reel.folder / "reel.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="reel.json is damaged"):
        Reel.open(reel.folder, GEOMETRY)


@pytest.mark.parametrize(
    "change",
    [
        {"parent": 1},
        {"parent": True},
        {"seed": -1},
        {"seed": 0.5},
        {"first_chunk": 1},
        {"pick": [1]},
        {"pick": 3},
        {"sections": []},
        {"sections": [{"first_chunk": 0, "through": [0], "lock": 0, "settings": {}}]},
        {"sections": [{"first_chunk": 0, "through": [], "lock": 0, "settings": []}]},
        {"sections": None},
        {"version": 0},
    ],
)
def test_a_damaged_take_is_refused(tmp_path: Path, change: dict) -> None:
    reel, _ = made(tmp_path, 1)
    path = reel.folder / "take_001" / "take.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match="take.json is damaged"):
        reel.takes()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 1)
    for path in (reel.folder / "reel.json", reel.folder / "take_001" / "take.json"):
        text = path.read_text()
        path.write_text(text.replace('"version": 1', '"version": 2'))
        with pytest.raises(ValueError, match="version 2.*Update the pack"):
            Reel.open(reel.folder, GEOMETRY).takes()
        path.write_text(text)


def test_another_geometry_is_refused_by_name(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 1)
    with pytest.raises(ValueError, match="latent_width is 2 in the reel and 4 now") as raised:
        Reel.open(reel.folder, {**GEOMETRY, "latent_width": 4, "given": "abc"})
    assert "given is None in the reel and abc now" in str(raised.value)
    assert "channels" not in str(raised.value) and "another reel name" in str(raised.value)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(ValueError, match="is no reel"):
            Reel.open(tmp_path / name, GEOMETRY)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 1)
    with reel.writing():
        with pytest.raises(RuntimeError, match=f"another run .process {os.getpid()}"):
            with Reel.open(reel.folder, GEOMETRY).writing():
                pass
        assert_same(Reel.open(reel.folder, GEOMETRY).load(take, 0), reel.load(take, 0))
    with reel.writing():
        pass


@needs_fork
def test_a_writer_in_another_process_is_named(tmp_path: Path) -> None:
    writer, told = begin(tmp_path / "reel")
    told.recv()
    reel = Reel.open(tmp_path / "reel", GEOMETRY)
    with pytest.raises(RuntimeError, match=f"another run .process {writer.pid}"):
        with reel.writing():
            pass
    kill(writer)
    with reel.writing():
        pass


def test_a_run_goes_on_with_its_own_seed(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 2)
    for chunks, replay in ((2, 2), (1, 1), (5, 2)):
        opening = ask(reel, chunks)
        assert (opening.take.number, opening.take.seed, opening.replay) == (1, 42, replay)
        assert opening.picked is None and opening.keep == {}
    assert len(reel.takes()) == 1


def test_other_settings_hold_for_new_chunks_only(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 2)
    with pytest.raises(ValueError, match="search.branch_factor is 2 in the reel and 3 now") as said:
        ask(reel, 2, OTHER)
    assert "reroll" in str(said.value) and "longer video" in str(said.value)
    ask(reel, 4, {**OTHER, "prompt": "never used"})
    take = ask(reel, 4, OTHER).take
    assert reel.sections(take) == [Section(0, (), 0, SETTINGS), Section(2, (), 0, OTHER)]
    with reel.writing():
        extend(reel, take, 4)
    with pytest.raises(ValueError, match="search.branch_factor is 3"):
        ask(reel, 4, SETTINGS)
    assert ask(reel, 4, OTHER).replay == 4


@pytest.mark.parametrize(
    ("recorded", "asked", "told"),
    [
        (
            {"noise": None},
            {"noise": {"beta": 0.5}},
            ["noise is None in the reel and {'beta': 0.5}"],
        ),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a[2] is 2 in the reel and 3 now"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a[2] is 2 in the reel and None now"]),
        (
            {"prompts": [{"prompt": "a" * 500 + " cat", "sha256": "x"}]},
            {"prompts": [{"prompt": "a" * 500 + " dog", "sha256": "y"}]},
            ["prompts[1].prompt is ...", " cat in the reel and ...", " dog now", "sha256 is x"],
        ),
    ],
)
def test_settings_that_differ_are_shown_where_they_do(
    tmp_path: Path, recorded: dict, asked: dict, told: list[str]
) -> None:
    reel = Reel.open(tmp_path / "reel", GEOMETRY)
    take = ask(reel, 1, recorded).take
    with reel.writing():
        extend(reel, take, 1)
    with pytest.raises(ValueError) as said:
        ask(reel, 1, asked)
    assert all(part in str(said.value) for part in told) and len(str(said.value)) < 700


def test_reroll_branches_off(tmp_path: Path) -> None:
    reel, first = made(tmp_path, 4)
    opening = ask(reel, 6, OTHER, action="reroll", chunk=2)
    take = opening.take
    assert (take.number, take.parent, take.first_chunk) == (2, 1, 2)
    assert opening.replay == 2 and reel.length(take) == 2
    assert take.seed == 42 + 2 * 1_000_003
    assert_same(reel.load(take, 1), reel.load(first, 1))
    with reel.writing():
        extend(reel, take, 6)
    assert reel.length(take) == 6 and reel.length(first) == 4
    assert reel.sections(take) == [Section(0, (), 0, SETTINGS), Section(2, (1, 2), 0, OTHER)]
    assert ask(reel, 6, OTHER).take == take  # the newest goes on
    assert ask(reel, 5, take=1).take.number == 1  # the older one after its own end
    again = ask(reel, 6, action="reroll", chunk=1).take  # before the point its parent branched at
    assert (again.parent, reel.length(again)) == (2, 1)
    assert reel.sections(again) == [Section(0, (), 0, SETTINGS), Section(1, (1,), 0, SETTINGS)]
    assert len({take.seed for take in reel.takes()}) == 3


def test_pick_begins_with_the_parents_candidate(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 3)
    opening = ask(reel, 5, action="pick", chunk=1, candidate=3)
    assert (opening.replay, opening.picked, opening.take.pick) == (1, (1, 3), (1, 3))
    resumed = ask(reel, 5)  # killed before the picked chunk was written
    assert (resumed.take, resumed.replay, resumed.picked) == (opening.take, 1, (1, 3))
    with reel.writing():
        extend(reel, resumed.take, 2)
    assert ask(reel, 5).picked is None


@pytest.mark.parametrize(
    ("request_", "chunks", "message"),
    [
        ({"action": "reroll", "chunk": 4}, 9, "take 1 of 'reel' has 3 chunks; choose 1 to 4"),
        ({"action": "reroll", "chunk": 2}, 2, "the video asked for has 2 chunks"),
        ({"action": "reroll", "chunk": 0, "take": 7}, 3, r"no take 7 \(there: 1\)"),
        ({"action": "pick", "chunk": 3, "candidate": 0}, 9, "choose 1 to 3"),
        ({"action": "pick", "chunk": 1, "candidate": 4}, 9, "there are 4, choose 1 to 4"),
        ({"action": "pick", "chunk": 1, "candidate": 3}, 9, "failed .latent not finite."),
        ({"lock": 4}, 9, "lock is 4, but take 1 of 'reel' has 3 chunks"),
    ],
)
def test_what_is_not_there_is_refused(
    tmp_path: Path, request_: dict, chunks: int, message: str
) -> None:
    reel, _ = made(tmp_path, 3, failed=3)
    with pytest.raises(ValueError, match=message):
        ask(reel, chunks, **request_)
    assert len(reel.takes()) == 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"action": "delete"}, "continue, reroll, pick"),
        ({"action": "reroll"}, "reroll needs a chunk"),
        ({"action": "pick", "chunk": -1, "candidate": 0}, "pick needs a chunk"),
        ({"action": "pick", "chunk": 0}, "pick needs a candidate"),
        ({"lock": -2}, "lock is -2"),
    ],
)
def test_a_request_that_says_nothing_is_refused(request_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReelRequest(**request_)


@pytest.mark.parametrize("request_", [{"action": "reroll", "chunk": 0}, {"lock": 1}, {"take": 1}])
def test_an_empty_reel_only_begins(tmp_path: Path, request_: dict) -> None:
    reel = Reel.open(tmp_path / "reel", GEOMETRY)
    with pytest.raises(ValueError, match="has no chunks yet"):
        ask(reel, 3, **request_)
    assert reel.takes() == [] and ask(reel, 3).take.seed == 5


def test_locked_chunks_stay(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 4)
    with reel.writing():
        reel.write_winner(take, (2, 1, 2, 1))  # the second best beam
    locked = ask(reel, 4, lock=2)  # nothing to add, yet it is remembered
    assert (locked.take.locked, locked.replay) == ((2, 1), 4)
    assert locked.keep == {3: (1,)}
    assert reel.sections(locked.take)[-1] == Section(4, (2, 1), 2, SETTINGS)
    for request in ({"action": "reroll", "chunk": 1}, {"action": "pick", "chunk": 0}):
        with pytest.raises(ValueError, match="chunks 1 to 2 of 'reel' are locked.*lock = -1"):
            ask(reel, 4, **{"candidate": 1, **request})
    branch = ask(reel, 4, action="reroll", chunk=2)
    assert branch.take.locked == (2, 1) and branch.keep == {1: (1,)}  # inherited
    fewer = ask(reel, 4, action="reroll", chunk=1, lock=1, take=1)
    assert fewer.take.locked == (2,) and fewer.keep == {0: (0,)}
    lifted = ask(reel, 4, lock=-1, take=1)
    assert lifted.take.locked == () and lifted.keep == {}
    assert ask(reel, 4, action="reroll", chunk=0, take=1).replay == 0


def test_a_pick_must_come_from_the_locked_chunks(tmp_path: Path) -> None:
    """Candidates 0, 1 come from the best survivor of the chunk before, 2, 3 from the other."""
    reel, take = made(tmp_path, 3)
    assert reel.path(take, 2, 0) == (1, 2, 0) and reel.path(take, 1, 3) == (1, 3)
    assert reel.winner(take) == (2, 1, 2)
    ask(reel, 3, lock=1)
    with pytest.raises(ValueError, match="does not come from the locked chunks 1 to 1"):
        ask(reel, 3, action="pick", chunk=1, candidate=3)
    assert ask(reel, 3, action="pick", chunk=1, candidate=0).take.locked == (2,)


def test_a_take_without_chunks_of_its_own_locks_what_its_parent_showed(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 4)
    with reel.writing():
        reel.write_winner(take, (2, 1, 2, 1))  # the second best beam
    ask(reel, 4, action="reroll", chunk=3)
    assert ask(reel, 4, lock=2).take.locked == (2, 1)
    ask(reel, 4, action="pick", chunk=1, candidate=2, take=1)
    assert ask(reel, 4, lock=1).take.locked == (1,)


def test_a_branch_needs_its_parents_chunks(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 4)
    take = ask(reel, 4, action="reroll", chunk=3).take
    chunk_file(reel, 1, 2).unlink()
    chunk_file(reel, 1, 3).unlink()
    with pytest.raises(ValueError, match="chunk_00002.*take 2 goes on from it"):
        reel.length(take)


def test_a_folder_that_lost_its_take_is_not_written_to(tmp_path: Path) -> None:
    reel, _ = made(tmp_path, 2)
    ask(reel, 3, action="reroll", chunk=1)
    with reel.writing():
        extend(reel, reel.take(2), 2)
    (reel.folder / "take_002" / "take.json").unlink()
    assert ask(reel, 3, action="reroll", chunk=1).take.number == 3


def test_a_prompt_is_no_way_out_of_the_folder(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 1)
    with pytest.raises(ValueError, match="its prompt is"):
        reel.write(take, 1, chunk_of(1, "../" * 20))


def test_a_snapshot_is_of_the_chunks_that_are_there(tmp_path: Path) -> None:
    reel, take = made(tmp_path, 2)
    tensors, state = {"000000": torch.randn(2, 3)}, {"records": [["StreamState", {}]]}
    with reel.writing():
        assert reel.load_snapshot(take, 2) is None
        reel.write_snapshot(take, 2, tensors, state)
        found, about = reel.load_snapshot(take, 2)
        assert torch.equal(found["000000"], tensors["000000"]) and about == state
        assert reel.load_snapshot(take, 1) is None and reel.load_snapshot(take, 0) is None
        chunk_file(reel, 1, 1).unlink()
        reel.write(take, 1, chunk_of(1, prompt_of(reel, 1)))  # made again, under another prompt
        assert reel.load_snapshot(take, 2) is None
        reel.write_snapshot(take, 2, tensors, state)
        assert reel.length(take) == 2
    flip(reel.folder / "take_001" / "snapshot.safetensors", -1)
    with pytest.raises(ValueError, match="snapshot.safetensors cannot be used.*Delete it"):
        reel.load_snapshot(take, 2)
