"""A run as browsers see it: messages while it goes on, routes for who comes later, filmstrips."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from graphs import api, changed, reports, small
from PIL import Image

from devtools.client import Run, interrupt
from devtools.server import ComfyServer

RunPrompt = Callable[..., Run]
MESSAGE = "stream_t1.run"
KILOBYTES_PER_CHUNK = 64


def picture(server: ComfyServer, run: str, chunk: int, candidate: int) -> bytes:
    url = f"{server.url}/stream_t1/runs/{run}/{chunk}/{candidate}.jpg"
    with urllib.request.urlopen(url) as answer:
        assert answer.headers.get_content_type() == "image/jpeg"
        return answer.read()


def test_messages_are_the_report_line_by_line(run: RunPrompt, server: ComfyServer) -> None:
    prompt = changed(small(frames=21, seed=401), "StreamT1SaveReport", filename_prefix="live/told")
    messages = run(prompt, workflow="a workflow").of_type(MESSAGE)
    (saved,) = reports(server.output / "live")
    assert [m["record"] for m in messages] == saved
    assert [m["seq"] for m in messages] == [0, 1, 2, 3]
    assert {(m["node"], m["workflow"]) for m in messages} == {("14", "a workflow")}
    assert [m.get("strips") for m in messages] == [None, [6] * 4, [6] * 4, None]


def test_who_comes_later_is_told_the_same(run: RunPrompt, server: ComfyServer) -> None:
    messages = run(small(frames=9, seed=402), workflow="later").of_type(MESSAGE)
    (listed,) = server.get("/stream_t1/runs?workflow=later")
    assert listed["state"] == "done" and listed["node"] == "14"
    told = server.get(f"/stream_t1/runs/{listed['run']}")
    assert told.pop("now") >= listed["started"]
    place = {"node": "14", "workflow": "later", "reel": None, "video": None, "quality": None}
    assert told == {"run": listed["run"], **place, "messages": messages}
    assert listed in server.get("/stream_t1/runs")


def test_filmstrips_are_small_pictures_side_by_side(run: RunPrompt, server: ComfyServer) -> None:
    messages = run(small(frames=9, seed=403)).of_type(MESSAGE)
    run_id, strips = messages[0]["run"], messages[1]["strips"]
    pictures = [picture(server, run_id, 0, i) for i in range(len(strips))]
    assert sum(map(len, pictures)) <= KILOBYTES_PER_CHUNK * 1024
    for jpeg, count in zip(pictures, strips, strict=True):
        assert Image.open(io.BytesIO(jpeg)).size == (32 * count, 32)
    assert len(set(pictures)) == len(pictures)  # candidates differ


def test_an_interrupted_run_ends_with_why(run: RunPrompt, server: ComfyServer) -> None:
    def cancel(message: dict) -> None:
        if message["type"] == MESSAGE and message["data"]["record"]["event"] == "chunk_done":
            interrupt(server.url)

    run(small(frames=201, steps=2, seed=404), cancel, workflow="cut short")
    (listed,) = server.get("/stream_t1/runs?workflow=cut%20short")
    assert listed["state"] == "stopped"
    messages = server.get(f"/stream_t1/runs/{listed['run']}")["messages"]
    assert messages[-1]["record"]["event"] == "run_stopped"
    assert messages[-1]["record"]["reason"] == "cancelled"


@pytest.mark.parametrize(
    "path",
    ["never", "never/0/0.jpg", "../../etc/passwd", "%2e%2e/0/0.jpg", "RUN/99/0.jpg", "RUN/0/9.jpg"],
)
def test_what_is_not_there_is_not_found(run: RunPrompt, server: ComfyServer, path: str) -> None:
    if "RUN" in path:
        run(small(frames=9, seed=405), workflow="known")
        path = path.replace("RUN", server.get("/stream_t1/runs?workflow=known")[0]["run"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/stream_t1/runs/{path}")
    assert refused.value.code == 404


def test_markup_in_a_prompt_travels_as_text(run: RunPrompt) -> None:
    text = "</script><img src=x onerror=alert(1)> a red circle"
    prompt = small(frames=9, seed=406)
    prompt = changed(prompt, "PrimitiveStringMultiline", value=text)
    messages = run(prompt).of_type(MESSAGE)
    assert messages[0]["record"]["prompt"] == text
    assert json.loads(json.dumps(messages)) == messages


def test_two_samplers_are_two_runs(run: RunPrompt) -> None:
    prompt = api("ablation")
    prompt = changed(prompt, "EmptyHunyuanLatentVideo", width=32, height=32, length=9)
    for node in prompt.values():
        if node["class_type"] == "StreamT1ChunkBeamSampler":
            node["inputs"] |= {"steps": 1, "seed": 407}
        elif "filename_prefix" in node["inputs"]:
            node["inputs"]["filename_prefix"] = "live/samplers"  # other tests count the files
    messages = run(prompt).of_type(MESSAGE)
    assert len({m["run"] for m in messages}) == len({m["node"] for m in messages}) == 4
