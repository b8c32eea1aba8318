"""Facts about what make would run, without running it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
    words = ("make", "--dry-run", "test", *arguments)
    planned = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert planned.rstrip().splitlines()[-1].rstrip().endswith(report)
