"""An organization goes from one primary to the other while its events come in."""

import asyncio
from itertools import count
from pathlib import Path

from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import PATIENCE, run, until
from tests.acceptance.test_partitions import environ_of, living_on, secret_of
from tests.acceptance.worker_process import running
from tests.conftest import StartRedis
from tests.integration.workplace import body

SENDERS = 4


async def test_programs_follow_an_organization_to_another_primary_and_back(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(2)]
    environ, name = environ_of(tmp_path, *servers), living_on(0)[0]
    accepted: list[str] = []
    is_over = False

    async def send(sender: int) -> None:
        for number in count():
            if is_over:
                return
            event_id = f"evt_{sender}_{number}"
            signed = body(event_id, name, data={"act": "count"})
            reply = await receiver.deliver(signed, endpoint=name, secret=secret_of(name))
            assert reply.code == "accepted"
            accepted.append(event_id)
            await asyncio.sleep(0.02)

    async def is_settled() -> bool:
        (status,) = (await run("worker", "status", "--json", environ=environ)).json
        return bool(status["waiting"] == 0)

    async with ingress(environ) as receiver, running(environ):
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for sender in range(SENDERS):
                group.create_task(send(sender))
            for to in (1, 0):
                before = len(accepted)
                ended = await run(
                    "worker", "partitions", "move", name, str(to), "--json", environ=environ
                )
                assert ended.code == 0, ended.stderr
                (told,) = ended.json
                assert (told["to"], told["from"]) == (to, 1 - to)
                while len(accepted) < before + 2 * SENDERS:
                    await asyncio.sleep(0.01)
            is_over = True
        await until(is_settled)
    found = (await run("worker", "state", name, "handled/", environ=environ)).json
    assert {each["key"]: each["value"] for each in found} == {
        f"handled/{event_id}": 1 for event_id in accepted
    }
