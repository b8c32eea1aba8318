"""The public port: opened, and drained without losing a request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

from ingress.http.acceptor import Acceptor
from ingress.http.connections import Connections
from ingress.http.health import Readiness
from ingress.http.last_connections import let_in_the_last
from ingress.http.receive import Receiver
from ingress.http.site import Site
from ingress.settings import IngressSettings
from shared.observe.logs import get_logger
from shared.program.listening import hosts_of, open_sockets, port_of

BACKLOG: Final = 4096
"""Connections that the system holds until we take them."""

_log = get_logger()


class Listener:
    """Listens, and stops listening.

    Args:
        settings: where, how long to drain, and what one client may ask.
        receiver: takes deliveries in.
        ready: told when this process begins to leave.
        site: answers requests.
    """

    def __init__(
        self, settings: IngressSettings, receiver: Receiver, ready: Readiness, site: Site
    ) -> None:
        self._settings = settings
        self._receiver = receiver
        self._ready = ready
        self._connections = Connections(site.answer, site, settings.limits, receiver.in_flight)
        self._acceptors: list[Acceptor] = []
        self._sockets: list[socket.socket] = []
        self.port = settings.address.port
        """The port that it listens on, once it does."""

    async def open(self) -> None:
        """Begin to listen; logs ``ingress_listening``.

        Raises:
            SettingsError: the address can't be listened on.
        """
        self._sockets = open_sockets(self._settings.address)
        for sock in self._sockets:
            acceptor = Acceptor(sock, self._connections)
            await acceptor.open(BACKLOG)
            self._acceptors.append(acceptor)
        self.port = port_of(self._sockets)
        _log.info("ingress_listening", host=hosts_of(self._sockets), port=self.port)

    async def drain(self) -> None:
        """Finish the requests in flight, and those whose connection is there already.

        At first everything goes on but readiness, and answers close their connections: what was
        sent before the signal may still be on its way through the kernel, and a load balancer
        takes its time to look elsewhere. Then nobody new comes, and whoever has come is answered
        as ever: a sender that was let in can't know that this process leaves.
        """
        settings = self._settings
        _log.info("draining", seconds=settings.drain_seconds)
        self._ready.draining = self._connections.leaving = True
        await asyncio.sleep(settings.drain_delay)
        await let_in_the_last(self._sockets)
        for acceptor in self._acceptors:
            await acceptor.take_all()
        self._stop_listening()
        self._connections.stop()
        try:
            async with asyncio.timeout(settings.drain_seconds):
                await self._connections.closed()
        except TimeoutError:
            _log.warning("drain_cut_short", connections=len(self._connections.open))

    async def close(self) -> None:
        """Close what is still open, finished or not."""
        self._stop_listening()
        await self._connections.cut()

    def _stop_listening(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()


@contextlib.asynccontextmanager
async def listening(
    settings: IngressSettings, receiver: Receiver, ready: Readiness, site: Site | None = None
) -> AsyncIterator[Listener]:
    """A listener that is open while the block runs; drain it there.

    Raises:
        SettingsError: the address can't be listened on.
    """
    listener = Listener(settings, receiver, ready, site or Site(receiver, settings.trusted_proxies))
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close()
