"""The ingress over several partitions, on one Redis and on two, of which one goes away."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
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
from tests.integration.jobs import organization_of

NUMBER = 4
SENDERS = 20
"""To each primary at once."""

FROZEN_SECONDS = 4.0
"""Longer than Redis has for a reply."""

SLOW = 1.5
"""Seconds that no delivery to a primary that works may take, whatever else the machine does."""

ORGANIZATIONS = [f"org_{number}" for number in range(12)]


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


@dataclass
class Load:
    """Sends without a pause.

    Attributes:
        program: where to.
        names: for whom.
        codes: how often each answer came.
        slowest: seconds that the slowest took.
        is_over: whether to send no more.
    """

    program: IngressProcess
    names: Sequence[str]
    codes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    is_over: bool = False

    async def send(self, sender: int) -> None:
        """Send one after the other, as one of many."""
        number = 0
        while not self.is_over:
            number += 1
            began = perf_counter()
            name = self.names[number % len(self.names)]
            self.codes[await deliver(self.program, name, b"%d %d" % (sender, number))] += 1
            self.slowest = max(self.slowest, perf_counter() - began)
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


@pytest.mark.parametrize("primaries", [1, 2])
async def test_an_event_lies_where_its_organization_lives(
    primaries: int, tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(primaries)]
    async with ingress(environ_of(tmp_path, *servers)) as program:
        assert await deliver_to_all(program) == {"accepted": len(ORGANIZATIONS)}
        assert await deliver_to_all(program) == {"known": len(ORGANIZATIONS)}
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
                ready = await program.admin("/readyz")
                metrics = (await program.admin("/metrics")).body.decode()
        finally:
            second.thaw()
        assert well.codes.keys() == {"accepted"}
        assert well.slowest < SLOW
        assert frozen.codes.keys() == {"redis_timeout"}
        # Each would wait for as long as Redis has for a reply.
        assert frozen.codes.total() > 5 * SENDERS
        assert ready.status == 200
        (note,) = ready.json["notes"]
        assert note["code"] == "redis_timeout"
        assert "(partitions 1, 3 of 4): " in note["message"]
        for number in range(NUMBER):
            up = float(number % 2 == 0)
            assert f'sellfern_partition_up{{partition="{number}"}} {up}' in metrics

        async def works() -> bool:
            return await deliver_to_all(program) == {"accepted": len(ORGANIZATIONS)} or (
                await deliver_to_all(program) == {"known": len(ORGANIZATIONS)}
            )

        await until(works)


@pytest.mark.parametrize("away", [0, 1])
async def test_a_start_needs_one_primary_and_all_agree_on_the_number(
    away: int, tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(2)]
    servers[away].kill()
    environ = environ_of(tmp_path, *servers)
    async with ingress(environ) as program:
        assert (await program.admin("/readyz")).status == 200
        codes = await deliver_to_all(program)
        there = len(living_on(1 - away))
        assert codes == {"accepted": there, "redis_awaited": len(ORGANIZATIONS) - there}
        checked = await run("ingress", "check", "--json", environ=environ)
        assert checked.code == 2
        numbers = f"{away}, {away + 2}"
        assert f"(partitions {numbers} of 4): no connection to Redis" in checked.stdout
        servers[away].start()

        async def is_there() -> bool:
            return "redis_awaited" not in await deliver_to_all(program)

        await until(is_there)
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
