"""Facts about the files that one delivery crosses, from the socket to the commit."""

import pytest

from tests.bench.crossing import Crossing, measure

MOST_FILES = 22
MOST_SWITCHES = 45
"""From one file to another, in the order in which functions are first called."""


@pytest.fixture(scope="module")
def crossing() -> Crossing:
    return measure()


def test_whoever_follows_a_delivery_opens_few_files(crossing: Crossing) -> None:
    assert len(crossing.files) <= MOST_FILES, crossing.files


def test_whoever_follows_a_delivery_seldom_goes_from_file_to_file(crossing: Crossing) -> None:
    assert crossing.switches <= MOST_SWITCHES, crossing.calls


def test_the_way_goes_through_both_programs(crossing: Crossing) -> None:
    """Or else few files would say little."""
    assert {"ingress", "worker", "shared"} == {file.partition("/")[0] for file in crossing.files}
