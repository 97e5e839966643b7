"""The shipped workflows: UI and API files are one graph, and a running host takes each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import pytest
import torch
from graphs import NAMES, WORKFLOWS, api, changed, id_of
from safetensors.torch import load_file, save_file

from devtools.client import Run
from devtools.server import PACK_ROOT, ComfyServer

RunPrompt = Callable[..., Run]
TINY = PACK_ROOT / "tiny_model"
LONGLIVE = ["longlive_plain", "longlive_stream_t1"]  # those that need no more than its files


@pytest.mark.parametrize("name", NAMES)
def test_ui_and_api_files_are_one_graph(name: str) -> None:
    """Nodes, links and the values of widgets; the browser tier lets the editor compare as well."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    prompt = api(name)
    nodes = {node["id"]: node for node in graph["nodes"] if node["type"] != "MarkdownNote"}
    assert {str(key): node["type"] for key, node in nodes.items()} == {
        key: node["class_type"] for key, node in prompt.items()
    }
    drawn = {
        (str(target), nodes[target]["inputs"][slot]["name"]): [str(source), output]
        for _, source, output, target, slot, _ in graph["links"]
    }
    for key, node in prompt.items():
        links = {(key, n): v for n, v in node["inputs"].items() if isinstance(v, list)}
        assert {place: link for place, link in drawn.items() if place[0] == key} == links
        settings = [v for v in node["inputs"].values() if not isinstance(v, list)]
        wired = [i for i in nodes[int(key)]["inputs"] if i.get("widget") and i["link"] is not None]
        settings += [""] * len(wired)  # a text widget that is wired keeps an empty value
        shown = nodes[int(key)].get("widgets_values", [])
        assert sorted(map(plain, settings)) == sorted(plain(v) for v in shown if v != "fixed")


def plain(value: object) -> str:
    """JavaScript writes 1.0 as 1."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if is_number else repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_every_workflow_has_a_picture(name: str) -> None:
    assert (WORKFLOWS / f"{name}.jpg").stat().st_size > 20_000


@pytest.fixture(scope="module")
def longlive_files(server: ComfyServer) -> Iterator[Path]:
    """The tiny model under LongLive's file names and in its layouts; an empty text encoder."""
    models = server.base / "models"
    weights = load_file(TINY / "wan_tiny.safetensors")
    base = {f"model._fsdp_wrapped_module.{key}": value for key, value in weights.items()}
    factors = {}
    for key in [k for k in weights if k.endswith("attn.q.weight")]:
        stem = f"base_model.model.{key.removesuffix('.weight')}"
        out, inner = weights[key].shape
        factors[f"{stem}.lora_A.default.weight"] = 0.01 * torch.ones(4, inner)
        factors[f"{stem}.lora_B.default.weight"] = 0.01 * torch.ones(out, 4)
    for folder in ("diffusion_models", "loras", "vae", "text_encoders"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    torch.save({"generator": base, "generator_ema": base}, models / "diffusion_models" / BASE)
    torch.save({"generator_lora": factors}, models / "loras" / LORA)
    (models / "vae" / VAE).write_bytes((TINY / "wan_tiny_vae.safetensors").read_bytes())
    save_file({"none": torch.zeros(1)}, models / "text_encoders" / TEXT)
    yield models


BASE, LORA = "longlive_base.pt", "lora.pt"
VAE, TEXT = "wan_2.1_vae.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"


@pytest.mark.parametrize("name", LONGLIVE)
def test_a_longlive_workflow_is_accepted_as_it_is(
    run: RunPrompt, longlive_files: Path, name: str
) -> None:
    """It ends where the stand-in for the text encoder is noticed: UMT5-XXL does not fit a test."""
    error = run(api(name)).error
    assert error["node_type"] == "StreamT1ChunkBeamSampler"
    assert "positive: conditioning of shape [1, 77, 768]" in error["exception_message"]
    assert "UMT5-XXL text encoder (Load CLIP, type 'wan')" in error["exception_message"]


@pytest.mark.parametrize(("name", "strength"), list(zip(LONGLIVE, (0.5, 0.75), strict=True)))
def test_a_longlive_workflow_runs_on_files_of_its_layout(
    run: RunPrompt, longlive_files: Path, server: ComfyServer, name: str, strength: float
) -> None:
    """With the tiny model in the files, its text encoder, and a small size."""
    prompt = changed(api(name), "EmptyHunyuanLatentVideo", width=32, height=32, length=9)
    prompt = changed(prompt, "StreamT1LongLiveLoader", strength=strength)
    text, sampler = id_of(prompt, "CLIPTextEncode"), id_of(prompt, "StreamT1ChunkBeamSampler")
    prompt[text]["inputs"]["clip"] = ["60", 1]
    prompt[sampler]["inputs"]["steps"] = 1
    del prompt[id_of(prompt, "CLIPLoader")]
    prompt["60"] = {"class_type": "StreamT1TinyModel", "inputs": {}}
    done = run(prompt)
    assert done.error is None
    (found,) = done.outputs["1"]["text"]
    assert re.fullmatch(
        r"longlive_base.pt: Wan 2.1 .*; LoRA lora.pt: \d+ layers, strength .*", found
    )
    assert found in server.log()


def short(name: str, frames: int) -> dict[str, dict]:
    """A workflow of the tiny model at 32 x 32 pixels and one step: seconds instead of a minute."""
    prompt = changed(api(name), "EmptyHunyuanLatentVideo", width=32, height=32, length=frames)
    return changed(prompt, "StreamT1ChunkBeamSampler", steps=1)


def frames_of_the_video(server: ComfyServer, name: str) -> int:
    (path,) = (server.output / "video").glob(f"{name}_*.mp4")
    with av.open(path) as video:
        return sum(1 for _ in video.decode(video=0))


@pytest.mark.parametrize(
    ("name", "frames"), [("start_from_image", 25), ("extend", 9), ("reroll", 9)]
)
def test_a_workflow_of_the_tiny_model_runs_to_a_video(
    run: RunPrompt, server: ComfyServer, name: str, frames: int
) -> None:
    assert run(short(name, frames)).error is None
    assert frames_of_the_video(server, name) == frames


def test_the_timeline_writes_its_video_and_switches(run: RunPrompt, server: ComfyServer) -> None:
    """Five chunks: up to the first switch."""
    done = run(short("timeline", 57))
    assert done.error is None
    assert frames_of_the_video(server, "timeline") == 57
    (saved,) = done.outputs["17"]["reports"]
    report = server.output / saved["subfolder"] / saved["filename"]
    events = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    prompts = [e["prompt"] for e in events if e["event"] == "chunk_done"]
    assert prompts == [None] * 4 + ["a red circle moving right on a dark background"]


def test_extend_goes_on_as_its_note_says(run: RunPrompt, server: ComfyServer) -> None:
    name = "extended_by_a_test"
    for frames in (9, 21):
        done = run(changed(short("extend", frames), "StreamT1Reel", name=name))
        assert done.error is None
        take = server.output / "stream_t1" / "reels" / name / "take_001"
        times = [path.stat().st_mtime_ns for path in sorted(take.glob("chunk_*.safetensors"))]
        assert len(times) == {9: 1, 21: 2}[frames]
