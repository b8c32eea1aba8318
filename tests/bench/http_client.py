"""A small HTTP client that spends little: it shares the cores with what it measures."""

import asyncio
import re
from typing import Final, Self

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """A connection over which requests go one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect to this machine."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, "127.0.0.1", port)
        return connection

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """Send a request; the status of its answer, or a ConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # TCP's is a Transport

    def data_received(self, data: bytes) -> None:
        """Take in an answer, or a part of one."""
        self._received += data
        status = answered(self._received)
        if status is not None and self._answer is not None:
            self._received = b""
            if not self._answer.done():  # nobody may wait for it any more
                self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, also for whoever waits for an answer."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed without an answer"))


def answered(received: bytes) -> int | None:
    """The status of an answer, once all of it is there."""
    head = received.find(_END)
    if head < 0:
        return None
    length = _LENGTH.search(received, 0, head)
    if len(received) < head + len(_END) + (int(length[1]) if length else 0):
        return None
    return int(received[9:12])
