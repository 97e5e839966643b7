"""The slider that moves a run's budget while it runs: where it stands, what it posts, what follows.

A Director holds the run at each chunk, so that nothing depends on how fast the machine is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Request, Route
from test_director import plug_in, wait_for_question
from test_panel import OLDEST_AND_NEWEST, newest_report, open_workflow, queue, wait_for_status

from devtools.server import ComfyServer

Screenshot = Callable[[str], Path]
MOST = 8  # candidates that the quickstart's Reward Pruner allows


@pytest.fixture
def posted(page: Page) -> list[float]:
    """The qualities that the page has sent."""
    sent: list[float] = []

    def note(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/quality"):
            sent.append(json.loads(request.post_data)["quality"])

    page.on("request", note)
    return sent


def drag_to_the_end(page: Page, slider: Locator) -> None:
    """In several steps, as a hand does."""
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * float(slider.input_value()), middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 20, middle, steps=8)
    page.mouse.up()


def bar_of(page: Page) -> str:
    return page.locator(".stream-t1-panel .quality").inner_text().replace("\n", " ")


@OLDEST_AND_NEWEST
def test_the_slider_moves_what_later_chunks_get(
    page: Page,
    server: ComfyServer,
    screenshot: Screenshot,
    posted: list[float],
    page_errors: list[str],
) -> None:
    open_workflow(page, "quickstart", length=57, seed=801)
    plug_in(page, "StreamT1Director", "director", timeout_seconds=110)
    slider = page.locator(".stream-t1-panel .quality input")
    assert not slider.is_visible()
    queue(page)
    wait_for_question(page, 1)
    assert bar_of(page) == "Quality 0.40 from chunk 2 on"
    drag_to_the_end(page, slider)
    page.wait_for_timeout(2500)  # the editor keeps a draft of the workflow; the pictures come
    assert posted == [1]
    screenshot("quality")

    page.reload()
    page.wait_for_selector(".stream-t1-panel")
    wait_for_question(page, 1)
    assert bar_of(page) == "Quality 1.00 from chunk 2 on"

    keep(page, 1)
    wait_for_question(page, 2)
    keep(page, 2)
    wait_for_question(page, 3)
    words = page.locator(".stream-t1-panel .words")
    page.locator('.cell[data-chunk="1"]').first.click()
    assert "Budget: 6 candidates, 1 kept; took " in words.inner_text()
    assert " predicted) and " in words.inner_text()
    screenshot("quality-raised")

    slider.focus()
    page.keyboard.press("Home")
    assert bar_of(page) == "Quality 0.00 from chunk 4 on"
    keep(page, 3)
    wait_for_question(page, 4)
    keep(page, 4)
    wait_for_question(page, 5)
    assert bar_of(page) == "Quality 0.00 the last chunk is being made"
    assert slider.is_disabled()
    keep(page, 1)
    wait_for_status(page, "Done")
    assert not slider.is_visible()
    assert posted == [1, 0]
    chunks = [record for record in newest_report(server) if record["event"] == "chunk_done"]
    assert [len(record["candidates"]) for record in chunks] == [4, 6, MOST, 6, 4]
    assert not [text for text in page_errors if "ComfyUI-Stream-T1" in text]


def keep(page: Page, candidate: int) -> None:
    page.get_by_text(f"Keep {candidate}", exact=True).click()


@OLDEST_AND_NEWEST
def test_a_move_that_is_refused_is_told_and_taken_back(
    page: Page, server: ComfyServer, posted: list[float]
) -> None:
    open_workflow(page, "quickstart", length=21, seed=802)
    plug_in(page, "StreamT1Director", "director", timeout_seconds=110)
    queue(page)
    wait_for_question(page, 1)

    def refuse(route: Route) -> None:
        route.fulfill(status=409, body="no more of it")

    page.route("**/quality", refuse)
    drag_to_the_end(page, page.locator(".stream-t1-panel .quality input"))
    page.get_by_text("Stream-T1: the quality was not moved").first.wait_for()
    assert page.get_by_text("no more of it").first.is_visible()
    assert posted == [1]
    assert bar_of(page) == "Quality 0.40 from chunk 2 on"
    keep(page, 1)
    wait_for_question(page, 2)
    keep(page, 2)
    wait_for_status(page, "Done")
    chunks = [record for record in newest_report(server) if record["event"] == "chunk_done"]
    assert [len(record["candidates"]) for record in chunks] == [4, 4]
