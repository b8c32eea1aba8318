"""Deliveries at a steady rate to an ingress, each with the time that its answer took."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from time import perf_counter
from typing import Final, Self

from tests.bench import events
from tests.bench.environments import CannotRunError
from tests.bench.http_client import Connection

ORGANIZATION: Final = events.ORGANIZATIONS[0]
"""Whose deliveries they are."""

_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Receiver:
    """An ingress, and how long its answers took.

    Attributes:
        connections: to it.
        idle: those that nothing is asked over.
        taken: of each delivery when it was to be sent, and the seconds from there to its answer.
    """

    connections: Sequence[Connection]
    idle: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    taken: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    async def at(cls, port: int) -> Self:
        """Open connections to the one that listens there."""
        receiver = cls([await Connection.to(port) for _ in range(_CONNECTIONS)])
        for connection in receiver.connections:
            receiver.idle.put_nowait(connection)
        return receiver

    def close(self) -> None:
        """End all connections."""
        for connection in self.connections:
            connection.close()

    async def ask(self, number: int) -> None:
        """Send one delivery, and note its answer.

        Raises:
            CannotRunError: it is refused.
        """
        content = events.body(ORGANIZATION, events.event_id(number))
        request = events.request(ORGANIZATION, content)
        started = perf_counter()
        connection = await self.idle.get()  # where none is idle, that is a part of the time
        status = await connection.ask(request)
        if status != HTTPStatus.ACCEPTED:
            raise CannotRunError(f"a delivery was answered {status}")
        self.idle.put_nowait(connection)
        self.taken.append((started, perf_counter() - started))

    def within(self, windows: Sequence[tuple[float, float]]) -> list[float]:
        """The seconds of the deliveries that were sent in any of these times."""
        return [
            took
            for sent, took in self.taken
            if any(first <= sent < last for first, last in windows)
        ]


@asynccontextmanager
async def deliveries(receivers: Sequence[Receiver], rate: float) -> AsyncIterator[None]:
    """Send so many a second to each, at the same moments, over a block; then await all answers.

    Raises:
        CannotRunError: one is refused.
    """
    over = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_send(receivers, rate, tasks, over))
            yield
            over.set()
    except ExceptionGroup as failed:
        raise CannotRunError(str(failed.exceptions[0])) from failed


async def _send(
    receivers: Sequence[Receiver], rate: float, tasks: asyncio.TaskGroup, over: asyncio.Event
) -> None:
    begin = perf_counter()
    for number in count():
        await asyncio.sleep(begin + number / rate - perf_counter())
        if over.is_set():
            return
        for place, receiver in enumerate(receivers):
            tasks.create_task(receiver.ask(number * len(receivers) + place))
