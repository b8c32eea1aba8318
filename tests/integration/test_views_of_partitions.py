"""Facts about what operators see and do where there are several partitions."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace
from redis.asyncio import Redis
from rich.console import Console

from deploy.local.embedded_redis import EmbeddedRedis
from shared.program import tables
from shared.queue import keys
from shared.queue.partitions import check_layout
from shared.queue.reach import Reach
from shared.redis.connection import SOCKET_TIMEOUT
from tests.conftest import StartRedis
from tests.integration.several import FOUR, ORGANIZATIONS, Shop, over
from tests.integration.workplace import Lines
from worker.cli import main
from worker.operate import upkeep
from worker.operate.dead_letters import DeadLetter, Selection, select
from worker.operate.dead_lists import Filter, number_of
from worker.operate.failure_groups import find, largest
from worker.operate.merged import look
from worker.operate.relisting import relist
from worker.operate.revival import Replay, discard_all

Answer = TypeVar("Answer")
LOST = ["partitions 1, 3 of 4 can't be read: no connection to Redis: connection refused"]


class Office:
    """Commands, and a worker's inside, of four partitions on two primaries."""

    def __init__(self, *servers: EmbeddedRedis) -> None:
        self.servers = servers
        self.login = ""
        """Who the commands are, as a URL has it."""

    def run(self, *arguments: str, columns: int = 250, answers: str = "") -> Result:
        """Run a command."""
        urls = " ".join(each.url.replace("//", f"//{self.login}") for each in self.servers)
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


def test_status_shows_what_waits_beside_the_partitions(office: Office) -> None:
    assert "undivided" not in office.run("status").stdout

    async def accept_undivided(shop: Shop) -> None:
        assert await check_layout(shop.partitions) == []
        await shop.places[1].redis.zadd(keys.ACCEPTED, {"org_a:ab": 1})

    office.do(accept_undivided)
    (status,) = office.json("status")
    assert (status["waiting"], status["undivided"]) == (4, 1)
    assert "undivided" in office.run("status").stdout


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
        "partitions 0, 2 of 4 can't be read: Redis did not answer in time"
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


def test_whoever_says_another_number_of_partitions_is_told(office: Office) -> None:
    office.do(lambda shop: check_layout(shop.partitions))
    first, second = (each.url for each in office.servers)
    for number, url in (("8", f"{first} {second}"), ("1", first)):
        told = (
            f"error: PARTITIONS: expected 4, as many as this Redis was begun with, got {number}\n"
        )
        for command in ("status", "partitions", "pause org_a --yes", "dead-letters list"):
            env = {"REDIS_URL": url, "PARTITIONS": number}
            result = CliRunner().invoke(main, command.split(), env=env)
            assert (result.exit_code, result.stderr) == (2, told), command


def test_what_cannot_be_read_of_one_hides_none_of_the_others(office: Office) -> None:
    async def spoil(shop: Shop) -> None:
        partition = shop.partitions.all[2]
        await partition.redis.hset(partition.names.waiting, ORGANIZATIONS[2], "many")

    office.do(spoil)
    result = office.run("status", "--json")
    assert json.loads(result.stdout)["waiting"] == 3
    assert result.stderr.startswith("partition 2 of 4 can't be read: it holds what can't be read")


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
    result = office.run("dead-letters", "replay", "--all", "--yes", "--wait", "0")
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


@pytest.mark.parametrize(
    "command",
    [
        "list --organization {name} --yes",
        "list --organization {name} --yes --json",
        "export --organization {name} --yes",
        "show {job}",
        "replay {job} --yes --wait 0",
        "replay --organization {name} --yes --wait 0",
        "discard {job} --dry-run",
    ],
)
def test_who_asks_for_what_is_away_is_told_no_other_answer(office: Office, command: str) -> None:
    (one,) = office.json("dead-letters", "list", "--organization", ORGANIZATIONS[1], "--yes")
    office.servers[1].stop()
    words = command.format(name=ORGANIZATIONS[1], job=one["job"]).split()
    result = office.run("dead-letters", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: REDIS_URL: expected a Redis that answers, got redis_unreachable: "
        "no connection to Redis: connection refused\n"
    )


def test_one_that_only_fails_is_no_other_answer_either(office: Office) -> None:
    name = ORGANIZATIONS[1]

    async def spoil(shop: Shop) -> None:
        partition = shop.partitions.all[1]
        await partition.redis.delete(partition.names.dead(name))
        await partition.redis.set(partition.names.dead(name), "no sorted set")

    office.do(spoil)
    for verb in ("list", "export"):
        result = office.run("dead-letters", verb, "--organization", name)
        assert (result.exit_code, result.stdout) == (2, ""), verb
        assert result.stderr.startswith("error: REDIS_URL: expected a Redis that answers, got ")


def test_an_export_without_all_of_them_does_not_pass_for_all(office: Office) -> None:
    office.servers[1].stop()
    result = office.run("dead-letters", "export")
    assert (result.exit_code, len(result.stdout.splitlines())) == (2, 2)
    assert result.stderr.splitlines() == [
        *LOST,
        "error: left out: partition 1, 3; what was printed is not all that matches",
    ]


def test_of_a_job_that_is_away_nobody_says_that_it_is_gone(office: Office) -> None:
    jobs = {each["event_id"]: each["job"] for each in office.json("dead-letters", "list")}
    office.servers[1].stop()
    here, away = jobs["dead_0"], jobs["dead_1"]
    result = office.run("dead-letters", "replay", here, away, "--yes", "--wait", "0")
    assert result.exit_code == 2
    assert "1 replayed" in result.stdout
    assert "no dead letter" not in result.stderr


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
    assert office.run("pause", name).stdout == f"{name} is paused; its events wait\n"
    assert office.run("resume", name).stdout == f"{name} goes on\n"
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
    assert lines[0]["oldest_seconds"] > 0
    assert [line["up"] for line in lines] == [True, False, True, False]


def test_the_table_of_partitions_fits_into_100_columns(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "stdout_console", lambda: Console(width=100, highlight=False))
    office.servers[1].stop()
    first, second = (f"127.0.0.1:{each.port}" for each in office.servers)
    shown = re.sub(r" \ds ", " 0s ", office.run("partitions").stdout)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "Partitions",
        "",
        "  number   node              organizations   waiting   running   dead   oldest   up",
        f" {'─' * 98}",
        f"  0        {first}   1               1         0         1      0s       yes",
        f"  1        {second}{' ' * 55}redis_unreachable",
        f"  2        {first}   1               1         0         1      0s       yes",
        f"  3        {second}{' ' * 55}redis_unreachable",
        "",
    ]


async def test_workers_and_servers_are_counted_once(redis: Redis) -> None:
    shop = Shop(over(redis))
    for number, name in ((0, "w1"), (1, "w1"), (1, "w2"), (3, "w1")):
        sign = shop.places[number].transitions.renew
        await sign(name, [], description=b'{"host": "here"}', slots=10, lease=30)
    overview, parts = await look(Reach(shop.partitions))
    assert [(each.worker, each.slots) for each in overview.workers] == [("w1", 10), ("w2", 10)]
    assert overview.memory == overview.fullest
    assert overview.memory in [each.memory for each in parts.values()]


async def test_one_rate_holds_for_all_of_them(redis: Redis) -> None:
    shop = Shop(over(redis))
    for number in range(FOUR):
        await shop.bury(number, *(f"dead_{number}_{each}" for each in range(20)))
    reach = Reach(shop.partitions)
    began = monotonic()
    done = await Replay(reach, 200).run(Selection().letters(reach))
    assert monotonic() - began > (FOUR * 20 - 1) / 200
    assert done.queued == FOUR * 20


async def test_what_has_just_died_again_is_not_replayed_twice_in_any(redis: Redis) -> None:
    shop = Shop(over(redis))
    for number in range(FOUR):
        await shop.bury(number, f"dead_{number}")
    reach = Reach(shop.partitions)
    replaying = Replay(reach, 1000)
    letters = [letter async for letter in Selection().letters(reach)]

    async def again() -> AsyncIterator[DeadLetter]:
        for letter in letters:
            yield letter
            yield replace(letter, died_at=letter.died_at + 60_000)

    done = await replaying.run(again())
    assert (done.queued, done.seen) == (FOUR, FOUR)


async def test_retention_is_of_each_by_itself(redis: Redis) -> None:
    shop = Shop(over(redis))
    for number in range(FOUR):
        await shop.bury(number, f"dead_{number}")
    first = shop.partitions.all[0]
    name = first.names.dead(ORGANIZATIONS[0])
    await redis.zincrby(name, -60_000, (await redis.zrange(name, 0, -1))[0])
    for partition in shop.partitions:
        await upkeep.expire(partition, retention=59, log=shop.places[0].lines.log)
    left = [letter.event_id async for letter in select(Reach(shop.partitions), Filter())]
    assert sorted(left) == ["dead_1", "dead_2", "dead_3"]


async def test_a_group_of_no_organization_is_one_of_all_partitions(redis: Redis) -> None:
    partitions = over(redis)
    for number, moments in enumerate(([1, 5, 6], [2], [], [3, 7])):
        names = partitions.all[number].names
        await redis.hset(names.buried, "?", str(len(moments)))
        for moment in moments:
            await redis.zadd(names.dead("?"), {f"foreign_{moment}": moment})
            record = {"organization": "?", "reason": "undecodable", "died_at": str(moment)}
            await redis.hset(names.dead_letter(f"foreign_{moment}"), mapping=record)
        await relist(partitions.all[number], log=Lines().log)
    reach = Reach(partitions)
    for wanted in (Filter(), Filter("?")):
        (group,), _ = await largest(reach, wanted, 9)
        assert (group.number, group.first_at, group.last_at, group.sample) == (6, 1, 7, "foreign_7")
        assert await find(reach, group.id) == group
        assert await number_of(reach, Filter(group=group.id)) == 6


async def test_jobs_of_no_organization_are_in_one_order_over_all(redis: Redis) -> None:
    partitions = over(redis)
    for number, moments in enumerate(([1, 5, 6], [2], [], [3, 4])):
        names = partitions.all[number].names
        await redis.hset(names.buried, "?", str(len(moments)))
        for moment in moments:
            await redis.zadd(names.dead("?"), {f"foreign_{moment}": moment})
            record = {"organization": "?", "event_id": "", "died_at": str(moment)}
            await redis.hset(names.dead_letter(f"foreign_{moment}"), mapping=record)
    reach = Reach(partitions)
    found = [letter async for letter in select(reach, Filter())]
    assert [letter.died_at for letter in found] == [1, 2, 3, 4, 5, 6]
    assert [letter.partition for letter in found] == [0, 1, 3, 3, 0, 0]
    newest = [letter async for letter in select(reach, Filter("?"), newest_first=True)]
    assert newest == found[::-1]
    gone: list[None] = []
    await discard_all(
        reach,
        Selection(("foreign_4", "foreign_1")).letters(reach),
        retention=60,
        told=lambda: gone.append(None),
    )
    assert len(gone) == 2
    assert [letter.died_at async for letter in select(reach, Filter())] == [2, 3, 5, 6]


def test_an_organization_is_moved_and_each_command_goes_after_it(office: Office) -> None:
    name = ORGANIZATIONS[0]
    (prospect,) = office.json("partitions", "move", name, "1", "--dry-run")
    assert (prospect["from"], prospect["events"], prospect["dead_letters"]) == (0, 1, 1)
    result = office.run("partitions", "move", name, "1")
    assert result.exit_code == 0, result.output
    assert {"copying marks", "looking for its events"} <= {*result.stderr.splitlines()}
    assert result.stdout.startswith(
        f"moved {name} from partition 0 to partition 1: 1 events, 1 dead letters"
    )
    rows = office.json("partitions")
    assert [(row["organizations"], row["waiting"]) for row in rows] == [
        (0, 0),
        (2, 2),
        (1, 1),
        (1, 1),
    ]
    (letter,) = office.json("dead-letters", "list", "--organization", name)
    assert letter["job"].startswith("{357}")
    assert office.json("dead-letters", "show", letter["job"].replace("{357}", "{021}"))
    before = letter["job"].replace("{357}", "{021}")
    replay = ("dead-letters", "replay", before, "--yes", "--wait", "0")
    assert office.run(*replay).stdout.endswith("1 replayed\n")
    assert office.run("pause", name).stdout == f"{name} is paused; its events wait\n"
    (status,) = office.json("status")
    assert {each["organization"]: each["waiting"] for each in status["organizations"]} == {
        each: 2 if each == name else 1 for each in ORGANIZATIONS
    }
    assert office.run("partitions", "move", name, "1").stdout == f"{name} lives in partition 1\n"
    assert office.run("partitions", "move", name, "0").exit_code == 0
    assert office.json("partitions")[0]["waiting"] == 2
    assert office.run("resume", name).stdout == f"{name} goes on\n"


def test_a_move_that_can_not_be_says_why(office: Office) -> None:
    name = ORGANIZATIONS[0]
    for arguments, error in (
        ((name, "4"), "NUMBER: expected 0 to 3 (PARTITIONS), got 4"),
        (("org_nobody", "1"), "ORGANIZATION: expected an organization or an endpoint"),
    ):
        result = office.run("partitions", "move", *arguments)
        assert result.exit_code == 2
        assert error in result.stderr
    assert office.run("partitions", "move", name, "1", "--drain", "soon").exit_code == 2
    office.servers[1].stop()
    result = office.run("partitions", "move", name, "2")
    assert result.exit_code == 2
    assert "no connection to Redis" in result.stderr
