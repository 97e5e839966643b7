"""The Reel node: names stay inside their folder, and the host runs again what must run again."""

import asyncio
import os
from pathlib import Path

import folder_paths
import pytest
from boot import Pack
from comfy_execution.caching import CacheKeySetInputSignature
from comfy_execution.graph import DynamicPrompt
from execution import IsChangedCache

REEL = {
    "name": "my_reel",
    "action": "continue",
    "chunk": 1,
    "candidate": 1,
    "lock": 0,
    "take": 0,
    "snapshot": False,
}


@pytest.fixture
def reels(tmp_path: Path) -> Path:
    """ComfyUI's folder of reels, empty."""
    usual = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path / "stream_t1" / "reels"
    folder_paths.set_output_directory(usual)


@pytest.mark.parametrize("name", ["my_reel", "Take 2 - final.v3", "a", "映画", "x" * 100, "a..b"])
def check_a_name_is_a_folder_of_its_own(pack: Pack, reels: Path, name: str) -> None:
    assert pack.module("nodes.host.reels").folder_of(name) == reels / name
    assert not reels.exists()


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../x", "a/b", "a\\b", "/etc", "C:x", ".git", "a.", "a ", " a", "x" * 101]
    + ["con", "NUL.txt", "com1", "LPT¹", "a\0b", "a\nb", "a*b", "~", "é" * 51, "\ud800", "%2e%2e"],
)
def check_other_names_are_refused(pack: Pack, reels: Path, name: str) -> None:
    with pytest.raises(ValueError, match="Reel: name is .*for example my_reel"):
        pack.module("nodes.host.reels").folder_of(name)


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def check_a_link_out_of_the_folder_is_refused(pack: Pack, reels: Path, tmp_path: Path) -> None:
    reels.mkdir(parents=True)
    (reels / "away").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out of"):
        pack.module("nodes.host.reels").folder_of("away")


def check_the_node_counts_from_one(pack: Pack, reels: Path) -> None:
    node = pack.module("nodes.reel").StreamT1Reel
    asked = node.execute(**{**REEL, "action": "pick", "chunk": 3, "candidate": 2, "lock": 1})[0]
    request = asked.request
    assert asked.folder == reels / "my_reel"
    assert (request.action, request.chunk, request.candidate) == ("pick", 2, 1)
    assert (request.lock, request.take) == (1, None)
    with pytest.raises(ValueError, match="action is 'delete'"):
        node.execute(**{**REEL, "action": "delete"})


def key(**reel: object) -> object:
    """The host's cache key of a node that a Reel is plugged into."""
    prompt = DynamicPrompt(
        {
            "1": {"class_type": "StreamT1Reel", "inputs": {**REEL, **reel}},
            "2": {"class_type": "StreamT1ChunkBeamSampler", "inputs": {"reel": ["1", 0]}},
        }
    )
    keys = CacheKeySetInputSignature(prompt, ["2"], IsChangedCache("", prompt, None))
    asyncio.run(keys.add_keys(["2"]))
    return keys.get_data_key("2")


def check_what_follows_runs_again_when_the_reel_is_another(pack: Pack, reels: Path) -> None:
    take = reels / "my_reel" / "take_001"
    assert key() == key()
    empty = key()
    take.mkdir(parents=True)
    (reels / "my_reel" / "writer.lock").write_text("1")
    (take / "winner.json").write_text("{}")
    assert key() == empty
    seen = {empty}
    for file, content in (
        ("take.json", "{}"),
        ("chunk_00000.safetensors", "a"),
        ("chunk_00001.safetensors", "b"),
        ("chunk_00001.safetensors", "longer"),
    ):
        (take / file).write_text(content)
        assert key() == key() and key() not in seen
        seen.add(key())


@pytest.mark.parametrize("action", ["reroll", "pick"])
def check_reroll_and_pick_run_every_time(pack: Pack, reels: Path, action: str) -> None:
    assert key(action=action) != key(action=action)
