"""What `dev.py demo` does once its server is up: gather the results, or name the node at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from devtools import run_demo
from devtools.server import ComfyServer


def write_workflow(folder: Path, width: int, color: int) -> Path:
    """25 frames of one colour as a video, from the host's own nodes."""
    image = {"width": width, "height": 64, "batch_size": 25, "color": color}
    video = {"images": ["1", 0], "fps": 16.0}
    saved = {"video": ["2", 0], "filename_prefix": "demo/plain", "format": "auto", "codec": "auto"}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "CreateVideo", "inputs": video},
        "3": {"class_type": "SaveVideo", "inputs": saved},
    }
    path = folder / "workflow.json"
    path.write_text(json.dumps(prompt))
    return path


def test_the_video_and_its_contact_sheet_are_gathered(server: ComfyServer, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path, width=64, color=0xFF0000)
    assert run_demo.main(server.url, workflow, server.output, tmp_path / "made") == 0
    (video,) = (tmp_path / "made").glob("*.mp4")
    with Image.open(video.with_suffix(".png")) as sheet:
        assert sheet.size == (8 * 164 - 4, 4 * 164 - 4)  # 25 frames in rows of 8, 4 pixels apart
        red, green, _ = sheet.convert("RGB").getpixel((10, 10))
    assert red > 200 and green < 40


def test_a_refused_workflow_names_node_and_value(
    server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = write_workflow(tmp_path, width=-3, color=0)
    assert run_demo.main(server.url, workflow, server.output, tmp_path / "made") == 1
    assert "node 1 (EmptyImage): Value -3 smaller than min" in capsys.readouterr().err


def test_a_failing_node_is_named(
    server: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow = write_workflow(tmp_path, width=63, color=0)  # h264 wants even sides
    assert run_demo.main(server.url, workflow, server.output, tmp_path / "made") == 1
    assert "node 3 (SaveVideo) failed: " in capsys.readouterr().err
