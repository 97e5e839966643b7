"""What the search panel costs the browser: a run of 120 chunks and 16 candidates, live.

Feeds the messages of an invented run, one by one, to the panel in a real Chromium, and measures
each: ``applyMessage`` and ``draw`` by the clock, then also the style and layout that follow, and
the processor time of the page's main thread until the frame is done (other programs on the machine
disturb that least). After 10, 60 and 120 chunks it counts the page's nodes and the JavaScript heap.
Both densities, a node-sized panel and a whole page. Run ``python benchmarks/panel.py`` with
Playwright and a Chromium on the PATH; it prints a table and writes
``benchmarks/results/panel.json``. It knows the page's files and nothing of ComfyUI, and measures
cost only, not what is drawn.
"""

import argparse
import functools
import http.server
import json
import os
import platform
import random
import shutil
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHUNKS, BEAMS, BRANCHES = 120, 4, 4
COUNTED = (10, 60, 120)  # chunks after which the page is counted
SIZES = {"node": (860, 500), "page": (1600, 1000)}
PRESS = {"overview": False, "cards": True}  # a run of this size starts as an overview
CHROMIUM_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --js-flags=--expose-gc --enable-precise-memory-info"
).split()

START = """async () => {
  const [state, panel] = await Promise.all([import("/run_state.js"), import("/beam_panel.js")]);
  const link = document.createElement("link");
  Object.assign(link, { rel: "stylesheet", href: "/stream_t1.css" });
  await new Promise((done) => { link.onload = done; document.head.append(link); });
  document.body.style.margin = 0;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: 6 * 48, height: 27 });
  const strip = canvas.toDataURL("image/jpeg");
  window.panel = panel.createPanel({ ...state, stripUrl: () => strip });
  window.panel.element.style.minHeight = `${innerHeight}px`;
  document.body.append(window.panel.element);
  window.apply = state.applyMessage;
  window.run = state.emptyRun();
}"""
STEP = """async (message) => {
  const start = performance.now();
  window.run = window.apply(window.run, message);
  window.panel.draw(window.run);
  const drawn = performance.now();
  window.panel.element.getBoundingClientRect();
  const laidOut = performance.now();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return { script: drawn - start, layout: laidOut - drawn };
}"""
COUNT = """() => {
  window.gc();
  let nodes = 0;
  const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL);
  while (walker.nextNode()) nodes += 1;
  return { nodes, heap_mb: Number((performance.memory.usedJSHeapSize / 1e6).toFixed(1)) };
}"""


def messages() -> Iterator[dict[str, Any]]:
    """A run as the server sends it; its scores wander, the best four of sixteen go on."""
    draw = random.Random(0)
    yield _message(0, _started())
    for chunk in range(CHUNKS):
        yield _message(chunk + 1, _chunk_done(chunk, draw), [6] * BEAMS * BRANCHES)
    final = {"final_scores": [0.9] * BEAMS, "best_beam": 0, "seeds": [], "routes": []}
    yield _message(CHUNKS + 1, {"event": "run_done", **final})


def _message(seq: int, record: dict[str, Any], strips: list[int] | None = None) -> dict[str, Any]:
    message = {"run": "benchmark", "node": "1", "workflow": None, "seq": seq, "record": record}
    return message if strips is None else {**message, "strips": strips}


def _started() -> dict[str, Any]:
    search = {"beam_width": BEAMS, "branch_factor": BRANCHES, "span_chunks": 10, "tau": 0.4}
    memory = {"window_frames": 12, "sink_frames": 3, "max_sink_frames": 15, "routing": True}
    memory |= {"alpha": 0.999, "short_gate": 0.0, "long_gate": 0.2}
    settings = {"frames_per_chunk": 3, "search": search, "memory": memory}
    start = {"event": "run_started", "version": 1, "prompt": "a red fox in fresh snow"}
    return {**start, "chunks": CHUNKS, "denoiser_calls": 1, "settings": settings}


def _chunk_done(chunk: int, draw: random.Random) -> dict[str, Any]:
    weight = min(chunk / (CHUNKS - 1), 0.4)
    candidates = []
    for index in range(BEAMS * BRANCHES):
        short, long = draw.gauss(0.6, 0.1), draw.gauss(0.9, 0.03)
        scores = {"short": short, "long": long, "fused": weight * short + (1 - weight) * long}
        parts = {"short.clip_score": short, "long.flicker": -0.06, "long.colour_drift": -0.2}
        parent = index // BRANCHES if chunk else 0
        seed = 1000 * chunk + index
        candidates.append({"parent": parent, "seed": seed, **scores, "parts": parts})
    best = sorted(candidates, key=lambda candidate: -candidate["fused"])[:BEAMS]
    for candidate in candidates:
        rank = best.index(candidate) if candidate in best else None
        route = draw.choice(("drop", "blend", "append")) if chunk else None
        candidate |= {"route": route, "rank": rank, "kept": rank is not None, "failure": None}
    seconds = {"denoise": draw.uniform(8, 11), "decode": 1.2, "score": 0.7, "commit": 1.0}
    done = {"event": "chunk_done", "chunk": chunk, "candidates": candidates, "left_out": {}}
    return {**done, "sinks": [2] * BEAMS, "seconds": seconds, "kv_bytes": 1_800_000_000}


@contextmanager
def web_server() -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(ROOT / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def measure(page: Page, cards: bool) -> dict[str, Any]:
    page.evaluate(START)
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    costs, counts = [], {}
    for number, message in enumerate(messages()):
        before = _thread_ms(devtools)
        cost = page.evaluate(STEP, message)
        costs.append({**cost, "thread": _thread_ms(devtools) - before})
        if number == 0 and cards:
            page.get_by_role("button", name="Cards").click()
        if number in COUNTED:
            counts[str(number)] = page.evaluate(COUNT)
    return {
        "script_ms": _spread([cost["script"] for cost in costs]),
        "script_and_layout_ms": _spread([cost["script"] + cost["layout"] for cost in costs]),
        "main_thread_cpu_ms": _spread([cost["thread"] for cost in costs]),
        "after_chunks": counts,
    }


def _thread_ms(devtools: CDPSession) -> float:
    """Processor time of all tasks of the page's main thread so far."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return next(1000 * entry["value"] for entry in metrics if entry["name"] == "TaskDuration")


def _spread(values: list[float]) -> dict[str, float]:
    figures = {
        "median": statistics.median(values),
        "p95": statistics.quantiles(values, n=20)[-1],
        "max": max(values),
    }
    return {name: round(value, 1) for name, value in figures.items()}


def measure_all(browser: Browser, url: str) -> dict[str, Any]:
    results = {}
    for size, (width, height) in SIZES.items():
        for density, cards in PRESS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{url}stream_t1.css")  # any page of this origin
            results[f"{size} {width}x{height}, {density}"] = measure(page, cards)
            page.close()
    return results


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium on the PATH")
    with sync_playwright() as playwright, web_server() as url:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        result = {
            "machine": platform.processor() or platform.machine(),
            "cpu_count": os.cpu_count(),
            "load_average": round(os.getloadavg()[0], 1),  # before: 0 is a machine of its own
            "chromium": browser.version,
            "python": platform.python_version(),
            "chunks": CHUNKS,
            "candidates": BEAMS * BRANCHES,
            "panels": measure_all(browser, url),
        }
        browser.close()
    for name, panel in result["panels"].items():
        for what in ("script_ms", "script_and_layout_ms", "main_thread_cpu_ms"):
            figures = "  ".join(f"{key} {value:5.1f}" for key, value in panel[what].items())
            print(f"{name:26} {what:21} {figures}")
        for chunks, count in panel["after_chunks"].items():
            print(f"{name:26} {chunks:>3} chunks: {count['nodes']} nodes, {count['heap_mb']} MB")
    path = ROOT / "benchmarks" / "results" / "panel.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
