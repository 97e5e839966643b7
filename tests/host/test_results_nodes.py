"""Evaluate, Doctor, Save Report and Report Plot in a real server."""

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


HOSTILE = "</script><img src=x onerror=alert(1)><!-- \u2028"


def report_of(prompt: str, *more: str) -> str:
    """A report of one chunk and two candidates, as a pipeline may hand it in."""
    lost = {"parent": 0, "seed": 43, "short": 0.5, "long": 0.25, "fused": 0.25, "parts": {}}
    lost |= {"route": None, "rank": None, "failure": None, "kept": False}
    won = {**lost, "seed": 42, "long": 0.75, "fused": 0.75, "rank": 0, "kept": True}
    done = {"event": "chunk_done", "chunk": 0, "candidates": [lost, won], "sinks": [1]}
    done |= {"seconds": {"denoise": 1.0}, "kv_bytes": 1000, "left_out": {}}
    started = {"event": "run_started", "version": 1, "settings": {}, "prompt": prompt, "chunks": 1}
    ended = {"event": "run_done", "final_scores": [0.75], "best_beam": 0}
    return "\n".join([*map(json.dumps, (started, done, ended)), *more])


def given(text: str) -> dict:
    return {"40": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": text}}}


def saved(prefix: str, report: list) -> dict:
    inputs = {"report": report, "filename_prefix": prefix}
    return {"41": {"class_type": "StreamT1SaveReport", "inputs": inputs}}


def plotted(report: list) -> dict:
    return {
        "42": {"class_type": "StreamT1ReportPlot", "inputs": {"report": report}},
        "43": {
            "class_type": "SaveImage",
            "inputs": {"images": ["42", 0], "filename_prefix": "plot"},
        },
    }


def test_a_made_run_is_plotted_and_saved_as_lines_and_page(
    run: RunPrompt, server: ComfyServer
) -> None:
    prompt = changed(made(703, frames=33), "StreamT1SaveReport", filename_prefix="pages/run")
    done = run({**prompt, **plotted(["14", 2])})
    assert done.error is None
    told = done.outputs[id_of(prompt, "StreamT1SaveReport")]
    (lines,), (page,) = told["reports"], told["pages"]
    assert lines == {"filename": "run_00001_.jsonl", "subfolder": "pages", "type": "output"}
    assert page == {"filename": "run_00001_.html", "subfolder": "pages", "type": "output"}
    assert told["text"][0].splitlines() == ["pages/run_00001_.jsonl", "pages/run_00001_.html"]
    record = (server.output / "pages" / "run_00001_.jsonl").read_text(encoding="utf-8")
    text = (server.output / "pages" / "run_00001_.html").read_text(encoding="utf-8")
    _, _, data = text.partition('id="run">')
    data = json.loads(data.partition("</script>")[0])
    told = [message["record"] for message in data["messages"]]
    assert told == [*map(json.loads, record.splitlines())]
    assert len(data["strips"]) == 3 * 4  # the server remembers this run's pictures
    (drawn_file,) = done.outputs["43"]["images"]
    picture = Image.open(server.output / drawn_file["filename"])
    assert 900 <= picture.width <= 1280 and picture.height > 500


def test_markup_in_a_report_is_text_in_page_and_plot(run: RunPrompt, server: ComfyServer) -> None:
    done = run(
        {**given(report_of(HOSTILE)), **saved("pages/evil", ["40", 0]), **plotted(["40", 0])}
    )
    assert done.error is None
    (page,) = done.outputs["41"]["pages"]
    text = (server.output / "pages" / page["filename"]).read_text(encoding="utf-8")
    assert "<img" not in text and text.count("</script>") == 2
    assert "<title>Stream-T1: &lt;/script&gt;&lt;img src=x" in text


def test_a_report_without_a_page_is_saved_all_the_same(run: RunPrompt, server: ComfyServer) -> None:
    broken = report_of("a red circle", "<html>")
    done = run({**given(broken), **saved("pages/odd", ["40", 0])})
    assert done.error is None
    (lines,) = done.outputs["41"]["reports"]
    assert (server.output / "pages" / lines["filename"]).read_text() == broken
    assert "pages" not in done.outputs["41"]
    assert "no page: report line 4 is not JSON" in done.outputs["41"]["text"][0]


def test_a_plot_of_what_is_no_report_names_node_and_line(run: RunPrompt) -> None:
    done = run({**given(report_of("a red circle", "{}")), **plotted(["40", 0])})
    assert "Report Plot: report line 4: event null is not known" in done.error["exception_message"]
