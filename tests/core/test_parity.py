"""Parity with the reference: one test per golden set found in the folders given.

``pytest tests/core/test_parity.py --goldens DIR [--goldens DIR ...]``; default ``tests/goldens``.
"""

from pathlib import Path

import pytest
import torch
from goldens import CHECKS, GoldenSet, find

DEFAULT = Path(__file__).parent.parent / "goldens"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = metafunc.config.getoption("--goldens")
    folders = [Path(folder) for folder in given or [DEFAULT]]
    cases = []
    for folder in folders:
        sets = find(folder)
        cases += sets or [GoldenSet(folder, "", {"kind": "none"})]
    ids = [f"{golden.folder.name}/{golden.name or 'no-golden-set'}" for golden in cases]
    metafunc.parametrize("golden", cases, ids=ids)


def test_parity(golden: GoldenSet) -> None:
    if golden.kind == "none":
        pytest.fail(f"{golden.folder} holds no golden set (a .json that states its 'kind')")
    if golden.kind not in CHECKS:
        pytest.fail(f"{golden.name}.json is of the unknown kind '{golden.kind}'")
    with torch.inference_mode():
        CHECKS[golden.kind](golden)
