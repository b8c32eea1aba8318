"""Senders that deliver events one after another, and what became of those that were accepted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from shared.queue import keys
from shared.redis.connection import REDIS_ERRORS, open_redis
from shared.settings.redis_url import RedisUrl
from tests.acceptance.ingress_process import IngressProcess
from tests.acceptance.process import run, until
from tests.integration.workplace import body

_SENDERS = 8


@dataclass
class Traffic:
    """Deliveries under way.

    Attributes:
        receivers: who takes them.
        padding: how many bytes each event has that say nothing.
        accepted: the ids of the events that were answered 202.
        refused: the codes of all other answers.
    """

    receivers: Sequence[IngressProcess]
    padding: int = 0
    accepted: list[str] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    async def send(self, sender: int) -> None:
        """Deliver for ever."""
        for number in count():
            event_id = f"evt_{sender}_{number}"
            signed = body(event_id, data={"act": "count", "padding": "x" * self.padding})
            receiver = self.receivers[number % len(self.receivers)]
            with contextlib.suppress(OSError, EOFError):
                reply = await receiver.deliver(signed)
                if reply.status == 202:
                    self.accepted.append(event_id)
                else:
                    assert reply.status == 503
                    self.refused.add(reply.code)
                    await asyncio.sleep(0.01)

    async def accepts(self, more: int, patience: float = 60) -> None:
        """Wait until so many more have been accepted."""
        enough = len(self.accepted) + more

        async def has() -> bool:
            return len(self.accepted) >= enough

        await until(has, patience)


@contextlib.asynccontextmanager
async def traffic(*receivers: IngressProcess, padding: int = 0) -> AsyncIterator[Traffic]:
    """Deliver while the block runs."""
    under_way = Traffic(receivers, padding)
    senders = [asyncio.create_task(under_way.send(number)) for number in range(_SENDERS)]
    try:
        yield under_way
    finally:
        for sender in senders:
            sender.cancel()
        results = await asyncio.gather(*senders, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in results), results


async def settled(environ: Mapping[str, str], patience: float = 60) -> None:
    """Wait until nothing that was accepted is left to do."""
    async with open_redis(RedisUrl(environ["REDIS_URL"])) as redis:

        async def nothing() -> bool:
            try:
                return int(await redis.zcard(keys.ACCEPTED)) == 0
            except REDIS_ERRORS:
                return False

        await until(nothing, patience)


async def handled(environ: Mapping[str, str]) -> dict[str, int]:
    """How often each event's handler has counted it, as an operator looks at it."""
    found = (await run("worker", "state", "org_a", "handled/", environ=environ)).json
    return {each["key"].removeprefix("handled/"): each["value"] for each in found}
