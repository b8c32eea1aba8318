"""Events at a low, steady rate through the real programs, timed from POST to commit."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from time import perf_counter, time
from typing import Final, Self

from tests.bench import events
from tests.bench.environments import ROOT, CannotRunError
from tests.bench.http_client import Connection
from tests.bench.programs import INGRESS, WORKER, Program, environment

RATE: Final = 100
"""Events a second."""

KIND: Final = "9"
"""Tells the probed events' ids from those of others."""

_CONNECTIONS: Final = 32
_PATIENCE: Final = 30.0
_MARK: Final = f'"event_id":"evt_{KIND}'.encode()
_ID_BYTES: Final = len(events.event_id(0))
_STAMP: Final = b'{"timestamp":"'
_STAMP_BYTES: Final = len("2026-01-01T00:00:00.000Z")
_MILLISECOND: Final = 0.001


class HandledEvents(asyncio.Protocol):
    """Reads a worker's log as it comes, and notes when each probed event was handled.

    By the moment that the line tells, which is after the event's commit: lines are written a few
    milliseconds later, together with others.

    Attributes:
        times: seconds since the epoch, by event id. A line tells the millisecond, of which this is
            the end, so that nothing looks faster than it is.
        started: set once the worker has.
    """

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.started = asyncio.Event()
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """Look for the probed events only: a busy worker writes many lines."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if not self.started.is_set() and data.find(b'"event":"worker_started"', 0, end) >= 0:
            self.started.set()
        place = data.find(_MARK, 0, end)
        while place >= 0:
            start = place + len(_MARK) - len(f"evt_{KIND}")
            line = data.rfind(_STAMP, 0, place) + len(_STAMP)
            told = datetime.fromisoformat(data[line : line + _STAMP_BYTES].decode())
            event_id = data[start : start + _ID_BYTES].decode()
            self.times[event_id] = told.timestamp() + _MILLISECOND
            place = data.find(_MARK, start, end)


@dataclass(frozen=True, slots=True)
class Probed:
    """How long the probed events took.

    Attributes:
        answered: seconds from each POST to its 202.
        handled: seconds from each POST until it was handled.
    """

    answered: list[float]
    handled: list[float]


@dataclass(frozen=True, slots=True)
class Place:
    """One ingress and one worker of ours, running."""

    port: int
    handled: HandledEvents

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(
        cls, redis_url: str, folder: Path, organizations: tuple[str, ...], **changes: str
    ) -> AsyncIterator[Self]:
        """Start both; the changes are to their environment."""
        endpoints = events.write_endpoints(folder, organizations)
        environ = environment(redis_url, endpoints, **changes)
        with Program.started(INGRESS, environ, folder / "ingress.log") as ingress:
            port = int(ingress.logged("ingress_listening")["port"])
            async with _worker(environ) as handled:
                yield cls(port, handled)

    async def probe(self, organization: str, seconds: float) -> Probed:
        """Send events of one organization, and wait until all are handled.

        Raises:
            CannotRunError: one was refused, or not handled in time.
        """
        requests = [
            (name, events.request(organization, events.body(organization, name)))
            for name in (events.event_id(n, KIND) for n in range(round(seconds * RATE)))
        ]
        connections = [await Connection.to(self.port) for _ in range(_CONNECTIONS)]
        sent: dict[str, float] = {}
        answers: list[asyncio.Task[float]] = []
        begin = perf_counter()
        for number, (name, request) in enumerate(requests):
            await asyncio.sleep(begin + number / RATE - perf_counter())
            sent[name] = time()
            connection = connections[number % _CONNECTIONS]
            answers.append(asyncio.create_task(_ask(connection, request)))
        answered = [await answer for answer in answers]
        await self._all_handled(sent)
        for connection in connections:
            connection.close()
        times = self.handled.times
        return Probed(answered, [times[name] - at for name, at in sent.items()])

    async def _all_handled(self, sent: Mapping[str, float]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not sent.keys() <= self.handled.times.keys():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            left = len(sent.keys() - self.handled.times.keys())
            raise CannotRunError(f"{left} of {len(sent)} events were not handled") from None


async def _ask(connection: Connection, request: bytes) -> float:
    started = perf_counter()
    status = await connection.ask(request)
    if status != HTTPStatus.ACCEPTED:
        raise CannotRunError(f"a delivery was answered {status}")
    return perf_counter() - started


@contextlib.asynccontextmanager
async def _worker(environ: Mapping[str, str]) -> AsyncIterator[HandledEvents]:
    """A worker whose log is read from a pipe."""
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *WORKER, cwd=ROOT, env=environ, stdout=asyncio.subprocess.DEVNULL, stderr=write
    )
    os.close(write)
    loop = asyncio.get_running_loop()
    reader = os.fdopen(read, "rb", buffering=0)
    transport, handled = await loop.connect_read_pipe(HandledEvents, reader)
    try:
        async with asyncio.timeout(_PATIENCE):
            await handled.started.wait()
        yield handled
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        transport.close()
