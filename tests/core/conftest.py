"""Options of the core tests."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        action="append",
        metavar="DIR",
        help="folder with golden sets for test_parity.py; repeatable (default: tests/goldens)",
    )
