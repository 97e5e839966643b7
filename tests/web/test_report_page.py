"""A saved report in a browser, opened as a file: no server, no network, nothing but the file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ARTIFACTS
from PIL import Image
from playwright.sync_api import Browser, Page

from devtools.server import PACK_ROOT
from stream_t1_core.report_page import report_page

WEB = PACK_ROOT / "web"
MARKUP = (
    '</script><img src=x onerror="window.hit = 1"><script>window.hit = 2</script>'
    '<svg onload="window.hit = 3"><a href="javascript:window.hit = 4">x</a> & \'q\' \u2028'
)


def told(chunks: int, candidates: int, prompt: str, failure: str | None = None) -> str:
    """A finished run whose first candidate always wins and whose last always fails."""
    made = []
    for chunk in range(chunks):
        tried = []
        for i in range(candidates):
            failed = failure if i == candidates - 1 else None
            score = None if failed else 10.0 - i
            rank = i if i < 2 and not failed else None
            tried.append(
                {"parent": 0, "seed": 42 + i, "short": score, "long": score, "fused": score}
                | {"parts": {}, "route": "blend" if chunk else None, "rank": rank}
                | {"failure": failed, "kept": rank is not None}
            )
        kept = sum(candidate["kept"] for candidate in tried)
        made.append(
            {"event": "chunk_done", "chunk": chunk, "candidates": tried, "sinks": [1] * kept}
            | {"seconds": {"denoise": 1.0}, "kv_bytes": 983040, "left_out": {}}
        )
    settings = {"frames_per_chunk": 3, "search": {"tau": 0.4}}
    started = {"event": "run_started", "version": 1, "settings": settings}
    started |= {"prompt": prompt, "chunks": chunks, "denoiser_calls": 1}
    done = {"event": "run_done", "final_scores": [1.0, 0.5], "best_beam": 0}
    done |= {"seeds": [], "routes": []}
    return "\n".join(map(json.dumps, (started, *made, done)))


def strip(colour: tuple[int, int, int], pictures: int = 6) -> tuple[bytes, int]:
    image = io.BytesIO()
    Image.new("RGB", (48 * pictures, 32), colour).save(image, "JPEG")
    return image.getvalue(), pictures


@dataclass
class Opened:
    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """`opened(report, strips)`: its page in a browser, from a folder it was moved to."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})

    def open_page(report: str, strips: dict | None = None) -> Opened:
        made = tmp_path / "made.html"
        made.write_text(report_page(report, strips or {}, WEB), encoding="utf-8")
        moved = tmp_path / "else where" / "r\u00e9port #1.html"
        moved.parent.mkdir(exist_ok=True)
        made.rename(moved)
        found = Opened(context.new_page())
        found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.page.on("console", lambda message: found.complaints.append(message.text))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(moved.as_uri())
        found.page.wait_for_selector(".stream-t1-panel .cell")
        return found

    yield open_page
    context.close()


def test_it_shows_the_run_and_asks_for_nothing(opened: Callable[..., Opened]) -> None:
    strips = {(c, i): strip((40 * i, 90, 60 * c)) for c in range(3) for i in range(4)}
    found = opened(told(3, 4, "a red circle"), strips)
    page = found.page
    assert page.title() == "Stream-T1: a red circle"
    assert page.locator(".cell").count() == 12
    text = page.locator(".stream-t1-panel").inner_text()
    assert "Done: 3 chunks" in text and "a red circle" in text and "10.0" in text
    assert page.locator(".quality, .question, .actions").count() == 0  # nothing can be done
    page.locator(".cell").first.click()
    assert "candidate 1 won" in page.locator(".stream-t1-panel").inner_text()
    filmed = """() => [...document.querySelectorAll('.stream-t1-panel *')]
      .filter(e => getComputedStyle(e).backgroundImage.startsWith('url("data:image/jpeg')).length"""
    page.wait_for_function(f"() => ({filmed})() >= 12")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / "report-page.png")
    assert found.complaints == []
    assert [url for url in found.requests if not url.startswith("data:")] == [page.url]


def test_those_pruned_early_and_the_budget_are_on_the_page(opened: Callable[..., Opened]) -> None:
    started, first, second, done = map(json.loads, told(2, 4, "a red circle").splitlines())
    started["settings"]["search"] |= {"early": {"step": 1, "share": 0.5}}
    second["pruned_early"] = [{"parent": 0, "seed": 50 + i, "score": 0.5 - i} for i in range(2)]
    done["budget"] = {"calls": 34, "seconds": 4.0, "error": 0.08}
    page = opened("\n".join(map(json.dumps, (started, first, second, done)))).page
    cells = page.locator(".early")
    assert cells.all_inner_texts() == ["\u00d7 step 1: 0.50", "\u00d7 step 1: \u22120.50"]
    assert "pruned after step 1, before it was done" in cells.first.get_attribute("title")
    made, small = page.locator(".cell").last.bounding_box(), cells.first.bounding_box()
    assert small["y"] >= made["y"] + made["height"] and small["height"] < made["height"] / 2
    assert page.locator(".spent").inner_text().startswith("Budget: 34 denoiser calls in 4.0")


def test_markup_in_a_report_is_shown_as_text(opened: Callable[..., Opened]) -> None:
    found = opened(told(2, 4, MARKUP, failure=MARKUP))
    page = found.page
    page.locator(".cell").nth(3).click()  # the one that failed, with its reason
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hit") is None
    assert page.locator("img, a, iframe, object").count() == 0
    assert page.locator("script").count() == 2
    text = page.locator(".stream-t1-panel").inner_text()
    assert text.count("</script><img src=x onerror=") >= 2
    assert found.complaints == []


def test_a_script_put_into_the_file_does_not_run(opened: Callable[..., Opened]) -> None:
    """The policy names the page's own script: another one, however it came in, is refused."""
    page = opened(told(1, 2, "x")).page
    page.evaluate(
        """() => {
          const script = document.createElement('script');
          script.textContent = 'window.hit = 1';
          document.body.append(script);
          document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.hit = 2">');
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("() => window.hit") is None


def test_a_long_run_opens_small(opened: Callable[..., Opened]) -> None:
    found = opened(told(120, 16, "a red circle"))
    assert found.page.evaluate("() => document.querySelectorAll('*').length") < 15_000
    ARTIFACTS.mkdir(exist_ok=True)
    found.page.screenshot(path=ARTIFACTS / "report-page-120x16.png")
    assert found.complaints == []
