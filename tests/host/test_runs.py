"""The nodes in a real server, run to the end: progress, previews, results, seeds, Cancel."""

from __future__ import annotations

import concurrent.futures
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from graphs import api, changed, id_of, reports, small
from PIL import Image

from devtools.client import Run, interrupt
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]


def with_latent_saved(prompt: dict, name: str) -> dict:
    sampler = id_of(prompt, "StreamT1ChunkBeamSampler")
    node = {"class_type": "SaveLatent", "inputs": {"samples": [sampler, 0]}}
    node["inputs"]["filename_prefix"] = name
    return {**prompt, "90": node}


def latent(server: ComfyServer, name: str) -> dict:
    return safetensors.torch.load_file(server.output / f"{name}_00001_.latent")["latent_tensor"]


def test_progress_counts_denoiser_calls_and_shows_each_chunk(run: RunPrompt) -> None:
    done = run(small(frames=21, steps=2, seed=101))
    assert done.error is None
    progress = [m for m in done.of_type("progress") if m["node"] == "14"]
    calls = 2 * (4 * 2 + 2)  # two chunks: four candidates of two steps, two context passes
    assert [m["value"] for m in progress] == sorted(m["value"] for m in progress)
    assert progress[-1]["value"] == progress[-1]["max"] == calls
    pictures = [m for m in done.of_type("preview") if m["metadata"].get("node_id") == "14"]
    assert len(pictures) == 2
    assert Image.open(io.BytesIO(pictures[-1]["image"])).width > 32


def test_video_and_report_are_saved(run: RunPrompt, server: ComfyServer) -> None:
    prompt = small(frames=21, seed=102)
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix="told/by_seed_102")
    done = run(prompt)
    (saved,) = done.outputs["17"]["reports"]
    assert saved == {"filename": "by_seed_102_00001_.jsonl", "subfolder": "told", "type": "output"}
    (events,) = reports(server.output / "told")
    assert [e["event"] for e in events] == ["run_started", "chunk_done", "chunk_done", "run_done"]
    assert [len(e["candidates"]) for e in events[1:3]] == [4, 4]
    assert events[0]["settings"]["noise"] == {"beta": -0.1}
    assert done.outputs["16"]["images"][0]["filename"].endswith(".mp4")


def test_early_pruning_saves_calls_and_tells_who_went(run: RunPrompt, server: ComfyServer) -> None:
    prompt = small(frames=21, steps=2, seed=113)
    prompt = changed(prompt, "StreamT1RewardPruner", early_share=0.25, early_step=1)
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix="early/report")
    done = run(prompt)
    assert done.error is None
    (events,) = reports(server.output / "early")
    assert events[0]["settings"]["search"]["early"] == {"step": 1, "share": 0.25}
    assert events[0]["denoiser_calls"] == 2 * (4 + 3 + 2)  # steps of four, of three, context passes
    for chunk in events[1:3]:
        assert (len(chunk["candidates"]), len(chunk["pruned_early"])) == (3, 1)
    progress = [m for m in done.of_type("progress") if m["node"] == "14"]
    assert progress[-1]["value"] == progress[-1]["max"] == events[0]["denoiser_calls"]


def test_a_model_compiled_by_the_hosts_node_makes_the_same(
    run: RunPrompt, server: ComfyServer
) -> None:
    """Where there is no compiler the log says that the run went on without."""
    plain = with_latent_saved(small(seed=114), "as_it_is")
    node = {"class_type": "TorchCompileModel", "inputs": {"backend": "inductor"}}
    node["inputs"]["model"] = [id_of(plain, "StreamT1TinyModel"), 0]
    compiled = with_latent_saved({**small(seed=114, model=["80", 0]), "80": node}, "compiled")
    for prompt in (plain, compiled):
        assert run(prompt).error is None
    made = [latent(server, name) for name in ("as_it_is", "compiled")]
    torch.testing.assert_close(*made, atol=1e-3, rtol=0)
    missed = "TorchCompileModel: compiling failed" in server.log()
    assert missed == (shutil.which("g++") is None)


def test_a_unit_not_plugged_in_is_off(run: RunPrompt, server: ComfyServer) -> None:
    prompt = small(frames=9, seed=103, noise=None, pruner=None, memory=None)
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix="plain/report")
    assert run(prompt).error is None
    (events,) = reports(server.output / "plain")
    settings = events[0]["settings"]
    assert settings["noise"] is None and settings["search"] is None
    assert settings["memory"]["routing"] is False
    assert len(events[1]["candidates"]) == 1


def test_same_seed_same_bytes_and_another_seed_not(run: RunPrompt, server: ComfyServer) -> None:
    """The host forgets in between, so all is made anew."""
    for name, seed in (("first", 5), ("again", 5), ("other", 50)):
        assert run(with_latent_saved(small(frames=21, seed=seed), name)).error is None
        server.post("/free", {"unload_models": True, "free_memory": True})
    first, again, other = (latent(server, name) for name in ("first", "again", "other"))
    assert first.equal(again)
    assert not first.equal(other)
    assert first.shape == (1, 16, 6, 4, 4)


def test_any_length_is_trimmed_to_what_was_asked(run: RunPrompt, server: ComfyServer) -> None:
    prompt = small(frames=13, seed=104, pruner=None, memory=None)  # 4 latent frames: 2 chunks
    assert run(with_latent_saved(prompt, "trimmed")).error is None
    assert latent(server, "trimmed").shape[2] == 4


def test_one_frame_chunks_and_isolated_scores_run(run: RunPrompt) -> None:
    prompt = small(frames=9, seed=105, frames_per_chunk=1, isolated=True)
    assert run(prompt).error is None


def test_the_saved_latent_decodes_to_the_samplers_images(
    run: RunPrompt, server: ComfyServer
) -> None:
    """The LATENT socket carries what VAE Decode expects."""
    prompt = small(frames=21, seed=106, pruner=None, memory=None)
    prompt |= {
        "80": {"class_type": "VAEDecode", "inputs": {"samples": ["14", 0], "vae": ["1", 2]}},
        "81": save_image(["80", 0], "decoded"),
        "82": save_image(["14", 1], "streamed"),
    }
    assert run(prompt).error is None
    decoded, streamed = (sorted(server.output.glob(f"{n}_*.png")) for n in ("decoded", "streamed"))
    assert len(decoded) == len(streamed) == 21
    for a, b in zip(decoded, streamed, strict=True):
        differences = zip(Image.open(a).tobytes(), Image.open(b).tobytes(), strict=True)
        assert max(abs(x - y) for x, y in differences) <= 1


def test_the_vae_makes_the_video_where_a_tiny_one_scores(
    run: RunPrompt, server: ComfyServer
) -> None:
    prompt = small(frames=21, seed=109, scoring_vae=["1", 3])
    prompt = changed(prompt, "StreamT1SaveReport", filename_prefix="scored/report")
    prompt |= {
        "80": {"class_type": "VAEDecode", "inputs": {"samples": ["14", 0], "vae": ["1", 2]}},
        "81": save_image(["80", 0], "whole"),
        "82": save_image(["14", 1], "shown"),
    }
    assert run(prompt).error is None
    whole, shown = (sorted(server.output.glob(f"{n}_*.png")) for n in ("whole", "shown"))
    assert len(whole) == len(shown) == 21
    for a, b in zip(whole, shown, strict=True):
        differences = zip(Image.open(a).tobytes(), Image.open(b).tobytes(), strict=True)
        assert max(abs(x - y) for x, y in differences) <= 1
    (events,) = reports(server.output / "scored")
    assert all("video" in event["seconds"] for event in events[1:3])


def save_image(images: list, name: str) -> dict:
    return {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}


def test_cancel_keeps_the_finished_chunks(run: RunPrompt, server: ComfyServer) -> None:
    """Latents that Load Latent reads, and the report so far."""
    after_cancel = []

    def cancel_at_the_first_preview(message: dict) -> None:
        if after_cancel:
            after_cancel.append(message)
        elif message["type"] == "preview":
            after_cancel.append(message)
            interrupt(server.url)

    folder = server.output / "stream_t1"
    before = set(folder.glob("*.latent"))
    done = run(small(frames=201, steps=2, seed=107), cancel_at_the_first_preview)
    assert done.interrupted
    (path,) = set(folder.glob("stopped_*.latent")) - before
    tensors = safetensors.torch.load_file(path)
    assert tensors["latent_tensor"].shape[2] % 3 == 0 and "latent_format_version_0" in tensors
    events = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "run_stopped"
    assert len(events) == 2 + tensors["latent_tensor"].shape[2] // 3
    assert str(path) in server.log()
    assert run(small(frames=9, seed=108)).error is None  # the next run is not affected


def test_two_prompts_queued_at_once_both_end(run: RunPrompt, server: ComfyServer) -> None:
    prompts = [
        with_latent_saved(small(frames=9, seed=110 + 100 * i), f"queued{i}") for i in range(2)
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, prompts))
    assert all(done.error is None for done in runs)
    assert not latent(server, "queued0").equal(latent(server, "queued1"))


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "../../etc/passwd %s {0} ${HOME} $(id)",
    "a red circle" * 400,
    "\u202e\u0000\n\t\\ '; DROP TABLE prompts; --",
    "((((a:9)))) embedding:none",
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_prompt_is_only_a_prompt(run: RunPrompt, text: str) -> None:
    prompt = changed(small(seed=120, pruner=None, memory=None), "CLIPTextEncode", text=text)
    assert run(prompt).error is None


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "a/../../outside"])
def test_a_report_stays_in_the_output_folder(
    run: RunPrompt, server: ComfyServer, prefix: str
) -> None:
    prompt = small(seed=121, pruner=None, memory=None)
    done = run(changed(prompt, "StreamT1SaveReport", filename_prefix=prefix))
    assert "outside the output folder" in done.error["exception_message"]
    assert not list(server.output.parent.glob("outside*"))
    assert not list(Path("/tmp").glob("outside*jsonl"))


def test_the_ablation_runs_to_one_video(run: RunPrompt, server: ComfyServer) -> None:
    prompt = api("ablation")
    prompt = changed(prompt, "EmptyHunyuanLatentVideo", width=32, height=32, length=9)
    for node in prompt.values():
        if node["class_type"] == "StreamT1ChunkBeamSampler":
            node["inputs"]["steps"] = 1
    done = run(prompt)
    assert done.error is None
    assert len(list((server.output / "video").glob("ablation_*.jsonl"))) == 4
    assert len(list((server.output / "video").glob("ablation_*.mp4"))) == 1


def test_the_quickstart_runs_as_it_is(run: RunPrompt, server: ComfyServer) -> None:
    done = run(api("quickstart"))
    assert done.error is None
    (saved,) = done.outputs["17"]["reports"]
    report = server.output / saved["subfolder"] / saved["filename"]
    events = [json.loads(line) for line in report.read_text().splitlines()]
    assert [e["event"] for e in events] == ["run_started", *["chunk_done"] * 7, "run_done"]
    assert [len(e["candidates"]) for e in events[1:8]] == [4] * 7  # of eight: its Budget's slider
    assert {c["route"] for e in events[2:8] for c in e["candidates"]} <= {"drop", "blend", "append"}
