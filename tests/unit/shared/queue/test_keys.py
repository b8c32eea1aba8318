"""The names in Redis: one organization's never reach into another's."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.crc import key_slot

from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.keys import Names

ROOT = Path(__file__).parents[4]
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


def test_all_names_of_a_partition_hash_to_its_tag_s_slot() -> None:
    names = Names("021")
    job = names.job_prefix + job_id("org_a", b"{}")
    made = [
        names.payload(job),
        names.arq_retry + job,
        names.event("org_a", "evt{1}"),
        names.revivals("org_a", "evt{1}"),
        names.state("org_a", "a{b}"),
        names.dead("org_a"),
        names.dead_letter(job),
        names.parked("org_a"),
        *(text for text in vars(names).values() if text.startswith("sellfern:")),
    ]
    assert len(made) > 45
    assert {key_slot(name.encode()) for name in made} == {key_slot(b"021")}


def test_each_name_says_what_under_it_is_of_one_organization() -> None:
    """In words that whoever moves one knows."""
    within = r"\[(job|turn\*|(\w+:)*org(:\*)?)\]"
    for each in fields(Names):
        if each.metadata:
            said = each.metadata["of"]
            assert re.fullmatch(rf"(job|org(:\*)?|\*)?({within}( {within})*)?", said), each.name


JOBS = st.one_of(st.text(), st.text().map("{021}".__add__), st.text().map("{}".__add__))


@given(JOBS, st.sampled_from(["", "021"]))
def test_a_mark_names_each_job_so_that_it_is_found_again(job: str, tag: str) -> None:
    names = Names(tag)
    assert names.from_mark(names.in_mark(job)) == job


def test_marks_of_all_partitions_name_a_job_alike() -> None:
    for tag in ("", "021", "7"):
        names = Names(tag)
        assert names.in_mark(f"{names.job_prefix}org_a:0f") == "org_a:0f"


def test_the_product_names_a_key_by_its_partition_alone() -> None:
    """What else stands in ``keys`` is of a single queue: for tests, which look at one."""
    shortcuts = {name for name in vars(keys) if vars(keys)[name] in vars(keys.UNTAGGED).values()}
    shortcuts |= {"payload", "event", "revivals", "state", "dead", "dead_letter", "parked"}
    assert "QUEUE" in shortcuts
    for program in ("shared", "ingress", "worker", "deploy"):
        for path in (ROOT / program).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    is_short = node.value.id == "keys" and node.attr in shortcuts
                    assert not is_short, f"{path}:{node.lineno}"
                elif isinstance(node, ast.ImportFrom) and node.module == "shared.queue.keys":
                    assert shortcuts.isdisjoint(each.name for each in node.names), path
