"""A real page of a real server: every front end the pack supports, in both of its node styles.

dev.py says where ComfyUI is (COMFYUI_PATH) and where the front ends lie (STREAM_T1_FRONT_ENDS).
Chromium is the one on the PATH. What is missing skips the tier, and dev.py reports that.

A test asks for `page` (the editor, loaded, one per front end and node style) and may call
`screenshot(name)`, which writes into tests/web/artifacts/.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.environment import FRONT_ENDS
from devtools.server import ComfyServer, start_server

if importlib.util.find_spec("playwright") is None:
    pytest.skip("playwright is not installed: run `python dev.py test`", allow_module_level=True)

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

ARTIFACTS = Path(__file__).parent / "artifacts"
NODE_STYLES = ("classic", "nodes2")
# Chromium's own talk with its maker's servers is of no use here, and fails on a closed network.
CHROMIUM_ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
READY = "() => window.app?.extensionManager?.setting && LiteGraph.registered_node_types.KSampler"


@pytest.fixture(scope="session", params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    """The version under test. pytest groups the tests by it, so that one server runs at a time."""
    return request.param


@pytest.fixture(params=NODE_STYLES)
def node_style(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def server(front_end: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    host, front_ends = os.environ.get("COMFYUI_PATH"), os.environ.get("STREAM_T1_FRONT_ENDS")
    if not host or not front_ends:
        pytest.skip(
            "COMFYUI_PATH or STREAM_T1_FRONT_ENDS is not set: run `dev.py test --only browser`"
        )
    root = Path(front_ends) / front_end / "comfyui_frontend_package" / "static"
    folder = tmp_path_factory.mktemp(f"front-end-{front_end}")
    server = start_server(
        sys.executable, Path(host), folder / "base", folder / "server.log", front_end_root=root
    )
    server.post("/settings/Comfy.TutorialCompleted", True)  # else a dialog covers everything
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page_errors() -> list[str]:
    """What the page has complained about: console errors with their address, uncaught errors."""
    return []


@pytest.fixture
def page(
    server: ComfyServer, browser: Browser, node_style: str, page_errors: list[str]
) -> Iterator[Page]:
    server.post("/settings/Comfy.VueNodes.Enabled", node_style == "nodes2")
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: page_errors.append(f"{error}\n{error.stack}"))
    page.on("console", lambda message: _note_error(message, page_errors))
    page.goto(server.url)
    page.wait_for_function(READY)
    yield page
    context.close()


def _note_error(message: ConsoleMessage, page_errors: list[str]) -> None:
    if message.type == "error":
        page_errors.append(f"{message.location['url']}: {message.text}")


@pytest.fixture
def screenshot(page: Page, front_end: str, node_style: str) -> Callable[[str], Path]:
    """`screenshot(name)` keeps a picture of the page, named after front end and node style too."""

    def take(name: str) -> Path:
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / f"{name}-{front_end}-{node_style}.png"
        page.screenshot(path=path)
        return path

    return take
