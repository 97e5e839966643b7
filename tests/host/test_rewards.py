"""Rewards with weights in a real server: files found, one wire moved, an own one, clear errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graphs import api, changed, id_of, reports, small

from devtools.client import Run
from devtools.server import PACK_ROOT, ComfyServer

RunPrompt = Callable[..., Run]
TINY_CLIP = PACK_ROOT / "tiny_model" / "clip_tiny"


def with_short_reward(node: dict, name: str, seed: int, frames: int = 9) -> dict:
    """A small run judged by ``node`` alone; its report goes to the folder ``name``."""
    prompt = small(frames=frames, seed=seed, memory=None)
    prompt = changed(prompt, "StreamT1RewardPruner", short_reward=["80", 0], long_reward=None)
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix=f"{name}/report")
    return {**prompt, "80": node}


def loader(class_type: str, model: str, **inputs: object) -> dict:
    common = {"model": model, "precision": "default", "device": "default"}
    return {"class_type": class_type, "inputs": {**common, **inputs}}


@pytest.fixture
def pick_score_folder(server: ComfyServer) -> Iterator[Path]:
    """The tiny CLIP under PickScore's name: the same layout."""
    folder = server.base / "models" / "stream_t1" / "PickScore_v1"
    shutil.copytree(TINY_CLIP, folder)
    yield folder
    shutil.rmtree(folder)


def test_clip_score_that_ships_scores_every_candidate(run: RunPrompt, server: ComfyServer) -> None:
    node = loader("StreamT1ClipScore", "tiny (ships with the pack)")
    assert run(with_short_reward(node, "by_clip", 301)).error is None
    (events,) = reports(server.output / "by_clip")
    scores = [c["parts"]["short.clip_score"] for c in events[1]["candidates"]]
    assert len(set(scores)) == 4 and all(0 < score <= 100 for score in scores)
    assert "reward clip_score 0.0" in server.log()  # what the run needs, said up front


def test_hpsv3_is_exchanged_for_pick_score_by_moving_one_wire(
    run: RunPrompt, server: ComfyServer, pick_score_folder: Path
) -> None:
    """HPSv3's files are missing here: the workflow says which, then runs with the wire moved."""
    learned = api("longlive_learned_rewards")
    hpsv3, pick_score = id_of(learned, "StreamT1HPSv3"), id_of(learned, "StreamT1PickScore")
    pruner = learned[id_of(learned, "StreamT1RewardPruner")]["inputs"]
    assert pruner["short_reward"] == [hpsv3, 0]

    prompt = with_short_reward(learned[hpsv3], "by_pick", 302)
    failed = run(prompt).error
    looked_at = server.base / "models" / "stream_t1" / "hpsv3"
    assert failed["node_type"] == "StreamT1HPSv3"
    assert failed["exception_message"].startswith("HPSv3: 'hpsv3' is not there. Looked at: ")
    assert str(looked_at) in failed["exception_message"]
    assert "https://huggingface.co/MizzenAI/HPSv3" in failed["exception_message"]

    prompt["81"] = learned[pick_score]
    prompt = changed(prompt, "StreamT1RewardPruner", short_reward=["81", 0])
    assert run(prompt).error is None
    (events,) = reports(server.output / "by_pick")
    assert list(events[1]["candidates"][0]["parts"]) == ["short.pick_score"]


def test_a_missing_file_in_a_found_folder_is_named(run: RunPrompt, pick_score_folder: Path) -> None:
    (pick_score_folder / "model.safetensors").unlink()
    node = loader("StreamT1PickScore", "PickScore_v1", precision="float32")  # not cached yet
    message = run(with_short_reward(node, "missing", 303)).error["exception_message"]
    assert message.startswith("PickScore: ")
    assert str(pick_score_folder / "model.safetensors") in message
    assert "yuvalkirstain/PickScore_v1" in message


def test_a_reward_that_reads_the_prompt_is_refused_without_one(run: RunPrompt) -> None:
    node = loader("StreamT1ClipScore", "tiny (ships with the pack)")
    prompt = changed(with_short_reward(node, "none", 304), "StreamT1RewardPruner", prompt=None)
    message = run(prompt).error["exception_message"]
    assert "reward 'clip_score' reads the prompt, but the prompt text is empty" in message


def test_another_packs_reward_is_one_wire_away(run: RunPrompt, server: ComfyServer) -> None:
    """samples/own_reward.py lies in custom_nodes as it is."""
    node = {"class_type": "RednessReward", "inputs": {}}
    assert run(with_short_reward(node, "redness", 305)).error is None
    (events,) = reports(server.output / "redness")
    best, *_ = [c for c in events[1]["candidates"] if c["rank"] == 0]
    assert best["short"] == max(c["short"] for c in events[1]["candidates"])
