"""Has tests of the single queue run in a partition as well."""

import sys
from collections.abc import Iterator
from dataclasses import fields

import pytest
from redis.asyncio import Redis

from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.keys import Names
from shared.queue.partition import Partition

TAG = "021"
METHODS = ("payload", "event", "revivals", "state", "dead", "dead_letter", "parked")


def renamed(names: Names) -> Iterator[tuple[str, object]]:
    """What stands in `keys` of a single queue, as the names of a partition."""
    for each in fields(names):
        if each.metadata:
            yield each.name.removesuffix("_prefix").upper(), getattr(names, each.name)
    yield from ((name, getattr(names, name)) for name in METHODS)


@pytest.fixture(params=["single queue", "partition"])
def also_in_a_partition(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test for the single queue, and again where all that it asks for is a partition's."""
    if request.param == "partition":
        enter(monkeypatch)


@pytest.fixture
def in_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test where all that it asks for is a partition's."""
    enter(monkeypatch)


def enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change what tests know of names; the product itself gets them with the partition alone."""
    names = Names(TAG)

    def only(redis: Redis) -> Partition:
        return Partition(0, names, redis)

    def tagged(organization: str, body: bytes) -> str:
        return names.job_prefix + job_id(organization, body)

    job_id = jobs.job_id
    monkeypatch.setattr(Partition, "only", only)
    monkeypatch.setattr(keys, "UNTAGGED", names)
    for name, value in renamed(names):
        monkeypatch.setattr(keys, name, value)
    for module in list(sys.modules.values()):
        is_a_test_s = getattr(module, "__name__", "").startswith("tests.")
        if is_a_test_s and getattr(module, "job_id", None) is job_id:
            monkeypatch.setattr(module, "job_id", tagged)
