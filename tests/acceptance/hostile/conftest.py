"""Does all of it as often as ``HOSTILE_TURNS`` says."""

import os

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each test so many tests, in turns."""
    turns = int(os.environ.get("HOSTILE_TURNS", "1"))
    if turns > 1:
        metafunc.parametrize("turn", range(turns))


@pytest.fixture(autouse=True)
def turn() -> int:
    """Give the number of the turn."""
    return 0
