"""A small TCP proxy in front of Redis: it can cut connections in the middle of a reply."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

_CHUNK: Final = 64 * 1024


class Proxy:
    """Forwards connections.

    Attributes:
        upstream: the port on this machine that new connections go to.
        port: where it listens.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self._cuts = 0
        self._open: set[asyncio.StreamWriter] = set()

    def cut_replies(self, number: int) -> None:
        """Let the next replies end in their middle, and their connections with them."""
        self._cuts = number

    @property
    def cuts_left(self) -> int:
        """How many replies are still to be cut."""
        return self._cuts

    def drop_all(self) -> None:
        """End every connection, as a switch to another server does."""
        for writer in list(self._open):
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        """Forward for the time of a block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            self.drop_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            self._open.add(up_writer)
            try:
                await asyncio.gather(
                    self._forward(reader, up_writer), self._reply(up_reader, writer)
                )
            finally:
                self._open.discard(up_writer)
                up_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            return  # cut by one side, or by the end of the run
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self._cuts > 0 and len(chunk) > 1:
                self._cuts -= 1
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                raise ConnectionResetError
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError
