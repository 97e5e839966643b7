"""Prompts over time, starts, writing as it goes and memory elsewhere, in a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
import safetensors.torch
import torch
from graphs import changed, reports, small
from PIL import Image

from devtools.client import Run
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]

SAMPLER = "StreamT1ChunkBeamSampler"
TWO_PROMPTS = "[0:00-0:01] a red circle moving left on a dark background [0:01-] a blue one"


def node(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def with_node(prompt: dict, socket: str, class_type: str, **inputs: object) -> dict:
    """A copy with one more node, plugged into the sampler."""
    prompt = changed(prompt, SAMPLER, **{socket: ["80", 0]})
    return {**prompt, "80": node(class_type, **inputs)}


def decoded(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(1 for _ in file.decode(video=0))


def told(server: ComfyServer, name: str) -> list[dict]:
    return reports(server.output / name)[-1]


def test_a_timeline_switches_the_prompt_and_says_so(run: RunPrompt, server: ComfyServer) -> None:
    timeline = {"text": TWO_PROMPTS, "clip": ["1", 1], "fade_seconds": 0.0, "keep_sinks": False}
    prompt = with_node(small(frames=33, seed=301), "positive", "StreamT1PromptTimeline", **timeline)
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix="timeline/report")
    assert run(prompt).error is None
    events = told(server, "timeline")
    assert events[0]["prompt"].startswith("a red circle")
    prompts = [event["prompt"] for event in events if event["event"] == "chunk_done"]
    assert prompts == [None, None, "a blue one"]  # chunks start at 0, 0.56 and 1.31 s


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[0:00-0:01] a circle [0:02-] a square", "line 1, column 22"),
        ("[0:00-0:0x] a circle", "line 1, column 1"),
    ],
)
def test_a_malformed_timeline_is_an_error_with_its_place(
    run: RunPrompt, text: str, says: str
) -> None:
    timeline = {"text": text, "clip": ["1", 1], "fade_seconds": 0.0, "keep_sinks": False}
    prompt = with_node(small(seed=302), "positive", "StreamT1PromptTimeline", **timeline)
    message = run(prompt).error["exception_message"]
    assert "Prompt Timeline" in message and says in message


def test_the_video_begins_with_the_pictures_it_starts_from(
    run: RunPrompt, server: ComfyServer
) -> None:
    prompt = with_node(small(frames=33, seed=303), "start", "StreamT1StartFrom", images=["81", 0])
    prompt["81"] = node("EmptyImage", width=32, height=32, batch_size=5, color=0x2060C0)
    prompt["82"] = node("SaveImage", images=["14", 1], filename_prefix="started/frame")
    assert run(prompt).error is None
    frames = sorted((server.output / "started").glob("*.png"))
    assert len(frames) == 33
    colours = [Image.open(path).convert("RGB").getextrema() for path in frames]
    blue = [colour == ((32, 32), (96, 96), (192, 192)) for colour in colours]
    assert blue[:5] == [True] * 5 and not any(blue[6:])


def test_a_start_longer_than_the_video_is_refused(run: RunPrompt) -> None:
    prompt = with_node(small(frames=9, seed=304), "start", "StreamT1StartFrom", images=["81", 0])
    prompt["81"] = node("EmptyImage", width=32, height=32, batch_size=33, color=0)
    message = run(prompt).error["exception_message"]
    assert "Start From: 33 frames are given, and the video has 9" in message


@pytest.mark.parametrize("keep_images", [True, False])
def test_the_writer_writes_the_video(
    run: RunPrompt, server: ComfyServer, keep_images: bool
) -> None:
    folder = f"written_{keep_images}"
    writer = {"filename_prefix": f"{folder}/own", "keep_images": keep_images, "quality": 18}
    prompt = with_node(small(frames=33, seed=305), "writer", "StreamT1VideoWriter", **writer)
    prompt = changed(prompt, "SaveVideo", filename_prefix=f"{folder}/theirs")
    done = run(prompt)
    assert done.error is None
    (shown,) = done.outputs["14"]["videos"]
    assert shown["subfolder"] == folder
    assert decoded(server.output / folder / shown["filename"]) == 33
    theirs = list((server.output / folder).glob("theirs*"))
    assert len(theirs) == keep_images  # without images, what is plugged into them does not run


def test_keys_and_values_in_the_cpus_memory_change_nothing(
    run: RunPrompt, server: ComfyServer
) -> None:
    for place in ("device", "cpu"):
        prompt = small(frames=33, seed=306, kv_place=place)
        prompt["90"] = node("SaveLatent", samples=["14", 0], filename_prefix=f"kv/{place}")
        assert run(prompt).error is None
    near, far = (
        safetensors.torch.load_file(server.output / "kv" / f"{place}_00001_.latent")
        for place in ("device", "cpu")
    )
    assert torch.equal(near["latent_tensor"], far["latent_tensor"])
    assert "Stream-T1 needs about" in server.log() and "Keys and values: in CPU" in server.log()


def test_a_director_needs_candidates(run: RunPrompt) -> None:
    director = {"ask": "every chunk", "margin": 0.1, "timeout_seconds": 5.0}
    prompt = small(seed=307, pruner=None, memory=None)
    prompt = with_node(prompt, "director", "StreamT1Director", **director)
    assert "Director: there is one candidate" in run(prompt).error["exception_message"]
