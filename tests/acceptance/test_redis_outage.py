"""Redis is killed under load: both programs go on by themselves, nothing accepted is missing."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, ingress
from tests.acceptance.process import environment, until
from tests.acceptance.worker_process import running
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import body

CLIENTS = 8
OUTAGES = 3
BETWEEN = 150


@dataclass
class Sender:
    """Delivers as Sellfern may: what isn't answered with a 2xx is sent again.

    Attributes:
        receiver: where to.
        answers: how often each status was seen.
        accepted: the events that got a 2xx.
        stop: set once no new events are to be sent.
    """

    receiver: IngressProcess
    answers: Counter[int] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self, name: int) -> None:
        """Send one event after another, each until it is accepted."""
        number = 0
        while not self.stop.is_set():
            number += 1
            event_id = f"evt_{name}_{number}"
            signed = body(event_id, data={"act": "count"})
            while (status := (await self.receiver.deliver(signed)).status) != 202:
                self.answers[status] += 1
                await asyncio.sleep(0.05)
            self.answers[202] += 1
            self.accepted.append(event_id)

    async def reaches(self, accepted: int) -> None:
        """Wait until so many have been accepted."""

        async def enough() -> bool:
            return len(self.accepted) >= accepted

        await until(enough)

    async def is_refused(self) -> None:
        """Wait until one more delivery is refused."""
        before = self.answers[503]

        async def refused() -> bool:
            return self.answers[503] > before

        await until(refused)

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send for as long as the block lasts, and until all of it has been accepted."""
        async with asyncio.TaskGroup() as clients:
            for name in range(CLIENTS):
                clients.create_task(self.client(name))
            yield
            self.stop.set()


async def test_redis_killed_under_load_costs_503s_and_nothing_else(tmp_path: Path) -> None:
    with EmbeddedRedis(appendfsync="always") as server:
        environ = environment(server.url, tmp_path)
        async with (
            Redis.from_url(server.url) as redis,
            ingress(environ) as receiver,
            running(environ, 2) as workers,
        ):
            sender = Sender(receiver)
            async with sender.sending():
                for _ in range(OUTAGES):
                    await sender.reaches(len(sender.accepted) + BETWEEN)
                    server.kill()
                    await sender.is_refused()
                    server.start()
                await sender.reaches(len(sender.accepted) + BETWEEN)

            async def settled() -> bool:
                return int(await redis.zcard(keys.ACCEPTED)) == 0

            await until(settled)
            assert sender.answers.keys() == {202, 503}
            assert len(sender.accepted) >= (OUTAGES + 1) * BETWEEN
            names = [keys.state("org_a", f"handled/{each}") for each in sender.accepted]
            assert set(await redis.mget(names)) == {b"1"}
            assert await account(redis) == NOTHING
            assert receiver.is_alive
            assert all(worker.is_alive for worker in workers)
