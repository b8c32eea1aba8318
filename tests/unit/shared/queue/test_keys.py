"""The names in Redis: one organization's never reach into another's."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.queue import keys
from shared.queue.job import job_id

ORGANIZATIONS = st.from_regex(keys.ORGANIZATION_PATTERN, fullmatch=True)
BUILDERS = (keys.event, keys.state)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (keys.payload("org_a:0f"), "arq:job:org_a:0f"),
        (keys.event("org_a", "evt_1"), "sellfern:event:org_a:evt_1"),
        (keys.state("org_a", "orders/1"), "sellfern:state:org_a:orders/1"),
        (keys.dead("org_a"), "sellfern:dead:org_a"),
        (keys.dead_letter("org_a:0f"), "sellfern:dead-letter:org_a:0f"),
        (keys.parked("org_a"), "sellfern:parked:org_a"),
    ],
)
def test_a_name_says_what_it_is_of(name: str, expected: str) -> None:
    assert name == expected


@given(ORGANIZATIONS, ORGANIZATIONS, st.text(), st.text())
def test_no_text_makes_a_name_of_another_organization(
    mine: str, other: str, text: str, others_text: str
) -> None:
    assume(mine != other)
    for build in BUILDERS:
        assert build(mine, text) != build(other, others_text)
    assert not keys.state(mine, text).startswith(keys.state(other, ""))
    assert not keys.event(mine, text).startswith(keys.event(other, ""))


@given(ORGANIZATIONS, st.text(), st.text())
def test_names_of_different_kinds_never_meet(organization: str, one: str, other: str) -> None:
    job = job_id(organization, one.encode("utf-8", "replace"))
    names = [
        keys.event(organization, one),
        keys.state(organization, other),
        keys.dead(organization),
        keys.dead_letter(job),
        keys.parked(organization),
        keys.payload(job),
    ]
    assert len(set(names)) == len(names)
    fixed = {value for name, value in vars(keys).items() if name.isupper() and value in names}
    assert fixed == set()


def test_the_scripts_know_every_name_that_stands_here() -> None:
    names = {
        name: value
        for name, value in vars(keys).items()
        if isinstance(value, str) and value.startswith("sellfern:")
    }
    assert len(names) > 20
    for name, value in names.items():
        assert keys.in_place(f"key.{name.lower()} .. x") == f"'{value}' .. x"
        assert not re.search(r"['\\\n]", value)
    assert keys.in_place("ZCOUNT(key.deferred_from)") == f"ZCOUNT({keys.DEFERRED_FROM})"


def test_a_name_that_stands_nowhere_is_no_name() -> None:
    with pytest.raises(KeyError, match="queues"):
        keys.in_place("redis.call('ZCARD', key.queues)")
