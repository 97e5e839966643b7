"""Evaluate and Doctor in a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from graphs import changed, id_of, small
from PIL import Image

from devtools.client import PromptRejected, Run
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]
SAMPLER_FRAMES, MIX = ["14", 1], ["70", 0]
REWARDS = {
    "70": {
        "class_type": "StreamT1RewardMix",
        "inputs": {
            "reward_a": ["71", 0],
            "weight_a": 1.0,
            "reward_b": ["72", 0],
            "weight_b": 0.5,
            "weight_c": 1.0,
            "weight_d": 1.0,
        },
    },
    "71": {"class_type": "StreamT1Sharpness", "inputs": {}},
    "72": {"class_type": "StreamT1MotionAmount", "inputs": {"target": 5.0}},
}


def evaluated(images: list, **inputs: object) -> dict:
    """Evaluate on ``images``, its curve and texts where the test finds them."""
    settings = {"prompt": "", "fps": 16.0, "frames_per_chunk": 12, "first_chunk": 9}
    return {
        **REWARDS,
        "80": {
            "class_type": "StreamT1Evaluate",
            "inputs": {"images": images, "reward": MIX, **settings, **inputs},
        },
        "81": {
            "class_type": "SaveImage",
            "inputs": {"images": ["80", 1], "filename_prefix": "curve"},
        },
        "82": {"class_type": "PreviewAny", "inputs": {"source": ["80", 2]}},
    }


def made(seed: int, frames: int = 9) -> dict:
    """A small searched video, judged by rewards without weights."""
    prompt = {**small(frames=frames, seed=seed), **REWARDS}
    return changed(prompt, "StreamT1RewardPruner", short_reward=MIX, long_reward=MIX)


def drawn(width: int = 48, frames: int = 21) -> dict:
    """An image batch without any model."""
    inputs = {"width": width, "height": 32, "batch_size": frames, "color": 0xC04020}
    return {"60": {"class_type": "EmptyImage", "inputs": inputs}}


def test_a_made_video_is_evaluated_whole_and_by_chunk(run: RunPrompt, server: ComfyServer) -> None:
    done = run({**made(701, frames=33), **evaluated(SAMPLER_FRAMES)})
    assert done.error is None
    (table,) = done.outputs["80"]["text"]
    head, _, weights, video, *chunks = table.splitlines()
    assert [cell.strip() for cell in head.split("|")][2:-1] == [
        "frames",
        "sharpness",
        "motion_amount",
        "total",
    ]
    assert [line.split("|")[2].strip() for line in chunks] == ["0-8", "9-20", "21-32"]
    record = json.loads(done.outputs["82"]["text"][0])
    sharp, moved = record["rewards"]
    assert record["total"]["video"] == pytest.approx(sharp["video"] + 0.5 * moved["video"])
    assert all(isinstance(score, float) for mark in (sharp, moved) for score in mark["chunks"])
    (saved,) = done.outputs["81"]["images"]
    assert Image.open(server.output / saved["filename"]).width == 640
    assert [m["value"] for m in done.of_type("progress") if m["node"] == "80"][-1] == 4


def test_any_image_batch_is_a_video(run: RunPrompt) -> None:
    done = run({**drawn(), **evaluated(["60", 0], first_chunk=7, frames_per_chunk=7)})
    assert done.error is None
    record = json.loads(done.outputs["82"]["text"][0])
    assert [chunk["frames"] for chunk in record["chunks"]] == [7, 7, 7]
    assert record["rewards"][1]["chunks"] == [0.0, 0.0, 0.0]


def test_frames_per_chunk_must_be_positive(run: RunPrompt) -> None:
    with pytest.raises(PromptRejected, match="smaller than min"):
        run({**drawn(50), **evaluated(["60", 0], frames_per_chunk=0)})


def doctor(**inputs: object) -> dict:
    node = {"class_type": "StreamT1Doctor", "inputs": {"width": 832, "height": 480, **inputs}}
    return {"90": node}


def test_the_doctor_needs_no_input_and_looks_where_the_host_does(
    run: RunPrompt, server: ComfyServer
) -> None:
    (text,) = run(doctor()).outputs["90"]["text"]
    assert "what ships with the pack works" in text.splitlines()[0]
    assert "ok  ComfyUI 0." in text
    for folder in ("stream_t1", "diffusion_models", "loras", "text_encoders", "vae"):
        assert str(server.base / "models" / folder) in text.replace("~", str(Path.home()))
    assert "VideoAlign: not there" in text


def test_the_doctor_looks_again_although_nothing_changed(
    run: RunPrompt, server: ComfyServer
) -> None:
    path = server.base / "models" / "loras" / "longlive_lora.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = run(doctor()).outputs["90"]["text"][0]
    path.touch()
    after = run(doctor()).outputs["90"]["text"][0]
    path.unlink()
    assert "LongLive LoRA: not there" in before
    assert "ok  LongLive LoRA, by its name: " in after


def test_the_doctor_counts_what_is_plugged_in(run: RunPrompt) -> None:
    prompt = made(702)
    pruner, memory = (id_of(prompt, f"StreamT1{name}") for name in ("RewardPruner", "MemorySink"))
    wanted = {**prompt, **doctor(pruner=[pruner, 0], memory=[memory, 0])}
    (text,) = run(wanted).outputs["90"]["text"]
    assert "beam width 2, branch factor 2, window 12 latent frames, up to 15 of sinks" in text
    (text,) = run(doctor()).outputs["90"]["text"]
    assert "beam width 1, branch factor 1, window 12 latent frames, up to 3 of sinks" in text
