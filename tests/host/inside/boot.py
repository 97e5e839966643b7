"""A pytest plugin that boots ComfyUI inside this process, on the CPU, and loads the pack into it.

For checks that need the host's objects in hand. Run by `test_inside.py` in a process of its own:
here ComfyUI's folder comes first on sys.path, so that `nodes` is the host's. A check takes `pack`
and asks it for the pack's modules. COMFYUI_FLAGS names what else the host is started with, such as
`use_split_cross_attention`.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

PACK_ROOT = Path(__file__).resolve().parents[3]
HOST = Path(os.environ["COMFYUI_PATH"]).resolve()

torch.set_num_threads(1)
sys.path.insert(0, str(HOST))

from comfy.cli_args import args  # noqa: E402

args.cpu = True
for flag in os.environ.get("COMFYUI_FLAGS", "").split():
    setattr(args, flag, True)

# In this order: nodes.py hides the host's own utils behind comfy's.
import utils.install_util  # noqa: E402, F401, I001
import nodes  # noqa: E402


class Pack:
    """The pack as the host loaded it."""

    def __init__(self) -> None:
        assert asyncio.run(nodes.load_custom_node(str(PACK_ROOT)))
        self.name = str(PACK_ROOT).replace(".", "_x_")

    def module(self, path: str) -> ModuleType:
        """`module("nodes.generate")`: a module of the pack, relative to its root."""
        return importlib.import_module(f"{self.name}.{path}")


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack()


@pytest.fixture(autouse=True)
def inference_mode():
    """As the host runs nodes."""
    with torch.inference_mode():
        yield
