"""What a node came to is read on the node, after the run too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

PROMPT = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 48, "height": 32, "batch_size": 21, "color": 12599328},
    },
    "2": {"class_type": "StreamT1Sharpness", "inputs": {}},
    "3": {
        "class_type": "StreamT1Evaluate",
        "inputs": {
            "images": ["1", 0],
            "reward": ["2", 0],
            "prompt": "",
            "fps": 16.0,
            "frames_per_chunk": 12,
            "first_chunk": 9,
        },
    },
    "4": {"class_type": "StreamT1Doctor", "inputs": {"width": 832, "height": 480}},
}
TEXTS = "() => [...document.querySelectorAll('textarea[readonly]')].map(box => box.value)"
IDLE = "async () => (await (await fetch('/api/prompt')).json()).exec_info.queue_remaining === 0"


@pytest.mark.parametrize(
    ("front_end", "node_style"), [("1.32.9", "classic"), ("1.58.1", "nodes2")], indirect=True
)
def test_table_and_diagnosis_stay_on_their_nodes(
    page: Page, screenshot: Callable[[str], Path]
) -> None:
    """Newer front ends take the host's own progress text away when the run ends."""
    page.evaluate("text => app.loadApiJson(JSON.parse(text), 'texts')", json.dumps(PROMPT))
    before = page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function(f"() => ({TEXTS})().length >= 2")
    page.wait_for_function(IDLE)
    page.wait_for_timeout(1500)  # for what the end of a run takes away
    screenshot("node-text")
    texts = page.evaluate(TEXTS)
    assert any("| chunk 2 |   9-20 |" in text for text in texts)
    assert any("what ships with the pack works" in text for text in texts)
    after = page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")
    assert after == before  # the text is shown, not saved
