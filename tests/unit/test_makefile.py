"""Facts about what make would run, without running it."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}


@pytest.mark.parametrize(
    ("arguments", "report"),
    [
        ((), "coverage report"),
        (("ARGS= ",), "coverage report"),
        (("ARGS=tests/unit -k signature",), "coverage report --fail-under=0"),
    ],
)
def test_only_a_run_of_all_tests_has_to_cover_everything(
    arguments: tuple[str, ...], report: str
) -> None:
    words = ("make", "--no-print-directory", "--dry-run", "test", *arguments)
    # These tests may be run by make, which tells those that it starts of itself.
    environ = {name: text for name, text in os.environ.items() if name not in _OF_MAKE}
    planned = subprocess.run(
        words, cwd=ROOT, check=True, capture_output=True, text=True, env=environ
    ).stdout
    assert planned.rstrip().splitlines()[-1].rstrip().endswith(report)
