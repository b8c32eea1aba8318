"""Facts about the simulator as a program, and about our ingress behind it."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.sellfern import simulator
from shared.queue import keys
from shared.queue.job import job_id
from tests.acceptance import warm
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import (
    ENDPOINTS,
    PATIENCE,
    ROOT,
    SECRET,
    Program,
    environment,
    run,
    until,
)
from tests.integration.sink import sink

MODULE = "deploy.sellfern"
KEY = "sk_test_0123456789"


def environ(**changes: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("LOG_")}
    return {**kept, "LOG_FORMAT": "json", **changes}


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """The simulator on a free port, and its URL; ended with the block."""
    process = await warm.start(
        *(sys.executable, "-m", MODULE, "--port", "0", "--api-key", f"{KEY}:org_a", *arguments),
        cwd=ROOT,
        env=environ(),
        stdout=PIPE,
        stderr=PIPE,
    )
    running = Program(process)
    try:
        (line,) = await running.logged("simulator_listening")
        yield running, line["url"]
    finally:
        await running.stop()


async def ask(method: str, url: str, body: Any = None) -> Any:
    """The data of an answer."""
    async with (
        ClientSession() as session,
        session.request(method, url, json=body, headers={"x-api-key": KEY}) as response,
    ):
        return (await response.json())["data"]


async def test_it_says_where_it_is_in_one_line_and_stops_when_told() -> None:
    async with program("--api-key", "short:org_b", "--seed", "7") as (running, url):
        assert await ask("GET", f"{url}/webhooks") == []
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
    first, last = running.lines
    assert first["api_keys"] == ["sk_t…:org_a", "…:org_b"]
    assert first["seed"] == 7
    assert last["event"] == "simulator_stopped"
    assert KEY not in running.text
    assert "short" not in running.text


async def test_it_stops_at_once_with_a_hang_and_a_delivery_under_way() -> None:
    async with (
        sink() as receiver,
        program("--fault", "hang,operation=GET", "--rate", "200") as (running, url),
    ):
        receiver.gate.clear()
        endpoint = {"url": receiver.url, "events": ["order.updated"]}
        await ask("POST", f"{url}/webhooks", endpoint)
        await receiver.has(1)
        hung = asyncio.create_task(ask("GET", f"{url}/webhooks"))

        async def is_hit() -> bool:
            return len(await ask("GET", f"{url}/_control/requests")) == 2

        await until(is_hit)
        running.send(signal.SIGINT)
        assert await running.ended() == 0
        await asyncio.gather(hung, return_exceptions=True)
    assert running.lines[-1]["deliveries"]["event_abandoned"] >= 1


async def test_it_stops_by_itself_after_its_events() -> None:
    async with sink() as receiver, program("--rate", "1000", "--events", "50") as (running, url):
        endpoint = {"url": receiver.url, "events": ["order.updated", "order.created"]}
        await ask("POST", f"{url}/webhooks", endpoint)
        assert await running.ended() == 0
        assert len({each.event.id for each in receiver.received}) == 50
    stopped = running.lines[-1]
    assert (stopped["events"], stopped["deliveries"]) == (50, {"event_delivered": 50})


async def test_it_stops_by_itself_after_its_time() -> None:
    async with program("--for", "100ms") as (running, _):
        assert await running.ended() == 0
    assert [line["event"] for line in running.lines] == ["simulator_listening", "simulator_stopped"]


@pytest.mark.parametrize(
    ("arguments", "log_format", "named"),
    [
        (("--api-key", "k:b"), "json", "each key once"),
        (("--host", "203.0.113.7"), "json", "--host"),
        (("--timeout", "0"), "json", "timeout: expected more than 0"),
        (("--rate", "nan"), "json", "rate: expected at least 0"),
        (("--endpoints-file", "none.toml"), "json", "none.toml"),
        ((), "xml", "LOG_FORMAT"),
    ],
)
async def test_a_wrong_argument_or_setting_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], log_format: str, named: str
) -> None:
    keys_given = ("--api-key", "k:a", *arguments)
    ended = await run(MODULE, *keys_given, environ=environ(LOG_FORMAT=log_format))
    assert (ended.code, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line


async def test_our_ingress_accepts_what_is_signed_and_refuses_what_is_forged(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Every event is stored once, whatever the knobs add, and nothing that was forged is."""
    async with (
        ingress(environment(redis_server.url, tmp_path)) as receiving,
        simulator(
            "ka:org_a",
            duplicates=0.3,
            disorder=0.3,
            disorder_seconds=0.05,
            bad_signatures=0.3,
            seed=1,
        ) as sellfern,
    ):
        url = f"http://127.0.0.1:{receiving.port}/webhooks/acme"
        events = ("order.created", "order.updated", "order.status_changed")
        sellfern.endpoints.create("org_a", url, events, secret=SECRET)
        async with asyncio.timeout(PATIENCE):
            for number in range(100):
                await sellfern.publish(events[number % 3])
            await sellfern.settled()
        deliveries = list(sellfern.deliveries)
    honest = [each for each in deliveries if each.kind != "forged"]
    forged = [each for each in deliveries if each.kind == "forged"]
    assert {(each.status, each.response_status) for each in honest} == {("delivered", 202)}
    assert {(each.status, each.response_status) for each in forged} == {("failed", 401)}
    assert len(honest) > 100
    assert forged
    jobs = {job_id("org_a", each.body) for each in honest}
    assert len(jobs) == 100
    stored = {name.decode().removeprefix(keys.JOB) for name in await redis.keys(f"{keys.JOB}*")}
    assert stored == jobs


async def test_it_knows_the_endpoints_and_secrets_of_a_file(
    redis_server: EmbeddedRedis, redis: Redis, tmp_path: Path
) -> None:
    settings = environment(redis_server.url, tmp_path)
    file = settings["ENDPOINTS_FILE"]
    async with ingress(settings) as receiver:
        where = ("--endpoints-file", file, "--ingress", f"http://127.0.0.1:{receiver.port}")
        async with program("--api-key", "k:org_b", *where) as (_, url):
            for organization in ("org_a", "org_b"):
                wish = {"organization": organization}
                made = await ask("POST", f"{url}/_control/events", wish)
                assert [each["status"] for each in made["deliveries"]] == ["delivered"]
    assert await redis.hlen(keys.WAITING) == 2


async def test_an_endpoint_of_an_organization_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "endpoints.toml").write_text(ENDPOINTS)
    words = ("--port", "0", "--api-key", "k:org_a", "--endpoints-file", tmp_path / "endpoints.toml")
    ended = await run(MODULE, *map(str, words), environ=environ())
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.endswith(
        "error: --endpoints-file: expected endpoints of organizations that have an --api-key, "
        "got 'org_b'\n"
    )
