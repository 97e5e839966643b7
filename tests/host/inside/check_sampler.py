"""The sampler with the host's objects in hand: what Cancel leaves, and what a failure leaves."""

import gc
import json
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import pytest
import safetensors.torch
import torch
from boot import Pack

CHUNK_CALLS = 2 * 2 * 2 + 2  # two beams, two branches, two steps; two context passes


@pytest.fixture
def output(tmp_path: Path) -> Path:
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_output_directory(before)


def sampler_inputs(pack: Pack, reward) -> dict:
    tiny, config = pack.module("nodes.host.tiny"), pack.module("stream_t1_core.config")
    clip = tiny.load_clip()
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle moving left"))
    return {
        "model": tiny.load_model(),
        "positive": prompt,
        "vae": tiny.load_vae(),
        "latent": {"samples": torch.zeros(1, 16, 9, 4, 4)},
        "seed": 1,
        "steps": 2,
        "shift": 5.0,
        "frames_per_chunk": 3,
        "isolated": False,
        "pruner": pack.module("nodes.sockets").Pruner(config.Search(2, 2), None, reward),
    }


def live(pack: Pack) -> list:
    gc.collect()
    kinds = (
        pack.module("stream_t1_core.kv").ChunkKV,
        pack.module("stream_t1_core.kv").Past,
        pack.module("stream_t1_core.streaming_vae").DecoderState,
    )
    return [thing for thing in gc.get_objects() if type(thing) in kinds]


def check_cancel_acts_within_one_denoiser_call_and_leaves_only_the_files(
    pack: Pack, output: Path
) -> None:
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    inputs = sampler_inputs(pack, pack.module("stream_t1_core.rewards.flicker").Flicker())
    seen = []

    def hook(value, total, preview, node_id=None):
        seen.append(value)
        if value >= CHUNK_CALLS + 2:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        node.execute(**inputs)
    comfy.utils.set_progress_bar_global_hook(None)
    assert sum(value >= CHUNK_CALLS + 2 for value in seen) == 1
    assert live(pack) == []
    saved = safetensors.torch.load_file(output / "stream_t1" / "stopped_00001_.latent")
    assert saved["latent_tensor"].shape == (1, 16, 3, 4, 4)
    lines = (output / "stream_t1" / "stopped_00001_.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events] == ["run_started", "chunk_done", "run_stopped"]
    assert events[-1]["reason"] == "cancelled"


def check_a_run_that_ends_leaves_no_context_behind(pack: Pack, output: Path) -> None:
    """ComfyUI keeps outputs alive: they must hold frames and numbers only."""
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    inputs = sampler_inputs(pack, pack.module("stream_t1_core.rewards.flicker").Flicker())
    latent, frames, report = node.execute(**inputs).result
    assert live(pack) == []
    assert latent["samples"].shape == (1, 16, 9, 4, 4)
    assert frames.shape == (33, 32, 32, 3) and frames.dtype == torch.float32
    assert latent["samples"].device == frames.device == torch.device("cpu")
    assert json.loads(report.splitlines()[-1])["event"] == "run_done"
    assert not (output / "stream_t1").exists()


def check_a_reward_that_fails_late_keeps_the_finished_chunks(pack: Pack, output: Path) -> None:
    """An own reward with a mistake in it, met in the second chunk."""

    def fragile(clips):
        if clips.frames.shape[1] > 9:
            raise RuntimeError("no more than nine frames")
        return clips.frames.mean(dim=(1, 2, 3, 4))

    inputs = sampler_inputs(pack, fragile)
    strict = pack.module("stream_t1_core.config").Search(2, 2, strict=True)
    inputs["pruner"] = pack.module("nodes.sockets").Pruner(strict, None, fragile)
    node = pack.module("nodes.generate").StreamT1ChunkBeamSampler
    with pytest.raises(RuntimeError, match="'long.fragile' failed on chunk 2.*than nine frames"):
        node.execute(**inputs)
    report = (output / "stream_t1" / "stopped_00001_.jsonl").read_text()
    assert "no more than nine frames" in json.loads(report.splitlines()[-1])["reason"]
