"""The public port: opened, ready or not, and drained without losing a request."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from ingress.http.connections import Connections
from ingress.http.last_connections import let_in_the_last
from ingress.http.receive import Receiver
from ingress.http.site import Site
from ingress.settings import IngressSettings
from shared.errors import Problem
from shared.observe.logs import get_logger
from shared.program.admin import cached
from shared.program.listening import hosts_of, open_sockets, port_of

BACKLOG: Final = 4096
"""Connections that the system holds until we take them."""

ACCEPTED_AT_ONCE: Final = 16
"""About the most in one turn of the loop. uvloop's own server takes one: while others keep every
turn busy, whoever comes behind a thousand that wait would be taken after a thousand such turns.
More would make a turn long for all others: each takes some 80 us."""

DRAINING = Problem("draining", "this process is shutting down")

_log = get_logger()


class Readiness:
    """What ``/readyz`` goes by.

    Args:
        check: finds what is wrong with Redis; asked about once a second.
    """

    def __init__(self, check: Callable[[], Awaitable[list[Problem]]]) -> None:
        self._check = cached(check)
        self.draining = False

    async def problems(self) -> list[Problem]:
        """What keeps the ingress from being ready; an empty list when nothing does."""
        if self.draining:
            return [DRAINING]
        return await self._check()


class Acceptor:
    """Takes connections from one socket: the loop's own server does, and this what it leaves.

    Args:
        sock: listens.
        make: gives the protocol of each.
    """

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        self._sock = sock
        self._make = make
        self._server: asyncio.Server | None = None
        self._beginning: set[asyncio.Task[None]] = set()

    async def open(self, backlog: int) -> None:
        """Begin to take them; the system holds as many as `backlog` until they are taken."""
        self._sock.setblocking(False)  # noqa: FBT003  # its name
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._made, sock=self._sock, backlog=backlog)

    async def take_all(self) -> None:
        """Take those that the system holds by now, and wait until each has begun."""
        while self._take():
            pass
        if self._beginning:
            await asyncio.wait(self._beginning)

    def close(self) -> None:
        """Listen no more; the system resets whoever waits."""
        if self._server is not None:
            self._server.close()

    def _made(self) -> asyncio.Protocol:
        """Make the protocol of one that the server has taken, and take others with it."""
        self._take()
        return self._make()

    def _take(self) -> bool:
        """Take some; whether there may be more."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except ConnectionAbortedError:  # its client has gone
                continue
            except OSError:  # there is none, or no file for it: the server sees to that
                return False
            self._begin(sock)
        return True

    def _begin(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003  # its name
        task = asyncio.get_running_loop().create_task(self._connected(sock))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connected(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's, of one that has ended at once
            await asyncio.get_running_loop().connect_accepted_socket(self._make, sock)


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
        # A load balancer still sends meanwhile: who comes is taken as ever.
        await asyncio.sleep(settings.drain_delay)
        await let_in_the_last(self._sockets)
        for acceptor in self._acceptors:
            # Established for their senders already: to close the socket would reset them.
            await acceptor.take_all()
        self._stop_listening()
        self._connections.stop()
        try:
            async with asyncio.timeout(settings.drain_seconds):
                await self._connections.closed()
        except TimeoutError:
            # What is cut was not answered, so its sender sends it again.
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
