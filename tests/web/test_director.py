"""Acting on a run in the panel: choosing while it waits, and rerolling and picking with a Reel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page
from test_panel import (
    IN_SIGHT,
    OLDEST_AND_NEWEST,
    SAMPLER,
    newest_report,
    open_workflow,
    queue,
    wait_for_status,
)

from devtools.server import ComfyServer

Screenshot = Callable[[str], Path]
BAR = "() => document.querySelector('.stream-t1-panel .question:not([hidden]) .ask')?.textContent"
ACTIONS = """() => [...document.querySelectorAll('.stream-t1-panel .actions:not([hidden]) button')]
  .map(button => button.textContent)"""
# Adds a node and plugs it into the sampler's input; the values are its widgets'.
PLUG_IN = """([type, input, sampler, values]) => {
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  const to = app.graph._nodes.find(node => node.type === sampler);
  node.pos = [to.pos[0] - 400, to.pos[1]];
  node.connect(0, to, to.inputs.findIndex(({ name }) => name === input));
  for (const [name, value] of Object.entries(values))
    node.widgets.find(widget => widget.name === name).value = value; }"""
WIDGETS = """type => Object.fromEntries(app.graph._nodes.find(node => node.type === type)
  .widgets.map(({ name, value }) => [name, value]))"""
# What was posted to /prompt, as it was when it was posted.
LISTEN = """() => { window.posted = []; const { queuePrompt } = app.api;
  app.api.queuePrompt = function (number, prompt, ...rest) {
    window.posted.push(JSON.parse(JSON.stringify(prompt.output)));
    return queuePrompt.call(this, number, prompt, ...rest); }; }"""


def plug_in(page: Page, type_: str, name: str, /, **values: object) -> None:
    page.evaluate(PLUG_IN, [type_, name, SAMPLER, values])
    page.evaluate(IN_SIGHT, SAMPLER)
    page.evaluate("() => { app.canvas.ds.scale = 0.7; }")  # the buttons below the tree, too


def wait_for_question(page: Page, chunk: int) -> str:
    told = f"chunk => ({BAR})()?.includes(`for chunk ${{chunk}}:`)"
    page.wait_for_function(told, arg=chunk, timeout=120_000)
    return page.evaluate(BAR)


def seconds_left(words: str) -> int:
    return int(words.partition(": ")[2].partition("\N{NO-BREAK SPACE}s left")[0])


@OLDEST_AND_NEWEST
def test_the_artist_chooses_in_the_panel(
    page: Page, server: ComfyServer, screenshot: Screenshot, page_errors: list[str]
) -> None:
    open_workflow(page, "quickstart", length=33, seed=701)
    plug_in(page, "StreamT1Director", "director", timeout_seconds=110)
    queue(page)
    before = wait_for_question(page, 1)
    assert "then the score decides (candidate " in before
    page.wait_for_timeout(2500)  # the editor keeps a draft of the workflow; the pictures come
    screenshot("director")
    films = page.locator('.cell.open[data-chunk="0"] .film')
    assert films.count() == 4 and "url(" in films.first.evaluate("f => f.style.backgroundImage")
    page.reload()
    page.wait_for_selector(".stream-t1-panel")
    assert seconds_left(wait_for_question(page, 1)) < seconds_left(before)

    page.evaluate("() => [...document.querySelectorAll('.keep button')][3].focus()")
    page.keyboard.press("Enter")
    wait_for_question(page, 2)
    assert page.locator('.cell.final[data-chunk="0"][data-candidate="3"]').count() == 1

    other = page.context.new_page()
    other.goto(server.url)
    wait_for_question(other, 2)
    other.get_by_text("Keep 2", exact=True).click(modifiers=["Shift"])
    other.get_by_text("Keep 1", exact=True).click()
    other.close()
    wait_for_question(page, 3)  # this page follows
    page.get_by_text("Keep 3", exact=True).click()
    wait_for_status(page, "Done")

    chunks = [record for record in newest_report(server) if record["event"] == "chunk_done"]
    assert [record["chosen"] for record in chunks] == ["artist"] * 3
    ranks = [[candidate["rank"] for candidate in record["candidates"]] for record in chunks]
    # one path gets as many candidates as two: the Budget's
    assert ranks == [[None, None, None, 0], [1, 0, None, None], [None, None, 0, None]]
    assert page.evaluate(BAR) is None
    assert not [text for text in page_errors if "ComfyUI-Stream-T1" in text]


@OLDEST_AND_NEWEST
def test_a_reroll_and_a_pick_set_the_reels_widgets_and_queue(
    page: Page, server: ComfyServer, screenshot: Screenshot
) -> None:
    open_workflow(page, "quickstart", length=21, seed=702)
    assert page.evaluate(ACTIONS) == []
    plug_in(page, "StreamT1Reel", "reel", name="rerolled in the panel")
    page.evaluate(LISTEN)
    queue(page)
    wait_for_status(page, "Done")
    page.locator('.cell.pruned[data-chunk="1"]').first.click()
    assert [text.partition(" c")[0] for text in page.evaluate(ACTIONS)] == ["Reroll from", "Keep"]
    screenshot("reel-actions")
    page.get_by_text("Reroll from chunk 2").click()
    page.wait_for_function("() => posted.length === 2")
    assert asked_of(page, 1) == {"action": "reroll", "chunk": 2}
    page.wait_for_function("() => document.querySelectorAll('.runs option').length === 2")
    wait_for_status(page, "Done")
    assert page.evaluate(WIDGETS, "StreamT1Reel")["action"] == "continue"

    cell = page.locator('.cell.pruned[data-chunk="0"]').first
    candidate = int(cell.get_attribute("data-candidate")) + 1
    cell.click()
    page.get_by_text(f"Keep candidate {candidate} instead").click()
    page.wait_for_function("() => posted.length === 3")
    assert asked_of(page, 2, "candidate") == {
        "action": "pick",
        "chunk": 1,
        "candidate": candidate,
    }
    page.wait_for_function("() => document.querySelectorAll('.runs option').length === 3")
    wait_for_status(page, "Done")

    page.locator('.cell.final[data-chunk="0"]').click()
    page.get_by_text("Lock chunk 1").click()
    assert page.evaluate(WIDGETS, "StreamT1Reel")["lock"] == 1
    assert page.evaluate("() => posted.length") == 3


def asked_of(page: Page, prompt: int, *more: str) -> dict:
    """What a posted prompt asks of its Reel node."""
    posted = json.loads(page.evaluate("number => JSON.stringify(posted[number])", prompt))
    (reel,) = [node for node in posted.values() if node["class_type"] == "StreamT1Reel"]
    return {name: reel["inputs"][name] for name in ("action", "chunk", *more)}
