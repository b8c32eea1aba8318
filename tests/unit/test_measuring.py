"""Facts about which tests are traced."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import measuring
from tests.measuring import MEASURED_CASES, UNMEASURED, is_measured, unmeasured

TESTS = Path(measuring.__file__).parent


def test_all_that_is_not_traced_is_there() -> None:
    """Or else a file that got another name would be traced again."""
    assert [each for each in UNMEASURED if not (TESTS / each).exists()] == []


def test_a_folder_is_all_that_is_in_it() -> None:
    assert not is_measured(TESTS / "siege" / "test_siege.py")
    assert is_measured(Path(__file__))


def test_neither_this_process_nor_what_it_starts_is_traced_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "as coverage has it")
    before = sys.gettrace()
    with unmeasured():
        assert sys.gettrace() is None
        assert "COVERAGE_PROCESS_CONFIG" not in os.environ
    assert sys.gettrace() is before
    assert os.environ["COVERAGE_PROCESS_CONFIG"] == "as coverage has it"


@pytest.fixture(scope="module")
def as_traced() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COVERAGE_PROCESS_CONFIG", "as coverage has it")
        yield


@pytest.fixture(scope="module")
def begun() -> list[int]:
    return []


@pytest.mark.usefixtures("as_traced")
@pytest.mark.parametrize("number", range(MEASURED_CASES + 2))
def test_the_first_cases_of_a_test_are_traced(begun: list[int], number: int) -> None:
    begun.append(number)
    assert ("COVERAGE_PROCESS_CONFIG" in os.environ) is (len(begun) <= MEASURED_CASES)
