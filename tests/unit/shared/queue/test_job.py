"""Facts about arq's payload record as this project writes and reads it."""

import pickle
import re
from typing import Any, cast

import msgspec
import pytest
from arq.jobs import deserialize_job_raw, serialize_job
from hypothesis import given
from hypothesis import strategies as st

from shared.queue import job
from shared.queue.job import (
    Delivery,
    PayloadError,
    bears_digest,
    is_job_of,
    job_id,
    organization_of,
)
from shared.queue.keys import ORGANIZATION_PATTERN

ORGANIZATIONS = st.from_regex(ORGANIZATION_PATTERN, fullmatch=True)
DELIVERY = Delivery("acme", "org_a", 5, {"user-agent": "x"}, b"\x00\xff", 1.0)


def test_arq_reads_what_is_written_here() -> None:
    function, arguments, keywords, tries, enqueued_at = deserialize_job_raw(
        job.encode(DELIVERY), deserializer=job.deserialize
    )
    assert function == "handle_event"
    assert job.from_arguments(arguments) == DELIVERY
    assert keywords == {}
    assert (tries, enqueued_at) == (cast("Any", None), 5)


def test_what_arq_writes_is_read_here() -> None:
    raw = serialize_job(
        "handle_event", ("acme", "org_a", 5, {}, b"x"), {}, None, 5, serializer=job.serialize
    )
    assert raw is not None
    assert job.decode(raw).body == b"x"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_call_of_the_one_that_buries_them(raw: bytes) -> None:
    record = job.deserialize(raw)
    assert record["f"] == job.UNDECODABLE or isinstance(record["f"], str)
    with pytest.raises(PayloadError):
        job.decode(raw)


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("pickle was loaded",))


def test_pickle_is_never_loaded() -> None:
    raw = pickle.dumps({"f": "handle_event", "a": (Evil(),), "k": {}, "t": 1, "et": 1})
    assert job.deserialize(raw)["f"] == job.UNDECODABLE


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"f": "handle_event"},
        {"t": None, "f": 1, "a": [], "k": {}, "et": 1},
        {"t": None, "f": "x", "a": {}, "k": {}, "et": 1},
        {"t": None, "f": "x", "a": [], "k": [], "et": 1},
        {"t": None, "f": "x", "a": [], "k": {1: 2}, "et": 1},
        {"t": "1", "f": "x", "a": [], "k": {}, "et": 1},
        {"t": None, "f": "x", "a": [], "k": {}, "et": "1"},
    ],
)
def test_a_record_of_another_shape_is_undecodable(record: object) -> None:
    assert job.deserialize(msgspec.msgpack.encode(record))["f"] == job.UNDECODABLE


@pytest.mark.parametrize(
    "arguments",
    [(), (1, 2, 3, 4, 5), ("e", "o", 1, {}, "text"), ("e", "o", -1.5, {}, b""), (1,) * 6],
)
def test_arguments_of_another_shape_are_told(arguments: tuple[object, ...]) -> None:
    with pytest.raises(PayloadError, match="expected"):
        job.from_arguments(arguments)


@pytest.mark.parametrize(
    ("name", "organization"),
    [
        ("org_1:abc", "org_1"),
        ("no colon", ""),
        ("bad org:abc", ""),
        (":abc", ""),
        ("o" * 65 + ":abc", ""),
    ],
)
def test_a_job_belongs_to_the_organization_in_front_of_its_colon(
    name: str, organization: str
) -> None:
    assert organization_of(name) == organization


def test_a_job_is_named_by_its_organization_and_the_digest_of_its_bytes() -> None:
    assert job_id("org_1", b"") == "org_1:e3b0c44298fc1c149afbf4c8996fb924"


def test_a_delivery_is_read_at_once_whoever_wrote_it() -> None:
    assert job.read(job.encode(DELIVERY)) == DELIVERY
    arguments: tuple[Any, ...] = ("acme", "org_a", 5, {}, b"x")
    raw = serialize_job("handle_event", arguments, {}, 3, 5, serializer=job.serialize)
    assert raw is not None
    assert job.read(raw) == Delivery(*arguments)


@given(st.binary(max_size=200))
def test_whatever_else_a_payload_is_it_is_no_delivery(raw: bytes) -> None:
    assert job.read(raw) is None


@pytest.mark.parametrize(
    "change",
    [
        {"f": "another"},
        {"a": ("acme", "org_a", 5, {})},
        {"a": ("acme", "org_a", "5", {}, b"x")},
        {"a": ("acme", "org_a", 5, {}, "text")},
        {"k": {"more": 1}},
        {"et": "now"},
    ],
)
def test_a_call_that_is_not_quite_a_delivery_is_none(change: dict[str, Any]) -> None:
    record: dict[str, Any] = {
        "t": None,
        "f": "handle_event",
        "a": ("acme", "org_a", 5, {}, b"x"),
        "k": {},
        "et": 5,
    }
    assert job.read(job.serialize(record)) is not None
    assert job.read(job.serialize({**record, **change})) is None


@given(ORGANIZATIONS, ORGANIZATIONS, st.binary(max_size=50), st.binary(max_size=50))
def test_a_job_is_of_its_bytes_and_of_no_others(
    organization: str, other_one: str, body: bytes, other: bytes
) -> None:
    job = job_id(organization, body)
    assert bears_digest(job)
    assert is_job_of(job, organization, body)
    assert is_job_of(job, organization, other) == (body == other)
    assert is_job_of(job, other_one, body) == (organization == other_one)


def test_only_its_own_partition_takes_a_tagged_job_for_one_of_ours() -> None:
    """Elsewhere it is a foreign name, as it is to the scripts: a second mark, and no cap."""
    job = "{021}" + job_id("org_a", b"{}")
    assert is_job_of(job, "org_a", b"{}", "{021}")
    assert organization_of(job, "{021}") == "org_a"
    for prefix in ("", "{357}"):
        assert not is_job_of(job, "org_a", b"{}", prefix)
        assert organization_of(job, prefix) == ""


@pytest.mark.parametrize("organization", ["", "org_a:x", "org a", "o" * 65])
def test_no_job_is_of_what_can_be_no_organization(organization: str) -> None:
    assert not is_job_of(job_id(organization, b"{}"), organization, b"{}")


@pytest.mark.parametrize("job", ["org_a:made-by-arq", f"org_a:x{'0' * 32}", "org_a:", "0" * 32])
def test_the_id_of_a_stock_producers_job_names_no_bytes(job: str) -> None:
    assert not bears_digest(job)


@given(ORGANIZATIONS, st.binary(max_size=50))
def test_a_job_tells_its_organization(organization: str, body: bytes) -> None:
    job = job_id(organization, body)
    assert organization_of(job) == organization
    assert re.fullmatch(r"[0-9a-f]{32}", job.removeprefix(organization + ":"))


@given(st.text(max_size=80))
def test_any_text_is_a_job_of_a_valid_organization_or_of_none(text: str) -> None:
    organization = organization_of(text)
    assert organization == "" or ORGANIZATION_PATTERN.fullmatch(organization)
