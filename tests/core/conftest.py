"""Options of the core tests."""

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        action="append",
        metavar="DIR",
        help="folder with golden sets for test_parity.py; repeatable (default: tests/goldens)",
    )


def pytest_configure() -> None:
    # Toy tensors: a second thread costs more than it brings, much more on a busy machine.
    torch.set_num_threads(1)
