"""The pack in the editor: it loads, its workflows open unchanged, the quickstart makes a video."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from devtools.server import PACK_NAME, PACK_ROOT, ComfyServer

WORKFLOWS = sorted((PACK_ROOT / "workflows").glob("*.json"))
RUN_TIMEOUT_SECONDS = 240


def load_workflow(page: Page, path: Path) -> None:
    # As a string: Playwright would turn what is undefined into null, which the editor refuses.
    page.evaluate("text => app.loadGraphData(JSON.parse(text))", path.read_text(encoding="utf-8"))


def test_the_pack_loads(page: Page, server: ComfyServer, page_errors: list[str]) -> None:
    ids = {node for node in server.get("/object_info") if node.startswith("StreamT1")}
    assert "StreamT1ChunkBeamSampler" in ids
    assert ids <= set(page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))
    assert [text for text in page_errors if PACK_NAME in text] == []


def test_every_workflow_is_a_template_with_a_picture(server: ComfyServer) -> None:
    listed = server.get("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        folder = f"{server.url}/api/workflow_templates/{PACK_NAME}"
        with urllib.request.urlopen(f"{folder}/{path.name}") as answer:
            assert json.load(answer) == json.loads(path.read_text(encoding="utf-8"))
        with urllib.request.urlopen(f"{folder}/{path.stem}.jpg") as answer:
            assert answer.headers.get_content_type() == "image/jpeg"


def test_the_template_browser_shows_the_pack(page: Page, screenshot: Callable[[str], Path]) -> None:
    fetched: list[str] = []
    page.set_viewport_size({"width": 2400, "height": 2000})  # cards out of sight load no picture
    page.on("response", lambda answer: fetched.append(answer.url) if answer.ok else None)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK_NAME).first.click()
    # The editor shows pictures by blob addresses: which they are is seen in what it fetched.
    drawn = "n => [...document.images].filter(i => i.naturalWidth > 100).length >= n"
    page.wait_for_function(drawn, arg=len(WORKFLOWS))
    screenshot("templates")
    for path in WORKFLOWS:
        assert any(f"{PACK_NAME}/{path.stem}.jpg" in url for url in fetched), path.stem


def test_workflows_open_as_their_api_versions(
    page: Page, screenshot: Callable[[str], Path]
) -> None:
    """All in one page: to load the editor takes longer than all else."""
    for path in WORKFLOWS:
        load_workflow(page, path)
        screenshot(path.stem)
        text = page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
        api = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
        assert strip_titles(json.loads(text)) == strip_titles(api), path.stem


@pytest.mark.parametrize(
    ("front_end", "node_style"), [("1.32.9", "classic"), ("1.58.1", "nodes2")], indirect=True
)
def test_the_quickstart_runs_to_a_video(
    page: Page, server: ComfyServer, screenshot: Callable[[str], Path]
) -> None:
    """Once in the oldest front end and style and once in the newest: it is the longest test."""
    load_workflow(page, PACK_ROOT / "workflows" / "quickstart.json")
    page.evaluate("() => app.queuePrompt(0, 1)")
    entry = wait_for_history(page, server)
    page.wait_for_timeout(1500)  # for the results to be drawn
    screenshot("quickstart-done")
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    assert list(server.output.rglob("*.mp4"))


def wait_for_history(page: Page, server: ComfyServer) -> dict:
    """The history entry of the one prompt this server has run."""
    deadline = time.monotonic() + RUN_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        history = list(server.get("/history").values())
        if history:
            return history[-1]
        page.wait_for_timeout(500)
    raise TimeoutError(f"the prompt did not end in {RUN_TIMEOUT_SECONDS} s")


def strip_titles(prompt: dict[str, dict]) -> dict[str, dict]:
    """Class and inputs of each node: `_meta` holds titles, which the host does not read."""
    return {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for node_id, node in prompt.items()
    }
