"""Facts about what operators see and do where there are several partitions."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.redis.connection import SOCKET_TIMEOUT
from tests.conftest import StartRedis
from tests.integration.several import FOUR, ORGANIZATIONS, Shop, over
from worker.cli import main

Answer = TypeVar("Answer")
LOST = [
    f"partition {number} of 4 can't be read: no connection to Redis: connection refused"
    for number in (1, 3)
]


class Office:
    """Commands, and a worker's inside, of four partitions on two primaries."""

    def __init__(self, *servers: EmbeddedRedis) -> None:
        self.servers = servers

    def run(self, *arguments: str, columns: int = 250, answers: str = "") -> Result:
        """Run a command."""
        urls = " ".join(each.url for each in self.servers)
        env = {"REDIS_URL": urls, "PARTITIONS": str(FOUR), "COLUMNS": str(columns)}
        return CliRunner().invoke(main, arguments, env=env, input=answers)

    def do(self, work: Callable[[Shop], Awaitable[Answer]]) -> Answer:
        """Let something happen in the partitions."""

        async def go() -> Answer:
            clients = [Redis.from_url(each.url) for each in self.servers]
            try:
                return await work(Shop(over(*clients)))
            finally:
                for each in clients:
                    await each.aclose()

        return asyncio.run(go())

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """The JSON lines that a command prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def office(fresh_redis_server: StartRedis) -> Office:
    """Give an office with one dead letter in each partition, and an event that waits."""
    office = Office(fresh_redis_server(), fresh_redis_server())

    async def some_of_everything(shop: Shop) -> None:
        for number in range(FOUR):
            await shop.bury(number, f"dead_{number}")
            await shop.wait(number, f"evt_{number}")

    office.do(some_of_everything)
    return office


def test_status_tells_of_all_of_them_together(office: Office) -> None:
    (status,) = office.json("status")
    assert (status["waiting"], status["ready"], status["dead"]) == (4, 4, 4)
    assert status["counters"]["accepted"] == 8
    assert status["dead_by_reason"] == {"rejected": 4}
    assert {each["organization"] for each in status["organizations"]} == {*ORGANIZATIONS}
    assert status["missing"] == []


def test_status_shows_the_rest_where_a_primary_is_away(office: Office) -> None:
    office.servers[1].stop()
    result = office.run("status")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == LOST
    assert "Events now" in result.stdout
    (status,) = office.json("status")
    assert status["waiting"] == 2
    assert [each["partition"] for each in status["missing"]] == [1, 3]


def test_a_primary_that_is_frozen_is_waited_for_once(office: Office) -> None:
    os.kill(office.servers[0].pid, signal.SIGSTOP)
    began = monotonic()
    result = office.run("status")
    assert monotonic() - began < 1.5 * SOCKET_TIMEOUT
    os.kill(office.servers[0].pid, signal.SIGCONT)
    assert result.stderr.splitlines() == [
        f"partition {number} of 4 can't be read: Redis did not answer in time" for number in (0, 2)
    ]


def test_a_command_ends_where_no_primary_answers(office: Office) -> None:
    for each in office.servers:
        each.stop()
    result = office.run("status")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: REDIS_URL: expected a Redis that answers, got redis_unreachable: "
        "no connection to Redis: connection refused\n"
    )


def test_dead_letters_of_all_are_listed_an_organization_at_a_time(office: Office) -> None:
    listed = office.json("dead-letters", "list")
    assert [each["organization"] for each in listed] == sorted(ORGANIZATIONS)
    (one,) = office.json("dead-letters", "list", "--organization", ORGANIZATIONS[3], "--yes")
    assert one["event_id"] == "dead_3"
    assert office.json("dead-letters", "show", str(one["job"]))[0]["event_id"] == "dead_3"
    assert len(office.run("dead-letters", "export").stdout.splitlines()) == 4


def test_dead_letters_of_a_primary_that_is_away_are_left_out(office: Office) -> None:
    office.servers[1].stop()
    result = office.run("dead-letters", "list", "--json")
    assert result.exit_code == 0
    assert [json.loads(each)["event_id"] for each in result.stdout.splitlines()] == [
        f"dead_{number}" for number in sorted((0, 2), key=lambda number: ORGANIZATIONS[number])
    ]
    assert result.stderr.splitlines() == LOST


def test_all_are_replayed_at_once(office: Office) -> None:
    result = office.run("dead-letters", "replay", "--all", "--yes")
    assert result.exit_code == 0, result.output
    assert "4 replayed" in result.stdout
    assert office.json("status")[0]["waiting"] == 8


@pytest.mark.parametrize(("verb", "done"), [("replay", "replayed"), ("discard", "discarded")])
def test_a_primary_that_is_away_keeps_no_other_from_it(
    office: Office, verb: str, done: str
) -> None:
    office.servers[1].stop()
    result = office.run("dead-letters", verb, "--all", "--yes")
    assert result.exit_code == 2
    assert f"2 {done}" in result.stdout
    assert result.stderr.splitlines()[-1] == (
        "error: left out: partition 1, 3; nothing is lost, the same command goes on with the rest"
    )
    office.servers[1].start()


def test_jobs_are_discarded_where_their_tags_say(office: Office) -> None:
    jobs = [str(each["job"]) for each in office.json("dead-letters", "list")]
    assert {job[:5] for job in jobs} == {"{021}", "{357}", "{461}", "{717}"}
    result = office.run("dead-letters", "discard", *jobs[:3], "nobodys", "--yes")
    assert result.exit_code == 0, result.output
    assert "3 discarded" in result.stdout
    assert "no dead letter: nobodys" in result.stderr
    assert [each["job"] for each in office.json("dead-letters", "list")] == jobs[3:]


def test_what_concerns_an_organization_goes_to_its_partition(office: Office) -> None:
    office.servers[0].stop()
    name = ORGANIZATIONS[1]
    assert office.run("pause", name).output == f"{name} is paused; its events wait\n"
    assert office.run("resume", name).output == f"{name} goes on\n"
    office.do(lambda shop: shop.work(1))
    assert office.json("state", name)[0]["value"] == "evt_1"


def test_partitions_are_shown_with_where_they_are_and_whether(office: Office) -> None:
    office.servers[1].stop()
    result = office.run("partitions", columns=100)
    assert result.exit_code == 0
    first, second = (f"127.0.0.1:{each.port}" for each in office.servers)
    rows = [line.split(maxsplit=2) for line in result.stdout.splitlines()[4:8]]
    assert [row[:2] for row in rows] == [["0", first], ["1", second], ["2", first], ["3", second]]
    assert rows[0][2].split()[:4] == ["1", "1", "0", "1"]
    assert rows[1][2].strip() == "redis_unreachable"
    assert result.stderr.splitlines() == LOST
    lines = office.json("partitions")
    assert [line["up"] for line in lines] == [True, False, True, False]
