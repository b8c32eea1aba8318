"""A receiver of deliveries that answers as a test tells it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from aiohttp import web
from multidict import CIMultiDictProxy

from shared.errors import SignatureError
from shared.sellfern import envelope, signature
from shared.sellfern.scheme import SELLFERN

SECRET = "whsec_of_the_sink"


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery as it came."""

    headers: CIMultiDictProxy[str]
    body: bytes
    path: str

    @property
    def event(self) -> envelope.Envelope:
        """What the body says."""
        return envelope.decode(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Whether a secret verifies it."""
        try:
            signature.verify(SELLFERN, self.body, self.headers, [secret.encode()], now=0.0)
        except SignatureError:
            return False
        return True


class Sink:
    """Remembers deliveries.

    Attributes:
        url: where it listens.
        received: the deliveries in the order in which they came.
        statuses: of the answers to come; after the last one it is 202.
        gate: closed, it keeps everybody waiting for an answer.
        most: how many were waiting at once.
    """

    def __init__(self, statuses: Iterable[int] = ()) -> None:
        self.url = ""
        self.received: list[Received] = []
        self.statuses = list(statuses)
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Condition()
        self.most = self._waiting = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Take a delivery in."""
        self.received.append(Received(request.headers, await request.read(), request.path_qs))
        self._waiting += 1
        self.most = max(self.most, self._waiting)
        async with self.arrived:
            self.arrived.notify_all()
        await self.gate.wait()
        self._waiting -= 1
        status = self.statuses.pop(0) if self.statuses else 202
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async def has(self, number: int) -> None:
        """Wait until so many have arrived."""
        async with self.arrived, asyncio.timeout(10):
            await self.arrived.wait_for(lambda: len(self.received) >= number)


@contextlib.asynccontextmanager
async def sink(*statuses: int) -> AsyncIterator[Sink]:
    """A sink that listens while the block runs."""
    receiver = Sink(statuses)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{site.port}/hooks"
        yield receiver
    finally:
        receiver.gate.set()
        await runner.cleanup()
