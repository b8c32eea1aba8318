"""A Redis that is far away: a proxy in front of one, in a process of its own, that takes its time.

``python -m tests.bench.distance PORT MILLISECONDS`` forwards to a port of this machine, and keeps
whatever it is sent, in either direction, for half of so many milliseconds.
"""

import asyncio
import json
import os
import selectors
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from tests.bench.programs import Program

_HOST: Final = "127.0.0.1"


@contextmanager
def distant(port: int, round_trip: float, folder: Path) -> Iterator[str]:
    """The URL of a Redis at a distance, for the time of a block.

    Args:
        port: where it is without the distance, on this machine.
        round_trip: milliseconds; with none the detour is the same.
        folder: for what the proxy says.

    Raises:
        CannotRunError: the proxy doesn't start.
    """
    words = (sys.executable, "-m", "tests.bench.distance", str(port), str(round_trip))
    with Program.started(words, os.environ, folder / "distance.log") as program:
        yield f"redis://{_HOST}:{program.logged('proxy_listening')['port']}/0"


class _Side(asyncio.Protocol):
    """One side of a connection: what comes here leaves by the other, later and in order."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._early: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what came before."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.writelines(self._early)

    def data_received(self, data: bytes) -> None:
        """Hand it to the other side once its time has come."""
        if self.other is None:
            return
        if self._delay:
            self._loop.call_later(self._delay, self.other.send, data)
        else:
            self.other.send(data)

    def send(self, data: bytes) -> None:
        """Let it out here."""
        if self.transport is None:
            self._early.append(data)
        else:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Both sides end."""
        del exc
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Outer(_Side):
    """The side of whoever connects."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the other side, too."""
        super().connection_made(transport)
        inner = self.other = _Side(self._delay)
        inner.other = self
        # Kept here, since the loop keeps no tasks.
        self._connecting = self._loop.create_task(
            self._loop.create_connection(lambda: inner, _HOST, self._port)
        )


async def _forward(port: int, round_trip: float) -> None:
    loop = asyncio.get_running_loop()
    delay = round_trip / 2000
    server = await loop.create_server(lambda: _Outer(delay, port), _HOST, 0)
    line = {"event": "proxy_listening", "port": server.sockets[0].getsockname()[1]}
    sys.stderr.write(f"{json.dumps(line, separators=(',', ':'))}\n")
    sys.stderr.flush()
    await server.serve_forever()


def main() -> None:
    """Forward until killed."""
    # Of all selectors this one alone waits for less than a millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(_forward(int(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
