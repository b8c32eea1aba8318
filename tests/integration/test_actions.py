"""Facts about what is logged and kept of what operators do, in the console and by commands."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.actions import KEPT, Action, record
from shared.queue.partitions import Partitions
from shared.queue.reach import Missing, Reach
from tests.integration.console.letters import bury
from tests.integration.console.site import browsing, told
from tests.integration.jobs import reach
from tests.integration.several import ORGANIZATIONS, over
from tests.log_support import captured_log
from worker.cli import main
from worker.operate.actions import last

EVIL = "\x1b[2J<b>\u202e"


def run(server: EmbeddedRedis, *arguments: str) -> Result:
    """Run a command as a script does: its stderr is no terminal."""
    env = {"REDIS_URL": server.url, "COLUMNS": "250", "LOGNAME": "ada"}
    return CliRunner().invoke(main, arguments, env=env)


def do(server: EmbeddedRedis, work: Callable[[Redis], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        async with Redis.from_url(server.url) as redis:
            return await work(redis)

    return asyncio.run(go())


def not_logged(_event: str, _fields: dict[str, object]) -> None: ...


def action(name: str, **about: Any) -> Action:
    return Action(name, "command", "ada", "host", **about)


def test_what_commands_do_is_logged_and_listed(redis_server: EmbeddedRedis) -> None:
    async def begin(redis: Redis) -> None:
        await redis.flushall()
        await bury(redis, "org_a", 3)

    do(redis_server, begin)
    for arguments, name, outcomes in (
        (("pause", "org_a", "--why", EVIL), "pause", [None]),
        (("pause", "org_a"), "pause", ["was paused already"]),
        (("resume", "org_a", "--rate", "5/s"), "resume", [None]),
        (
            (
                "dead-letters",
                "replay",
                "--organization",
                "org_a",
                "--limit",
                "1",
                "--wait",
                "0",
                "--yes",
            ),
            "replay",
            ["begun", "finished: 1 replayed"],
        ),
        (
            ("dead-letters", "discard", "--all", "--yes"),
            "discard",
            ["begun", "finished: 3 discarded"],
        ),
    ):
        ended = run(redis_server, *arguments)
        assert ended.exit_code == 0, ended.output
        logged = [json.loads(line) for line in ended.stderr.splitlines() if line[0] == "{"]
        assert [each["event"] for each in logged] == ["operator_action"] * len(outcomes)
        assert [each.get("outcome") for each in logged] == outcomes
        assert {each["action"] for each in logged} == {name}
    listed = [
        json.loads(line) for line in run(redis_server, "actions", "--json").stdout.splitlines()
    ]
    assert [each["action"] for each in listed] == [
        *["discard"] * 2, *["replay"] * 2, "resume", *["pause"] * 2,
    ]  # fmt: skip
    assert {(each["by"], each["who"], each["address"]) for each in listed} == {
        ("command", "ada", socket.gethostname())
    }
    assert listed[2]["about"] == "the oldest 1 of: organization org_a"
    assert listed[4]["about"] == "at 5/s"
    done, _ = map(
        json.loads, run(redis_server, "dead-letters", "runs", "--json").stdout.splitlines()
    )
    assert (done["id"], done["action"]) == (listed[0]["run"], "discard")
    assert (done["state"], done["outcome"], done["who"]) == ("finished", "3 discarded", "ada")
    shown = run(redis_server, "actions").stdout
    assert "\\x1b[2J<b>\\u202e" in shown
    assert EVIL not in shown


async def test_the_console_shows_both_and_names_who_has_signed_in(redis: Redis) -> None:
    await redis.hset(keys.ORGANIZATIONS, "org_a", ":1")
    await record(reach(redis), action("resume", organization="org_a", about=EVIL), not_logged)
    async with browsing(redis, CONSOLE_TOKEN="a token of the console") as site:
        await site.post("/login", {"name": "Grace", "token": "a token of the console"})
        with captured_log("info") as log:
            await site.confirm("/organizations/org_a/pause", why="the ERP is down")
            (line,) = told(log, "operator_action")
        text = (await site.get("/actions")).text
    assert (line["who"], line["by"], line["address"]) == ("Grace", "console", "127.0.0.1")
    assert (line["action"], line["about"]) == ("pause", "the ERP is down")
    assert text.index("Grace") < text.index("ada")
    assert "the ERP is down" in text
    assert "\\x1b[2J&lt;b&gt;\\u202e" in text


async def test_a_hundred_are_kept_the_last_ones_and_short(redis: Redis) -> None:
    for number in range(KEPT + 20):
        await record(reach(redis), action(f"a{number}", about="x" * 10_000), not_logged)
    found = await last(reach(redis))
    assert [each.action for each in found] == [f"a{number}" for number in range(119, 19, -1)]
    assert await redis.memory_usage(keys.ACTIONS, samples=0) < 60_000
    await redis.lpush(keys.ACTIONS, "rubbish", b"\xff", '{"action": 1}', b'{"action":"\xff"}')
    assert len(await last(reach(redis))) == KEPT - 4


async def test_several_partitions_keep_them_and_one_list_shows_all(redis: Redis) -> None:
    partitions = over(redis)
    for number, name in enumerate(ORGANIZATIONS):
        await record(Reach(partitions), action("pause", organization=name, at=number), not_logged)
        assert await redis.llen(partitions.all[number].names.actions) == 1
    await record(Reach(partitions), action("replay", at=9), not_logged)
    found = await last(Reach(partitions))
    assert [each.organization for each in found] == ["", *reversed(ORGANIZATIONS)]


async def test_what_no_redis_keeps_is_done_and_logged_all_the_same(
    redis: Redis, redis_server: EmbeddedRedis
) -> None:
    await redis.set(keys.ACTIONS, "somebody's hand was here")
    lines: list[tuple[str, dict[str, object]]] = []
    await record(reach(redis), action("pause"), lambda *line: lines.append(line))
    assert [event for event, _ in lines] == ["operator_action", "operator_action_not_kept"]
    ended = await asyncio.to_thread(run, redis_server, "pause", "org_a", "--yes")
    assert ended.exit_code == 0
    assert "org_a is paused" in ended.stdout
    assert "operator_action_not_kept" in ended.stderr


async def test_a_full_redis_takes_them_since_who_frees_it_is_an_operator(redis: Redis) -> None:
    left_out = Reach(Partitions.only(redis), [Missing(0, 1, "redis_full", "it is full")])
    await redis.config_set("maxmemory", "1")
    try:
        await record(left_out, action("discard"), not_logged)
    finally:
        await redis.config_set("maxmemory", "0")
    assert [each.action for each in await last(reach(redis))] == ["discard"]
