"""Runs the checks that need the host's objects in hand, in a process of their own (`inside/`).

There ComfyUI comes first on sys.path; here the pack's own `nodes` would hide the host's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = Path(__file__).parent / "inside"


def check(name: str, comfyui_path: Path, *arguments: str, flags: str = "") -> None:
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "PYTHONPATH": str(INSIDE)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", name, *arguments],
        cwd=INSIDE,
        env={**environment, "COMFYUI_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    print(done.stdout[-8000:], done.stderr[-2000:])
    assert done.returncode == 0


@pytest.mark.parametrize("path", sorted(INSIDE.glob("check_*.py")), ids=lambda path: path.stem)
def test_inside(path: Path, comfyui_path: Path) -> None:
    check(path.name, comfyui_path)


@pytest.mark.parametrize("flag", ["use_split_cross_attention", "use_pytorch_cross_attention"])
def test_the_attention_that_the_host_was_started_with(flag: str, comfyui_path: Path) -> None:
    """It is the one that runs, and the model's output is the same."""
    check("check_model.py", comfyui_path, "-k", "attention or cached_chunk", flags=flag)
