"""A report as one HTML file: the browser's panel with the run inside, to open without a server.

The file holds all it needs and asks for nothing: its Content-Security-Policy lets exactly the one
script run that was put in, and no request be made. What a report says goes in as data, never as
markup. It knows the pack's web folder and the messages that the panel takes, not how it draws.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .run_record import read_report, report_lines

Strips = Mapping[tuple[int, int], tuple[bytes, int]]  # (chunk, candidate) -> JPEG, its pictures

SCRIPTS = ("run_state.js", "beam_panel.js")
STYLE = "stream_t1.css"
RUN = "report"  # the run's id on the page
LONGEST_TITLE = 80
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)
NAME = re.compile(r"^export (?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
SAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}  # JSON is ASCII but for these

START = """
const { messages, strips } = JSON.parse(document.getElementById("run").textContent);
const panel = createPanel({
  viewOf,
  explain,
  stripUrl: (run, chunk, candidate) => strips[`${chunk}/${candidate}`] ?? null,
});
panel.element.classList.add("page");
document.body.append(panel.element);
panel.draw(messages.reduce(applyMessage, emptyRun()));
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0; }}
{style}</style>
</head>
<body>
<noscript>A script inside this file draws the report; this viewer does not run it.</noscript>
<script type="application/json" id="run">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def report_page(report: str, strips: Strips, web: Path) -> str:
    """The file's text. ``web`` is the pack's folder of browser files.

    Raises ValueError naming the line of a report that cannot be read.
    """
    title = _title(read_report(report).prompt)
    script = _script(web)
    style = (web / STYLE).read_text(encoding="utf-8")
    return PAGE.format(
        policy=_policy(script),
        title=html.escape(title),
        style=_inside("style", style),
        data=_data(report, strips),
        script=_inside("script", script),
    )


def _title(prompt: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in prompt)
    words = " ".join(printable.split())
    short = words if len(words) <= LONGEST_TITLE else words[:LONGEST_TITLE].rstrip() + "..."
    return f"Stream-T1: {short}" if short else "Stream-T1"


def _script(web: Path) -> str:
    """The panel's modules in scopes of their own, so that names inside do not meet."""
    parts = []
    for name in SCRIPTS:
        source = (web / name).read_text(encoding="utf-8")
        exported = ", ".join(NAME.findall(source))
        body = EXPORT.sub("", source)
        parts.append(
            f"const {{ {exported} }} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"
        )
    return "\n".join(["", *parts, START])


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _data(report: str, strips: Strips) -> str:
    """The run's messages as the server sends them, and filmstrips by ``CHUNK/CANDIDATE``."""
    messages = [
        _message(seq, record, strips) for seq, (_, record) in enumerate(report_lines(report))
    ]
    urls = {
        f"{chunk}/{candidate}": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        for (chunk, candidate), (jpeg, _) in strips.items()
    }
    text = json.dumps({"messages": messages, "strips": urls}, allow_nan=False)
    return re.sub("[<>&]", lambda found: SAFE[found[0]], text)


def _message(seq: int, record: dict[str, Any], strips: Strips) -> dict[str, Any]:
    message = {"run": RUN, "node": None, "workflow": None, "seq": seq, "record": record}
    if record.get("event") != "chunk_done":
        return message
    chunk, count = record["chunk"], len(record["candidates"])
    return message | {"strips": [strips.get((chunk, i), (b"", 0))[1] for i in range(count)]}


def _inside(tag: str, text: str) -> str:
    """Text that may stand inside ``tag``: nothing in it ends the tag or opens a comment."""
    assert not re.search(rf"</{tag}|<!--", text, re.IGNORECASE), f"a {tag} that ends itself"
    return text
