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


@pytest.mark.parametrize("path", sorted(INSIDE.glob("check_*.py")), ids=lambda path: path.stem)
def test_inside(path: Path, comfyui_path: Path) -> None:
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "PYTHONPATH": str(INSIDE)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", path.name],
        cwd=INSIDE,
        env=environment,
        capture_output=True,
        text=True,
    )
    print(done.stdout[-8000:], done.stderr[-2000:])
    assert done.returncode == 0
