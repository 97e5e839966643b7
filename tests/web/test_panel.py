"""The live panel on the sampler: what it shows is what the report says, and it survives.

Each run is the quickstart, shorter. What is on the page is read off as a person would read it, or
have it read out: the labels of the cells, the status line, the words about a candidate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from devtools.server import PACK_ROOT, ComfyServer

Screenshot = Callable[[str], Path]
SAMPLER = "StreamT1ChunkBeamSampler"
OLDEST_AND_NEWEST = pytest.mark.parametrize(
    ("front_end", "node_style"), [("1.32.9", "classic"), ("1.58.1", "nodes2")], indirect=True
)
NEWEST = pytest.mark.parametrize(
    ("front_end", "node_style"), [("1.58.1", "classic")], indirect=True
)
# Empty while the front end has taken one workflow's nodes away and not yet drawn the next one's.
STATUS = "() => document.querySelector('.stream-t1-panel .status')?.textContent ?? ''"
WORDS = "() => document.querySelector('.stream-t1-panel .words').innerText"
CELLS = """() => [...document.querySelectorAll('.stream-t1-panel .cell')].map(cell => ({
  chunk: Number(cell.dataset.chunk), candidate: Number(cell.dataset.candidate),
  label: cell.getAttribute('aria-label'), kinds: [...cell.classList],
}))"""
RUNS = """() => [...document.querySelectorAll('.stream-t1-panel .runs option')]
  .map(option => option.textContent)"""
PANELS = """() => [...document.querySelectorAll('.stream-t1-panel')].map(panel => [
  panel.querySelector('.status').textContent, panel.querySelectorAll('.cell').length])"""
SET = """changes => { for (const [type, name, value] of changes)
  for (const node of app.graph._nodes.filter(node => node.type === type))
    node.widgets.find(widget => widget.name === name).value = value; }"""
IN_SIGHT = """type => { const node = app.graph._nodes.find(node => node.type === type);
  const { ds } = app.canvas; ds.scale = 1;
  ds.offset[0] = 80 - node.pos[0]; ds.offset[1] = 110 - node.pos[1];
  app.canvas.setDirty(true, true); }"""


def open_workflow(page: Page, name: str, length: int, seed: int, prompt: str = "") -> None:
    """A shipped workflow, cut to `length` pixel frames, with its (first) sampler in sight."""
    path = PACK_ROOT / "workflows" / f"{name}.json"
    page.evaluate("text => app.loadGraphData(JSON.parse(text))", path.read_text(encoding="utf-8"))
    changes: list[list] = [
        ["EmptyHunyuanLatentVideo", "length", length],
        [SAMPLER, "seed", seed],
        [SAMPLER, "steps", 2],
    ]
    if prompt:
        changes.append(["PrimitiveStringMultiline", "value", prompt])
    page.evaluate(SET, changes)
    page.evaluate(IN_SIGHT, SAMPLER)


def queue(page: Page) -> None:
    page.evaluate("() => app.queuePrompt(0, 1)")


def wait_for_status(page: Page, start: str) -> str:
    page.wait_for_function(f"start => ({STATUS})().startsWith(start)", arg=start, timeout=120_000)
    return page.evaluate(STATUS)


def wait_for_chunks(page: Page, count: int) -> None:
    made = "[...document.querySelectorAll('.stream-t1-panel .cell')].map(c => +c.dataset.chunk)"
    page.wait_for_function(f"n => Math.max(-1, ...{made}) >= n - 1", arg=count, timeout=120_000)


def newest_report(server: ComfyServer) -> list[dict]:
    paths = sorted(server.output.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(line) for line in paths[-1].read_text().splitlines()]


def final_path(events: list[dict]) -> list[int]:
    """The candidate of each chunk that the finished video is made of."""
    *_, done = events
    rank, path = done["best_beam"], []
    for event in reversed([e for e in events if e["event"] == "chunk_done"]):
        (index,) = [i for i, c in enumerate(event["candidates"]) if c["rank"] == rank]
        path.insert(0, index)
        rank = event["candidates"][index]["parent"]
    return path


def number_after(word: str, label: str) -> tuple[float, float]:
    """The number that follows `word`, and half a unit of its last digit."""
    text = re.search(rf"{word} (\N{{MINUS SIGN}}?[\d.]+)", label).group(1)
    decimals = len(text.partition(".")[2])
    return float(text.replace("\N{MINUS SIGN}", "-")), 0.5 * 10**-decimals + 1e-9


@pytest.mark.parametrize(
    ("front_end", "node_style"),
    [("1.32.9", "classic"), ("1.45.20", "nodes2"), ("1.58.1", "classic"), ("1.58.1", "nodes2")],
    indirect=True,
)
def test_the_tree_is_what_the_report_says(
    page: Page, server: ComfyServer, screenshot: Screenshot, page_errors: list[str]
) -> None:
    open_workflow(page, "quickstart", length=33, seed=501)
    queue(page)
    wait_for_status(page, "Done")
    page.wait_for_timeout(1000)  # for the pictures
    screenshot("panel")
    events = newest_report(server)
    path = final_path(events)
    cells = {(c["chunk"], c["candidate"]): c for c in page.evaluate(CELLS)}
    assert len(cells) == 3 * 4
    for event in events[1:-1]:
        for index, candidate in enumerate(event["candidates"]):
            cell = cells[event["chunk"], index]
            for score in ("short", "long", "fused"):
                shown, rounding = number_after(score, cell["label"])
                assert shown == pytest.approx(candidate[score], abs=rounding)
            assert ("winner" in cell["kinds"]) == (candidate["rank"] == 0)
            assert ("pruned" in cell["kinds"]) == (not candidate["kept"])
            assert ("final" in cell["kinds"]) == (path[event["chunk"]] == index)
    assert not [text for text in page_errors if "ComfyUI-Stream-T1" in text]


@OLDEST_AND_NEWEST
def test_a_reload_and_a_second_tab_see_the_run_go_on_and_stop(
    page: Page, server: ComfyServer, screenshot: Screenshot
) -> None:
    open_workflow(page, "quickstart", length=993, seed=502)
    queue(page)
    wait_for_chunks(page, 1)
    page.wait_for_timeout(1500)  # the editor keeps a draft of the workflow, after a while
    page.reload()
    page.wait_for_selector(".stream-t1-panel")
    wait_for_status(page, "Running")
    wait_for_chunks(page, 2)
    other = page.context.new_page()
    other.goto(server.url)
    other.wait_for_selector(".stream-t1-panel")
    wait_for_status(other, "Running")
    page.evaluate("() => app.api.interrupt()")
    assert wait_for_status(page, "Stopped").endswith("cancelled")
    wait_for_status(other, "Stopped")
    screenshot("panel-stopped")
    assert page.evaluate(CELLS)  # what it had is still there
    other.close()


@OLDEST_AND_NEWEST
def test_markup_in_a_prompt_is_shown_as_text(page: Page, screenshot: Screenshot) -> None:
    hostile = (
        "<img src=x onerror='window.harmed = 1'><script>window.harmed = 1</script> a red circle"
    )
    open_workflow(page, "quickstart", length=9, seed=503, prompt=hostile)
    queue(page)
    wait_for_status(page, "Done")
    page.wait_for_timeout(500)
    screenshot("panel-hostile")
    assert (
        page.evaluate("() => document.querySelector('.stream-t1-panel .prompt').textContent")
        == hostile
    )
    assert page.evaluate("() => document.querySelectorAll('.stream-t1-panel img').length") == 0
    assert page.evaluate("() => window.harmed") is None


@NEWEST
def test_the_keyboard_reaches_every_candidate(page: Page) -> None:
    open_workflow(page, "quickstart", length=21, seed=504)
    queue(page)
    wait_for_status(page, "Done")
    page.evaluate("() => document.querySelector('.stream-t1-panel .cell[tabindex=\"0\"]').focus()")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowUp")
    assert (
        page.evaluate(WORDS)
        .partition("\n")[0]
        .startswith(("★ Chunk 1", "● Chunk 1", "× Chunk 1", "○ Chunk 1"))
    )
    focused = "() => document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused).startswith("Chunk 1, candidate 1:")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused).startswith("Chunk 2, candidate 2:")
    page.keyboard.press("Enter")
    page.evaluate("() => document.activeElement.blur()")
    assert "Chunk 2: candidate 2" in page.evaluate(WORDS)  # pinned


@NEWEST
def test_queued_runs_are_listed_and_a_report_file_opens(page: Page, server: ComfyServer) -> None:
    open_workflow(page, "quickstart", length=9, seed=505)
    queue(page)
    page.evaluate(SET, [[SAMPLER, "seed", 506]])
    queue(page)
    page.wait_for_function(f"() => ({RUNS})().length === 2", timeout=120_000)
    wait_for_status(page, "Done")
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Open report").click()
    path = max(server.output.rglob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    chooser.value.set_files(path)
    page.wait_for_function(f"() => ({RUNS})().length === 3")
    assert page.evaluate(RUNS)[-1] == "report file"
    assert wait_for_status(page, "Done")


@NEWEST
def test_a_workflow_opened_again_shows_its_run_and_another_does_not(page: Page) -> None:
    open_workflow(page, "quickstart", length=9, seed=507)
    queue(page)
    wait_for_status(page, "Done")
    saved = page.evaluate("() => JSON.stringify(app.graph.serialize())")
    assert "stream_t1_panel" not in saved
    open_workflow(page, "quickstart", length=9, seed=508)
    wait_for_status(page, "Waiting")
    page.evaluate("text => app.loadGraphData(JSON.parse(text))", saved)
    wait_for_status(page, "Done")


@NEWEST
def test_samplers_of_one_graph_show_a_run_each(page: Page) -> None:
    open_workflow(page, "ablation", length=9, seed=509)
    page.evaluate("() => { app.canvas.ds.scale = 0.25; app.canvas.setDirty(true, true); }")
    queue(page)
    done = f"() => ({PANELS})().filter(([status]) => status.startsWith('Done')).length === 4"
    page.wait_for_function(done, timeout=120_000)
    assert sorted(cells for _, cells in page.evaluate(PANELS)) == [1, 4, 4, 4]  # one: plain


@NEWEST
def test_a_sampler_in_a_subgraph_is_found(page: Page, screenshot: Screenshot) -> None:
    open_workflow(page, "quickstart", length=9, seed=510)
    wrap = """type => { app.graph.convertToSubgraph(
        new Set([app.graph._nodes.find(node => node.type === type)])); }"""
    page.evaluate(wrap, SAMPLER)
    queue(page)
    page.evaluate(
        "() => app.canvas.setGraph(app.graph._nodes.find(node => node.subgraph).subgraph)"
    )
    wait_for_status(page, "Done")
    screenshot("panel-subgraph")
    assert len(page.evaluate(CELLS)) == 4


@OLDEST_AND_NEWEST
def test_the_panel_leads_to_the_video_that_is_written(
    page: Page, screenshot: Screenshot, page_errors: list[str]
) -> None:
    """As a preview on the node the file was loaded as a picture, which pages refuse."""
    open_workflow(page, "timeline", length=33, seed=601)
    page.evaluate(SET, [["StreamT1PromptTimeline", "text", "a red circle moving left"]])
    queue(page)
    wait_for_status(page, "Done: 3 chunks")
    link = page.locator(".stream-t1-panel .video")
    assert link.is_visible()
    answer = page.request.get(link.evaluate("link => link.href"))
    assert answer.ok and answer.headers["content-type"] == "video/mp4"
    screenshot("video-link")
    assert [text for text in page_errors if "mp4" in text] == []
