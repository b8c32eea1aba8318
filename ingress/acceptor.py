"""Takes the connections that the system has established for us, many in one turn of the loop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from shared.logs import get_logger

ACCEPTED_AT_ONCE: Final = 64
"""The most in one turn of the loop. uvloop's own server takes one: while others keep every turn
busy, whoever comes behind a thousand that wait would be taken after a thousand such turns."""

PAUSE_SECONDS: Final = 0.1
"""How long none is taken where the system has no file left for one."""

_log = get_logger()


class Acceptor:
    """Takes connections from one socket.

    Args:
        sock: listens.
        make: gives the protocol of each.
        backlog: connections that the system holds until they are taken.
    """

    def __init__(
        self, sock: socket.socket, make: Callable[[], asyncio.Protocol], backlog: int
    ) -> None:
        self._sock = sock
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)  # noqa: FBT003  # its name
        sock.listen(backlog)
        self._loop.add_reader(sock, self._take)

    async def take_all(self) -> None:
        """Take those that the system holds by now, and wait until each has begun."""
        while self._take():
            pass
        if self._beginning:
            await asyncio.wait(self._beginning)

    def close(self) -> None:
        """Listen no more; the system resets whoever waits."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _take(self) -> bool:
        """Take some; whether there may be more."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except ConnectionAbortedError:  # its client has gone
                continue
            except OSError as exc:
                self._wait(exc)
                return False
            self._begin(sock)
        return True

    def _begin(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003  # its name
        task = self._loop.create_task(self._connected(sock))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _connected(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's, of one that has ended at once
            await self._loop.connect_accepted_socket(self._make, sock)

    def _wait(self, exc: OSError) -> None:
        """Take none for a while: the system would offer the same one again at once."""
        _log.warning("accept_failed", error=exc.strerror)
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._take)
