"""A report as a page: what is put in is data, and only the page's own script may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from told import candidate, chunk, report, searched

from stream_t1_core.report_page import report_page

WEB = Path(__file__).resolve().parents[2] / "web"
HOSTILE = '</script><img src=x onerror=alert(1)><script>alert(2)</script><!-- & " \u2028 \ud800'


class Elements(HTMLParser):
    """Tags with their attributes, and the text inside each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))

        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1][2].append(data)

    def only(self, tag: str, **attributes: str) -> tuple[dict[str, str | None], str]:
        ((_, attrs, text),) = [
            found
            for found in self.found
            if found[0] == tag and attributes.items() <= found[1].items()
        ]
        return attrs, "".join(text)


def data_of(page: str) -> dict:
    return json.loads(Elements(page).only("script", id="run")[1])


def test_the_page_has_the_run_as_the_server_tells_it() -> None:
    text = searched(3, 2, 2)
    strips = {(0, 1): (b"\xff\xd8one", 6), (2, 3): (b"\xff\xd8two", 4)}
    data = data_of(report_page(text, strips, WEB))
    assert [m["record"] for m in data["messages"]] == [*map(json.loads, text.splitlines())]
    assert [m["seq"] for m in data["messages"]] == [0, 1, 2, 3, 4]
    assert [m.get("strips") for m in data["messages"]] == [
        None,
        [0, 6, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 4],
        None,
    ]
    assert data["strips"].keys() == {"0/1", "2/3"}
    head, _, body = data["strips"]["2/3"].partition(",")
    assert head == "data:image/jpeg;base64" and base64.b64decode(body) == b"\xff\xd8two"


def test_what_a_report_says_is_never_markup() -> None:
    failing = chunk(
        0,
        candidate(rank=0),
        candidate(None, failure=HOSTILE),
        left_out={HOSTILE: HOSTILE},
    )
    calm = report_page(report(failing, prompt="x"), {}, WEB)
    page = report_page(report(failing, prompt=HOSTILE, best=None, stopped=HOSTILE), {}, WEB)
    assert [found[0] for found in Elements(page).found] == [
        found[0] for found in Elements(calm).found
    ]
    assert "<img" not in page and page.count("</script") == 2
    assert data_of(page)["messages"][0]["record"]["prompt"] == HOSTILE
    assert data_of(page)["messages"][-1]["record"]["reason"] == HOSTILE
    page.encode("utf-8")  # no half of a surrogate pair is left


def test_the_policy_names_the_one_script() -> None:
    page = report_page(searched(1, 1, 1), {}, WEB)
    elements = Elements(page)
    script = elements.only("script", type="module")[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = elements.only("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';")
    assert "http:" not in policy and "https:" not in policy


def test_nothing_is_asked_for() -> None:
    elements = Elements(report_page(searched(1, 1, 1), {}, WEB))
    asking = {"src", "href", "srcset", "action", "data"}
    assert not [attrs for _, attrs, _ in elements.found if attrs.keys() & asking]
    script, style = elements.only("script", type="module")[1], elements.only("style")[1]
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert not re.search(r"@import|url\(", style)


def test_the_title_is_the_prompt_made_short() -> None:
    def title(prompt: str) -> str:
        page = report_page(report(chunk(0, candidate(rank=0)), prompt=prompt), {}, WEB)
        return Elements(page).only("title")[1]

    assert title("a red\ncircle & more") == "Stream-T1: a red circle & more"
    assert title(" ") == "Stream-T1"
    assert title("x" * 500) == "Stream-T1: " + "x" * 80 + "..."


def test_a_report_that_cannot_be_read_has_no_page() -> None:
    with pytest.raises(ValueError, match="report line 2 is not JSON"):
        report_page(searched(1, 1, 1).splitlines()[0] + "\n<html>", {}, WEB)
