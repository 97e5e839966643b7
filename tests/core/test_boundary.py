"""The core runs without ComfyUI: at load time it knows torch, the standard library and itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "stream_t1_core"
ALLOWED = {"torch", *sys.stdlib_module_names}


def load_time_imports(source: str) -> set[str]:
    """Top-level packages that a file imports outside of functions; relative imports left out."""
    names: set[str] = set()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Import):
            names |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
            names.add(statement.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_core_imports_torch_and_the_standard_library(path: Path) -> None:
    assert load_time_imports(path.read_text(encoding="utf-8")) <= ALLOWED
