"""One real ComfyUI server for the whole host tier, with this pack linked into an otherwise empty
base directory.

dev.py says where ComfyUI is (COMFYUI_PATH) and runs pytest with an interpreter that can start it.
Without it every test that needs the server is skipped.

A test asks for `server` (paths, log, GET), for `run` (prompt in, finished run out) or for
`object_info`. Refused prompts raise `devtools.client.PromptRejected`; a failing node is
`run(...).error`. A prompt equal to the last one is answered from the host's cache and sends no
events: vary an input where events matter.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devtools.client import Run, run_prompt
from devtools.server import PACK_ROOT, ComfyServer, start_server


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.skip("COMFYUI_PATH is not set: run `python dev.py test --only host`")
    return Path(path)


@pytest.fixture(scope="session")
def server(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    folder = tmp_path_factory.mktemp("comfyui")
    custom_nodes = folder / "base" / "custom_nodes"
    custom_nodes.mkdir(parents=True)
    shutil.copy(PACK_ROOT / "samples" / "own_reward.py", custom_nodes)
    server = start_server(sys.executable, comfyui_path, folder / "base", folder / "server.log")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def run(server: ComfyServer) -> Callable[..., Run]:
    """`run(prompt, on_message=None, timeout_seconds=600)`: queue a prompt and wait for its end."""
    return functools.partial(run_prompt, server.url)


@pytest.fixture(scope="session")
def object_info(server: ComfyServer) -> dict[str, dict]:
    """What the host says of every node class it knows."""
    return server.get("/object_info")
