"""The ingress over several partitions, on one Redis and on two, of which one goes away."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue.partition import Partition, home
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import PATIENCE, environment, run, until
from tests.conftest import StartRedis
from tests.ingress_support import Reply
from tests.integration.jobs import organization_of

NUMBER = 4
SENDERS = 20
"""To each primary at once."""

FROZEN_SECONDS = 4.0
"""Longer than Redis has for a reply."""

SLOW = 1.5
"""Seconds in which nearly all deliveries to a primary that works are answered, whatever else the
machine does; those that had waited for the other one would take twice as long."""

ORGANIZATIONS = [f"org_{number}" for number in range(12)]

THERE = {"accepted", "known"}
"""How an event is answered that is kept."""


def secret_of(organization: str) -> str:
    """No two have the same."""
    return f"whsec_of_{organization}"


async def deliver(program: IngressProcess, organization: str, body: bytes) -> str:
    """Deliver for an organization; what the answer says."""
    reply = await program.deliver(body, endpoint=organization, secret=secret_of(organization))
    return reply.code


def environ_of(folder: Path, *servers: EmbeddedRedis, partitions: int = NUMBER) -> dict[str, str]:
    """An environment with an endpoint for each organization, which is called as it is."""
    endpoint = '[[endpoint]]\nid = "{0}"\norganization_id = "{0}"\nsecrets = ["{1}"]\n'
    endpoints = (endpoint.format(each, secret_of(each)) for each in ORGANIZATIONS)
    (folder / "endpoints.toml").write_text("".join(endpoints))
    urls = " ".join(server.url for server in servers)
    return environment(urls, folder, PARTITIONS=str(partitions))


def living_on(primary: int) -> list[str]:
    """The organizations of the partitions that one of two primaries has."""
    return [name for name in ORGANIZATIONS if home(name, NUMBER) % 2 == primary]


async def accepted(server: EmbeddedRedis, number: int) -> set[str]:
    """Whose events wait in a partition."""
    async with Redis.from_url(server.url) as redis:
        names = Partition.at(number, redis).names
        jobs = [job.decode() for job in await redis.zrange(names.accepted, 0, -1)]
        assert all(job.startswith(names.job_prefix) for job in jobs)
        return {organization_of(job) for job in jobs}


async def deliver_to_all(program: IngressProcess) -> Counter[str]:
    """One event for each organization; how often each answer came."""
    return Counter([await deliver(program, name, name.encode()) for name in ORGANIZATIONS])


async def deliver_until(
    codes: Collection[str], program: IngressProcess, names: Collection[str] = ORGANIZATIONS
) -> None:
    """The same event for each of some organizations, until each is answered by one of these.

    As a sender does: where others have the machine, a Redis may take longer for its disk, or its
    replicas, than an ingress waits for them, and is asked for the event again.
    """

    async def are_all() -> bool:
        return {await deliver(program, name, name.encode()) for name in names} <= set(codes)

    await until(are_all)


@dataclass
class Load:
    """Sends without a pause.

    Attributes:
        program: where to.
        names: for whom.
        codes: how often each answer came.
        took: seconds that each took.
        is_over: whether to send no more.
    """

    program: IngressProcess
    names: Sequence[str]
    codes: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    is_over: bool = False

    async def send(self, sender: int) -> None:
        """Send one after the other, as one of many."""
        number = 0
        while not self.is_over:
            number += 1
            began = perf_counter()
            name = self.names[number % len(self.names)]
            self.codes[await deliver(self.program, name, b"%d %d" % (sender, number))] += 1
            self.took.append(perf_counter() - began)
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def under_load(*loads: Load) -> AsyncIterator[None]:
    """Send them all, and see them end."""
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for load in loads:
            for sender in range(SENDERS):
                group.create_task(load.send(sender))
        yield
        for load in loads:
            load.is_over = True


async def noted(program: IngressProcess) -> Reply:
    """What it says of itself when one of its primaries is away; a slow one is noted as well."""
    found: list[Reply] = []

    async def is_one() -> bool:
        found.append(await program.admin("/readyz"))
        assert found[-1].status == 200
        return len(found[-1].json["notes"]) == 1

    await until(is_one)
    return found[-1]


@pytest.mark.parametrize("primaries", [1, 2])
async def test_an_event_lies_where_its_organization_lives(
    primaries: int, tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(primaries)]
    async with ingress(environ_of(tmp_path, *servers)) as program:
        await deliver_until(THERE, program)
        await deliver_until({"known"}, program)
        metrics = (await program.admin("/metrics")).body.decode()
    for number in range(NUMBER):
        there = {name for name in ORGANIZATIONS if home(name, NUMBER) == number}
        assert there
        assert await accepted(servers[number % primaries], number) == there
        assert f'sellfern_partition_up{{partition="{number}"}} 1.0' in metrics
    assert f'sellfern_queue_depth{{state="queued"}} {len(ORGANIZATIONS)}.0' in metrics


async def test_a_frozen_primary_costs_its_own_organizations_alone(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    first, second = (fresh_redis_server(appendfsync="always") for _ in range(2))
    async with ingress(environ_of(tmp_path, first, second)) as program:
        well, frozen = Load(program, living_on(0)), Load(program, living_on(1))
        second.freeze()
        try:
            async with under_load(well, frozen):
                await asyncio.sleep(FROZEN_SECONDS)
                ready = await noted(program)
                metrics = (await program.admin("/metrics")).body.decode()
        finally:
            second.thaw()
        assert well.codes.keys() == {"accepted"}
        assert sorted(well.took)[len(well.took) * 99 // 100] < SLOW
        assert frozen.codes.keys() == {"redis_timeout"}
        # Each would wait for as long as Redis has for a reply.
        assert frozen.codes.total() > 5 * SENDERS
        (note,) = ready.json["notes"]
        assert note["code"] == "redis_timeout"
        assert "(partitions 1, 3 of 4): " in note["message"]
        for number in range(NUMBER):
            up = float(number % 2 == 0)
            assert f'sellfern_partition_up{{partition="{number}"}} {up}' in metrics
        await deliver_until(THERE, program)


@pytest.mark.parametrize("away", [0, 1])
async def test_a_start_needs_one_primary_and_all_agree_on_the_number(
    away: int, tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(2)]
    servers[away].kill()
    environ = environ_of(tmp_path, *servers)
    async with ingress(environ) as program:
        assert (await program.admin("/readyz")).status == 200
        await deliver_until(THERE, program, living_on(1 - away))
        assert {await deliver(program, name, b"x") for name in living_on(away)} == {"redis_awaited"}
        checked = await run("ingress", "check", "--json", environ=environ)
        assert checked.code == 2
        numbers = f"{away}, {away + 2}"
        assert f"(partitions {numbers} of 4): no connection to Redis" in checked.stdout
        servers[away].start()
        await deliver_until(THERE, program)
    async with ingress(environ_of(tmp_path, *servers, partitions=8)) as program:
        ready = await program.admin("/readyz")
        assert ready.status == 503
        assert {each["code"] for each in ready.json["problems"]} == {"redis_layout"}
        assert await deliver_to_all(program) == {"redis_awaited": len(ORGANIZATIONS)}


async def test_a_primary_that_keeps_nothing_ends_the_start_whatever_the_other_does(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync=sync) for sync in ("always", None)]
    program = await IngressProcess.begin("ingress", environ_of(tmp_path, *servers))
    try:
        assert await program.ended() == 2
    finally:
        await program.stop()
    assert "(partitions 1, 3 of 4): DURABILITY=fsync: expected appendonly yes, got no" in (
        program.text
    )
