"""Facts about the ingress as a process: no 2xx before Redis has it, probes, signals."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.job import job_id
from tests.acceptance.ingress_process import IngressProcess, delivery, ingress
from tests.acceptance.process import Program, environment, get, until
from tests.conftest import StartRedis
from tests.ingress_support import Client, Reply
from tests.integration.workplace import body

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENT = {"DURABILITY_TIMEOUT": "300ms"}  # with a disk or a replica that will not answer


@dataclass
class Place:
    """An ingress, its Redis, and what it has answered to which body."""

    server: EmbeddedRedis
    redis: Redis
    program: IngressProcess
    accepted: set[bytes] = field(default_factory=set)
    refused: dict[bytes, Reply] = field(default_factory=dict)

    async def deliver(self, signed: bytes | None = None) -> Reply:
        """Deliver a body, by default a new one, and remember the answer."""
        signed = body() if signed is None else signed
        reply = await self.program.deliver(signed)
        if reply.status < 300:
            self.accepted.add(signed)
            self.refused.pop(signed, None)
        else:
            self.refused[signed] = reply
        return reply

    async def refuses(self, code: str) -> None:
        """Wait until a delivery is refused so."""

        async def seen() -> bool:
            return any(reply.code == code for reply in self.refused.values())

        await until(seen)

    async def recovers(self) -> None:
        """Wait until the senders' retries of everything refused are accepted."""

        async def accepted() -> bool:
            await asyncio.gather(*map(self.deliver, list(self.refused)))
            return not self.refused

        await until(accepted)

    async def holds_all_accepted(self) -> None:
        """Fail unless every body that got a 2xx is a job in Redis."""
        jobs = {job_id("org_a", signed) for signed in self.accepted}
        queued = {job.decode() for job in await self.redis.zrange(keys.QUEUE, 0, -1)}
        assert jobs <= queued
        assert await self.redis.exists(*map(keys.payload, jobs)) == len(jobs)

    @contextlib.asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """New deliveries one after the other, whatever is answered, from four clients."""
        stopping = asyncio.Event()

        async def client() -> None:
            while not stopping.is_set():
                await self.deliver()
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as clients:
            for _ in range(4):
                clients.create_task(client())
            yield
            stopping.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    with EmbeddedRedis(appendfsync="always") as server:
        environ = environment(server.url, tmp_path_factory.mktemp("ingress"), **PATIENT)
        async with Redis.from_url(server.url) as redis, ingress(environ) as program:
            yield Place(server, redis, program)


def assert_unavailable(reply: Reply, code: str | None = None) -> None:
    """Fail unless the answer is a 503, of this kind, in the vendor's shape."""
    assert (reply.status, reply.code) == (503, code or reply.code), reply
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json["success"] is False
    assert reply.json["meta"]["request_id"] == reply.headers["x-request-id"]


async def readiness(program: Program, *codes: str) -> None:
    """Wait until /readyz tells of these problems, and of no other."""

    async def told() -> bool:
        reply = await program.admin("/readyz")
        assert reply.status == (503 if reply.json["problems"] else 200)
        return [each["code"] for each in reply.json["problems"]] == list(codes)

    await until(told)


@contextlib.asynccontextmanager
async def crashed(place: Place) -> AsyncIterator[None]:
    place.server.kill()
    try:
        yield
    finally:
        place.server.start()


@contextlib.asynccontextmanager
async def frozen(place: Place) -> AsyncIterator[None]:
    place.server.freeze()
    try:
        yield
    finally:
        place.server.thaw()


@contextlib.asynccontextmanager
async def demoted(place: Place) -> AsyncIterator[None]:
    await place.redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        await place.redis.replicaof("NO", "ONE")


@contextlib.asynccontextmanager
async def full(place: Place) -> AsyncIterator[None]:
    await place.redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await place.redis.config_set("maxmemory", 0)


@contextlib.asynccontextmanager
async def unsynced(place: Place) -> AsyncIterator[None]:
    """Redis goes on writing to its file, and nothing makes it reach the disk."""
    await place.redis.config_set("appendfsync", "no")
    try:
        yield
    finally:
        await place.redis.config_set("appendfsync", "always")


Failure = Callable[[Place], contextlib.AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    ("failure", "code", "unready"),
    [
        (crashed, "redis_unreachable", ["redis_unreachable"]),
        (frozen, "redis_timeout", ["redis_timeout"]),
        (demoted, "redis_readonly", ["redis_readonly"]),
        (full, "redis_out_of_memory", []),
        # What readiness says of it takes a user that may read Redis's settings, which those of
        # deploy/redis may not: tests/integration/test_durability.py has it.
        (unsynced, "not_synced", None),
    ],
)
async def test_a_failing_redis_is_a_503_until_it_works_again_and_nothing_accepted_is_missing(
    place: Place, failure: Failure, code: str, unready: list[str] | None
) -> None:
    async with place.traffic():
        assert (await place.deliver()).status == 202
        async with failure(place):
            await place.refuses(code)
            if unready is not None:
                await readiness(place.program, *unready)
            assert (await place.program.admin("/livez")).status == 200
    for reply in place.refused.values():
        assert_unavailable(reply)
    await place.recovers()
    assert place.program.is_alive
    await place.holds_all_accepted()


async def test_no_answer_comes_while_redis_keeps_its_own_back(place: Place) -> None:
    async with frozen(place):
        waiting = asyncio.create_task(place.deliver())
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
    assert (await waiting).status == 202
    await place.holds_all_accepted()


async def test_a_delivery_known_already_is_accepted_only_once_it_is_on_disk(place: Place) -> None:
    signed = body()
    async with unsynced(place):
        assert_unavailable(await place.deliver(signed), "not_synced")
        assert await place.redis.exists(keys.payload(job_id("org_a", signed)))
        # What is new to a connection is known to Redis: only a write of its own makes it wait.
        await place.redis.client_kill_filter(_type="normal", skipme=True)
        assert_unavailable(await place.deliver(signed), "not_synced")
    assert (await place.deliver(signed)).code == "known"


async def test_without_its_replica_a_delivery_new_or_known_already_is_refused(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    primary = fresh_redis_server(appendfsync=None)
    replica = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", primary.port))
    environ = environment(primary.url, tmp_path, DURABILITY="replica", **PATIENT)
    async with Redis.from_url(primary.url) as redis:
        await until(lambda: _has_replica(redis))
        async with ingress(environ) as program:
            place = Place(primary, redis, program)
            assert (await place.deliver()).code == "accepted"
            signed = body()
            replica.freeze()
            assert_unavailable(await place.deliver(signed), "not_replicated")
            await redis.client_kill_filter(_type="normal", skipme=True)
            assert_unavailable(await place.deliver(signed), "not_replicated")
            replica.thaw()
            await place.recovers()
            replica.kill()
            await until(lambda: _lacks_replica(redis))
            assert_unavailable(await place.deliver(body()), "not_replicated")
            await readiness(program, "not_replicated")
            replica.start()
            await place.recovers()
            async with Redis.from_url(replica.url) as copy:
                await replace(place, server=replica, redis=copy).holds_all_accepted()


async def _has_replica(redis: Redis) -> bool:
    return "online" in str((await redis.info("replication")).get("slave0"))


async def _lacks_replica(redis: Redis) -> bool:
    return bool((await redis.info("replication"))["connected_slaves"] == 0)


async def test_probes_and_metrics_are_on_the_admin_port_and_never_on_the_public_one(
    place: Place,
) -> None:
    assert (await place.program.admin("/livez")).json == {"alive": True}
    await readiness(place.program)
    assert (await place.program.admin("/nothing")).status == 404
    for path in ("/livez", "/readyz", "/metrics", "/webhooks/../metrics", "/"):
        reply = await get(place.program.port, path)
        assert reply.status in {404, 405}
        assert "sellfern_" not in reply.body.decode()
    reply = await place.program.admin("/webhooks/acme")
    assert reply.status == 404


async def test_every_metric_bears_the_projects_name(place: Place) -> None:
    before = await _metrics(place.program)
    await place.deliver()
    await place.program.deliver(body(), secret="whsec_wrong")
    lines = await _metrics(place.program)
    for outcome in ("accepted", "signature_invalid"):
        assert _metric(lines, outcome) == _metric(before, outcome) + 1
    assert all(line.startswith("sellfern_") for line in lines if not line.startswith("#"))


async def test_the_ingress_tells_of_the_whole_queue(place: Place) -> None:
    await place.deliver()
    lines = await _metrics(place.program)
    for name in ('sellfern_queue_depth{state="queued"}', "sellfern_due_seconds"):
        assert [line for line in lines if line.startswith(name)], name


async def _metrics(program: Program) -> list[str]:
    return (await program.admin("/metrics")).body.decode().splitlines()


def _metric(lines: list[str], outcome: str) -> float:
    name = f'sellfern_ingress_requests_total{{outcome="{outcome}"}} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def _holds(program: Program, size: int) -> None:
    """Wait until so many bytes of requests have arrived."""

    async def arrived() -> bool:
        return f"sellfern_ingress_bytes_in_flight {size}.0" in await _metrics(program)

    await until(arrived)


async def test_sigterm_answers_every_request_that_was_sent(place: Place, tmp_path: Path) -> None:
    """Those that wait for Redis, and those whose bodies are still on their way."""
    whole = [body() for _ in range(20)]
    slow = [body() for _ in range(5)]
    async with (
        ingress(environment(place.server.url, tmp_path, DRAIN_DELAY="0")) as program,
        contextlib.AsyncExitStack() as connections,
    ):
        clients = [await connections.enter_async_context(Client.to(program.port)) for _ in slow]
        async with frozen(place):
            asked = [asyncio.create_task(program.deliver(each)) for each in whole]
            for client, each in zip(clients, slow, strict=True):
                await client.send(delivery(each)[:-20])
            sent = sum(len(delivery(each)) for each in [*whole, *slow])
            await _holds(program, sent - 20 * len(slow))
            program.send(signal.SIGTERM)
            await program.logged("draining")
            await readiness(program, "draining")
            for client, each in zip(clients, slow, strict=True):
                await client.send(each[-20:])
        replies = await asyncio.gather(*asked, *(client.reply() for client in clients))
        assert await program.ended() == 0
    assert [reply.status for reply in replies] == [202] * 25
    place.accepted.update(whole, slow)
    await place.holds_all_accepted()
    assert program.lines[-1]["event"] == "ingress_stopped"


async def test_a_second_signal_ends_the_ingress_at_once(place: Place, tmp_path: Path) -> None:
    async with (
        ingress(environment(place.server.url, tmp_path)) as program,
        Client.to(program.port) as client,
    ):
        begun = delivery(b"{" + b" " * 100)[:-1]
        await client.send(begun)
        await _holds(program, len(begun))
        program.send(signal.SIGINT)
        await program.logged("draining")
        program.send(signal.SIGTERM)
        assert await program.ended() == -signal.SIGTERM
