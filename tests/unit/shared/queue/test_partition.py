"""Facts about where partitions and organizations live."""

from collections import Counter

import pytest
from redis.crc import key_slot

from shared.queue.keys import Names
from shared.queue.partition import TAGS, home

SLOTS = 16_384


@pytest.mark.parametrize("number", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_as_many_nodes_as_partitions_have_one_each(number: int) -> None:
    owners = {key_slot(tag.encode()) * number // SLOTS for tag in TAGS[:number]}
    assert owners == set(range(number))


def test_there_are_256_tags_of_which_none_is_another_s() -> None:
    assert len(TAGS) == len(set(TAGS)) == 256
    assert all(len(tag) == 3 and tag.isascii() and tag.isdigit() for tag in TAGS)
    assert len({Names(tag).queue for tag in TAGS}) == 256


def test_an_organization_s_home_is_the_same_in_every_program_and_version() -> None:
    assert [home(name, 16) for name in ("org_a", "org_b", "acme", "org_42")] == [6, 12, 14, 3]
    assert {home("org_a", 1), home("acme", 1)} == {0}


def test_with_twice_as_many_partitions_an_organization_stays_or_goes_to_one_of_the_new() -> None:
    for organization in map("org_{}".format, range(1000)):
        assert home(organization, 32) in {home(organization, 16), home(organization, 16) + 16}


def test_organizations_are_spread_over_all_partitions() -> None:
    homes = Counter(home(f"org_{number}", 16) for number in range(16_000))
    assert len(homes) == 16
    assert max(homes.values()) < 1100
