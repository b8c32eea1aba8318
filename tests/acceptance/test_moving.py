"""An organization goes to another primary, or into partitions, while its events come in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import PATIENCE, run, until
from tests.acceptance.test_partitions import THERE, environ_of, living_on, secret_of
from tests.acceptance.worker_process import running
from tests.conftest import StartRedis
from tests.integration.workplace import body

SENDERS = 4
SLOW = {"not_synced", "redis_timeout"}
NAME = living_on(0)[0]


class Sent(list[str]):
    """The ids of events that were accepted; none was refused, but by a Redis that was slow."""

    is_over = False

    async def send(self, receiver: IngressProcess, sender: int) -> None:
        for number in count():
            if self.is_over:
                return
            event_id = f"evt_{sender}_{number}"
            signed = body(event_id, NAME, data={"act": "count"})
            code = "not_synced"
            while code in SLOW:
                reply = await receiver.deliver(signed, endpoint=NAME, secret=secret_of(NAME))
                code = reply.code
            assert code in THERE
            self.append(event_id)
            await asyncio.sleep(0.02)

    async def some_more(self) -> None:
        """Wait until some more have been accepted."""
        before = len(self)
        while len(self) < before + 2 * SENDERS:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def sending(receiver: IngressProcess) -> AsyncIterator[Sent]:
    """Send while the block runs."""
    sent = Sent()
    async with asyncio.timeout(5 * PATIENCE), asyncio.TaskGroup() as group:
        for sender in range(SENDERS):
            group.create_task(sent.send(receiver, sender))
        await sent.some_more()
        yield sent
        await sent.some_more()
        sent.is_over = True


async def all_are_handled_once(environ: Mapping[str, str], sent: Sent) -> None:
    async def is_settled() -> bool:
        (status,) = (await run("worker", "status", "--json", environ=environ)).json
        return bool(status["waiting"] == 0)

    await until(is_settled, 5 * PATIENCE)
    found = (await run("worker", "state", NAME, "handled/", environ=environ)).json
    assert {each["key"]: each["value"] for each in found} == {
        f"handled/{event_id}": 1 for event_id in sent
    }


async def test_programs_follow_an_organization_to_another_primary_and_back(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    servers = [fresh_redis_server(appendfsync="always") for _ in range(2)]
    environ = environ_of(tmp_path, *servers)
    async with ingress(environ) as receiver, running(environ):
        async with sending(receiver) as sent:
            for to in (1, 0):
                move = ("partitions", "move", NAME, str(to), "--json")
                ended = await run("worker", *move, environ=environ)
                assert ended.code == 0, ended.stderr
                (told,) = ended.json
                assert (told["to"], told["from"]) == (to, 1 - to)
                await sent.some_more()
        await all_are_handled_once(environ, sent)


async def test_a_single_queue_is_left_for_partitions_on_other_servers(
    tmp_path: Path, fresh_redis_server: StartRedis
) -> None:
    old, *servers = [fresh_redis_server(appendfsync="always") for _ in range(3)]
    single = environ_of(tmp_path, old, partitions=1)
    several = environ_of(tmp_path, *servers)
    both = {**several, "REDIS_URL_BEFORE": old.url}
    checked = await run("ingress", "check", "--json", environ=both)
    assert checked.code == 0, checked.stdout
    assert f"{old.url} (REDIS_URL_BEFORE): DURABILITY=fsync holds" in checked.stdout
    async with ingress(both) as receiver, running(single), running(several):
        async with sending(receiver) as sent:
            ended = await run("worker", "partitions", "migrate", environ=both)
            assert ended.code == 0, ended.stderr
            assert f"moved {NAME} from REDIS_URL_BEFORE to partition 0" in ended.stdout
        await all_are_handled_once(several, sent)
    (status,) = (await run("worker", "status", "--json", environ=single)).json
    assert (status["waiting"], status["organizations"]) == (0, [])
