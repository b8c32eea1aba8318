"""Facts about the management commands as processes: killed, run again, under traffic."""

import asyncio
import contextlib
import signal
import stat
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.sellfern import Delivery, Fault, Sellfern, simulator
from deploy.sellfern.openapi import document
from deploy.sellfern.vendor import EVENTS
from ingress.management.journal import Journal
from shared.endpoints.file import EndpointsFile
from shared.queue import keys
from tests.acceptance import warm
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import ROOT, Ended, environment, run, until
from tests.acceptance.worker_process import running
from tests.integration.workplace import body

KEY = "sk_test_of_org_a"
FIRST = "whsec_a"
EVENTS_TO_HANDLE = 500
PACE = 0.01
LONGEST = 120.0  # seconds that the rest of the traffic may take
WAITING = 200  # events that may wait for the worker; more would only test this machine


def managing(vendor: Sellfern, server: EmbeddedRedis, folder: Path, **changes: str) -> Any:
    """The environment of a command."""
    settings = {
        "SELLFERN_API_URL": vendor.url,
        "SELLFERN_API_KEY": KEY,
        "SELLFERN_ORGANIZATION": "org_a",
        "INGRESS_PUBLIC_URL": "https://hooks.example.com",
        **changes,
    }
    return environment(server.url, folder, **settings)


async def learn(vendor: Sellfern, environ: dict[str, str], folder: Path) -> None:
    """Import Sellfern's OpenAPI document."""
    file = folder / "openapi.json"
    file.write_bytes(msgspec.json.encode(document(vendor.url, EVENTS)))
    done = await run("ingress", "reference", "import", str(file), "--yes", environ=environ)
    assert done.code == 0, done.stderr


async def killed_in(vendor: Sellfern, environ: dict[str, str], *arguments: str) -> None:
    """Run a command and kill it while Sellfern lets it wait for an answer."""
    before = len(vendor.requests)
    process = await warm.start(
        sys.executable, "-m", "ingress", *arguments, cwd=ROOT, env=environ, stdout=PIPE, stderr=PIPE
    )

    async def asked() -> bool:
        return any(seen.outcome == "hang" for seen in list(vendor.requests)[before:])

    try:
        await until(asked)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_command_killed_before_the_answer_is_completed_by_the_next_run_with_the_same_key(
    redis_server: EmbeddedRedis, tmp_path: Path, when: Any
) -> None:
    async with simulator(f"{KEY}:org_a") as vendor:
        vendor.faults.add(Fault("hang", when=when, operation="POST /webhooks"))
        environ = managing(vendor, redis_server, tmp_path)
        (tmp_path / "endpoints.toml").chmod(0o600)
        command = ("endpoints", "register", "new", "--yes")
        await killed_in(vendor, environ, *command)
        assert len(Journal(tmp_path / ".sellfern" / "journal.json").pending) == 1

        done = await run("ingress", *command, environ=environ)
        assert done.code == 0, done.stderr
        (remote,) = vendor.endpoints.of("org_a")
        assert len({seen.idempotency_key for seen in vendor.requests}) == 1
        file = EndpointsFile(tmp_path / "endpoints.toml", {}).load()
        assert [secret.value for secret in file["new"].secrets] == [remote.secret]
        assert list(file) == ["acme", "bolt", "new"]
        assert stat.S_IMODE((tmp_path / "endpoints.toml").stat().st_mode) == 0o600
        assert not Journal(tmp_path / ".sellfern" / "journal.json").pending


async def test_a_removal_killed_after_its_effect_is_completed_by_the_next_run(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    """Sellfern's list no longer has the endpoint then, and its 404 would tell nothing."""
    async with simulator(f"{KEY}:org_a") as vendor:
        environ = managing(vendor, redis_server, tmp_path)
        await learn(vendor, environ, tmp_path)
        url = "https://hooks.example.com/webhooks/acme"
        vendor.endpoints.create("org_a", url, ("order.updated",), secret=FIRST)
        vendor.faults.add(Fault("hang", when="after", operation="DELETE"))
        command = ("endpoints", "remove", "acme", "--yes")
        await killed_in(vendor, environ, *command)
        assert vendor.endpoints.of("org_a") == []

        done = await run("ingress", *command, environ=environ)
        assert done.code == 0, done.stderr
        assert [seen.outcome for seen in vendor.requests if seen.method == "DELETE"] == [
            "hang",
            "200",
        ]
        assert list(EndpointsFile(tmp_path / "endpoints.toml", {}).load()) == ["bolt"]


async def test_the_worker_obeys_the_imported_reference(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with simulator(f"{KEY}:org_a") as vendor:
        environ = managing(vendor, redis_server, tmp_path)
        await learn(vendor, environ, tmp_path)
    async with ingress(environ) as receiver, running(environ):
        answer = await receiver.deliver(body("evt_1", type="ticket.created", data={}))
        assert answer.status == 202

        async def handled() -> bool:
            return int(await redis.get(keys.state("org_a", "handled/evt_1")) or 0) == 1

        await until(handled)


async def test_a_reference_that_can_t_be_read_stops_the_worker_at_its_start(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, REFERENCE_FILE=str(tmp_path / "nothing"))
    done = await run("worker", environ=environ)
    assert done.code == 2
    assert "error: REFERENCE_FILE: expected a file of reference data" in done.stderr


@dataclass
class Traffic:
    """Events that happen, one after the other, and their deliveries."""

    vendor: Sellfern
    redis: Redis
    deliveries: dict[str, list[Delivery]] = field(default_factory=dict)

    async def flow(self, enough: asyncio.Event) -> None:
        """Let events happen until there are as many as wanted and nobody needs more."""
        while not enough.is_set() or len(self.deliveries) < EVENTS_TO_HANDLE:
            event, made = await self.vendor.publish("order.updated", "org_a", {"act": "count"})
            self.deliveries[event.id] = made
            await asyncio.sleep(PACE)
            while len(self.deliveries) - await self.handled() > WAITING:
                await asyncio.sleep(0.05)

    async def handled(self) -> int:
        """How many have been handled."""
        return int(await self.redis.get(keys.state("org_a", "handled")) or 0)

    async def settled(self) -> None:
        """Wait until every event has been delivered and handled."""
        await self.vendor.settled()

        async def all_are() -> bool:
            return int(await self.redis.zcard(keys.ACCEPTED)) == 0

        await until(all_are, patience=60)

    async def check(self) -> None:
        """Every event was taken, nothing was refused, nothing handled twice."""
        for event_id, made in self.deliveries.items():
            statuses = {attempt.response_status for each in made for attempt in each.attempts}
            assert statuses == {202}, event_id
            assert any(each.status == "delivered" for each in made)
        names = [keys.state("org_a", f"handled/{event_id}") for event_id in self.deliveries]
        assert {int(value or 0) for value in await self.redis.mget(names)} == {1}
        assert await self.handled() == len(self.deliveries)


@dataclass
class Place:
    """Both programs, a Sellfern that delivers to them, and traffic between the two."""

    vendor: Sellfern
    receiver: IngressProcess
    traffic: Traffic
    environ: dict[str, str]
    folder: Path

    @property
    def is_rotated(self) -> bool:
        """Whether only the second registration is left, and the journal knows it."""
        journal = Journal(self.folder / ".sellfern" / "journal.json")
        (*others, last) = self.vendor.endpoints.of("org_a")
        is_second = last.url.endswith("?rotation=2")
        return is_second and not others and not journal.pending and not journal._contents.work

    async def rotate(self, *arguments: str) -> Ended:
        """Rotate the secret, to the end."""
        return await self._command("ingress", *arguments)

    async def rotate_and_die(self, at: int) -> Ended:
        """Rotate the secret, and die at a point."""
        return await self._command("tests.acceptance.dying_command", before=(str(at),))

    async def _command(self, module: str, *arguments: str, before: tuple[str, ...] = ()) -> Ended:
        words = ("endpoints", "rotate", "acme", "--grace", "1s", "--wait", "15s", "--yes")
        return await run(module, *before, *words, *arguments, environ=self.environ)


@contextlib.asynccontextmanager
async def place(redis: Redis, server: EmbeddedRedis, folder: Path) -> AsyncIterator[Place]:
    """Both programs and a Sellfern; the traffic goes on while the block runs."""
    async with simulator(f"{KEY}:org_a", attempts=1, timeout=30) as vendor:
        environ = managing(vendor, server, folder)
        await learn(vendor, environ, folder)
        async with ingress(environ) as receiver, running(environ):
            (line,) = await receiver.logged("admin_listening")
            environ["INGRESS_ADMIN_PORT"] = str(line["port"])
            url = f"http://127.0.0.1:{receiver.port}/webhooks/acme"
            vendor.endpoints.create("org_a", url, ("order.updated",), secret=FIRST)
            traffic = Traffic(vendor, redis)
            enough = asyncio.Event()
            flowing = asyncio.create_task(traffic.flow(enough))
            try:
                yield Place(vendor, receiver, traffic, environ, folder)
                enough.set()
                async with asyncio.timeout(LONGEST):
                    await flowing
                    await traffic.settled()
                await traffic.check()
                assert receiver.events("delivery_refused") == []
                assert len(traffic.deliveries) >= EVENTS_TO_HANDLE
            finally:
                flowing.cancel()
                await asyncio.gather(flowing, return_exceptions=True)
            await only_the_new_secret_works(receiver, vendor, folder)


async def only_the_new_secret_works(
    receiver: IngressProcess, vendor: Sellfern, folder: Path
) -> None:
    (remote,) = vendor.endpoints.of("org_a")
    new, old = EndpointsFile(folder / "endpoints.toml", {}).load()["acme"].secrets
    assert (new.value, new.until) == (remote.secret, None)
    assert old.value.reveal() == FIRST
    assert old.until is not None
    await asyncio.sleep(max(0.0, old.until.timestamp() - time()))
    answer = await receiver.deliver(body("evt_late"), secret=FIRST)
    assert (answer.status, answer.code) == (401, "signature_invalid")
    answer = await receiver.deliver(body("evt_late"), secret=remote.secret.reveal())
    assert answer.status == 202


async def test_a_rotation_under_traffic_refuses_nothing_and_nothing_is_handled_twice(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with place(redis, redis_server, tmp_path) as there:
        (row,) = (await there.rotate("--json")).json
        (remote,) = there.vendor.endpoints.of("org_a")
        assert row["remote_id"] == remote.id
        assert remote.url.endswith("/webhooks/acme?rotation=2")


async def test_a_rotation_killed_at_every_step_under_traffic_refuses_nothing_either(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with place(redis, redis_server, tmp_path) as there:
        # Four points are as far as from one step on disk to the next; three end in between.
        for runs in range(1, 40):
            done = await there.rotate_and_die(4 if runs % 2 else 3)
            assert done.code == -signal.SIGKILL, done.stderr
            if there.is_rotated:
                break
        assert there.is_rotated
        assert runs > 10
