"""Facts about both programs together: once, isolated, looked at, and stopped under traffic."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import Ended, Program, environment, run, until
from tests.acceptance.terminal import seen
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import body
from worker.operate import organizations

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "\x1b[2J\u202e[bold]:smile:"
SHOWN = "\\x1b[2J\\u202e[bold]:smile:"
STYLES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Place:
    """Both programs over one Redis."""

    server: EmbeddedRedis
    redis: Redis
    receiver: IngressProcess
    worker: Program
    environ: dict[str, str]

    async def command(self, *arguments: str) -> Ended:
        """Run one of the worker's commands."""
        return await run("worker", *arguments, environ=self.environ)

    async def settled(self) -> None:
        """Wait until nothing that was accepted is left to do."""

        async def nothing() -> bool:
            return int(await self.redis.zcard(keys.ACCEPTED)) == 0

        await until(nothing)

    async def state(self, prefix: str) -> dict[str, Any]:
        """What the handlers have counted, as an operator looks at it."""
        found = (await self.command("state", "org_a", prefix)).json
        return {each["key"]: each["value"] for each in found}

    async def buried(self, signed: bytes) -> str:
        """Deliver something that can't be handled; its job, once it is a dead letter."""
        assert (await self.receiver.deliver(signed)).status == 202
        await self.settled()
        return job_id("org_a", signed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    with EmbeddedRedis(appendfsync="always") as server:
        environ = environment(server.url, tmp_path_factory.mktemp("both"))
        async with (
            Redis.from_url(server.url) as redis,
            ingress(environ) as receiver,
            running(environ) as (worker,),
        ):
            yield Place(server, redis, receiver, worker, environ)


def counting(event_id: str, **more: object) -> bytes:
    """An event whose handler counts it."""
    return body(event_id, data={"act": "count", **more})


async def test_an_event_is_handled_once_however_often_and_however_its_bytes_come(
    place: Place,
) -> None:
    same, others = counting("evt_same"), [counting("evt_others", note=n) for n in range(3)]
    storm = [counting("evt_storm", note=n % 10) for n in range(50)]
    for signed in [same, same, *others]:
        assert (await place.receiver.deliver(signed)).status == 202
    await place.settled()
    replies = await asyncio.gather(*map(place.receiver.deliver, [same, *others, *storm]))
    assert {reply.status for reply in replies} == {202}
    await place.settled()
    found = await place.state("handled/evt_")
    assert found == {"handled/evt_same": 1, "handled/evt_others": 1, "handled/evt_storm": 1}
    assert (await place.redis.get(keys.state("org_b", "handled"))) is None


async def test_signed_rubbish_is_a_dead_letter_that_can_be_shown(place: Place) -> None:
    job = await place.buried(b"\x00rubbish \xff\x1b[2J")
    show = ("dead-letters", "show", job)
    shown, as_json = await asyncio.gather(place.command(*show), place.command(*show, "--json"))
    (letter,) = as_json.json
    assert (letter["job"], letter["reason"], letter["endpoint"]) == (job, "malformed", "acme")
    assert letter["body"] == "\x00rubbish \\xff\x1b[2J"
    assert shown.code == 0
    assert "body  \\x00rubbish \\xff\\x1b[2J\n" in shown.stdout


async def test_an_event_of_another_organization_is_a_dead_letter_and_touches_neither(
    place: Place,
) -> None:
    job = await place.buried(body("evt_theirs", "org_b", data={"act": "count"}))
    (letter,) = (await place.command("dead-letters", "show", job, "--json")).json
    assert letter["reason"] == "organization_mismatch"
    assert letter["error"] == "signed by org_a, but the body says org_b"
    assert (await place.worker.logged("organization_mismatch"))[0]["event_id"] == "evt_theirs"
    assert "sellfern_organization_mismatches_total 1.0" in await _metrics(place.worker)
    for organization in ("org_a", "org_b"):
        assert await place.redis.get(keys.state(organization, "handled/evt_theirs")) is None


async def test_what_came_from_outside_is_text_on_a_terminal(place: Place) -> None:
    job = await place.buried(body(f"evt_{EVIL}", type=f"order.{EVIL}", data={"act": EVIL}))
    await organizations.pause(Partition.only(place.redis), "org_b", f"down {EVIL}")
    commands = (["status"], ["dead-letters", "list"], ["dead-letters", "show", job])
    screens = await asyncio.gather(
        *(seen("worker", *each, environ=place.environ, columns=100) for each in commands)
    )
    await organizations.resume(Partition.only(place.redis), "org_b")
    for screen in screens:
        assert SHOWN in screen
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", STYLES.sub("", screen))


async def test_a_dead_letters_job_can_be_copied_from_a_narrow_terminal(place: Place) -> None:
    jobs = [await place.buried(b"rubbish %d" % number) for number in range(3)]
    arguments = ("dead-letters", "list", "--reason", "malformed", "--limit", "2")
    screen = await seen("worker", *arguments, environ=place.environ, columns=60)
    lines = STYLES.sub("", screen).splitlines()
    assert jobs[2] in lines
    assert jobs[0] not in lines
    assert max(map(len, lines)) <= 60
    assert lines[-1] == "only the first 2; --limit shows more"


async def test_probes_and_metrics_of_a_worker_are_on_its_admin_port(place: Place) -> None:
    assert (await place.worker.admin("/livez")).json == {"alive": True}
    assert (await place.worker.admin("/readyz")).json == {"ready": True, "problems": []}
    lines = await _metrics(place.worker)
    assert any(line.startswith("sellfern_events_total") for line in lines)
    assert all(line.startswith(("#", "sellfern_")) for line in lines)


async def _metrics(program: Program) -> list[str]:
    return (await program.admin("/metrics")).body.decode().splitlines()


async def test_neither_program_is_ready_while_redis_is_away_and_both_recover(place: Place) -> None:
    async def tell(status: int) -> None:
        async def both() -> bool:
            replies = [await each.admin("/readyz") for each in (place.receiver, place.worker)]
            return [reply.status for reply in replies] == [status, status]

        await until(both)

    place.server.kill()
    await tell(503)
    place.server.start()
    await tell(200)
    assert (await place.receiver.deliver(counting("evt_after"))).status == 202
    await place.settled()
    assert await place.redis.get(keys.state("org_a", "handled/evt_after")) == b"1"


async def test_nothing_accepted_is_missing_after_both_stop_under_traffic(place: Place) -> None:
    accepted: list[str] = []

    async def client(receiver: IngressProcess, name: str) -> None:
        """Deliver until the ingress is gone."""
        number = 0
        while receiver.is_alive:
            event_id = f"evt_traffic_{name}_{number}"
            number += 1
            with contextlib.suppress(OSError, EOFError):
                reply = await receiver.deliver(counting(event_id))
                assert reply.status in {202, 503}
                if reply.status == 202:
                    accepted.append(event_id)

    async with ingress(place.environ) as receiver, running(place.environ) as (worker,):
        clients = [asyncio.create_task(client(receiver, str(n))) for n in range(8)]

        async def enough() -> bool:
            return len(accepted) > 100

        await until(enough)
        for program in (worker, receiver):
            program.send(signal.SIGTERM)
        assert [await program.ended() for program in (worker, receiver)] == [0, 0]
        await asyncio.gather(*clients)
    await place.settled()
    found = await place.state("handled/evt_traffic_")
    assert found.keys() >= {f"handled/{event_id}" for event_id in accepted}
    assert set(found.values()) == {1}
    assert await account(place.redis) == NOTHING
