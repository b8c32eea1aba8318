"""Takes the connections that the system has established for us, many in one turn of the loop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

ACCEPTED_AT_ONCE: Final = 64
"""About the most in one turn of the loop. uvloop's own server takes one: while others keep every
turn busy, whoever comes behind a thousand that wait would be taken after a thousand such turns."""


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
