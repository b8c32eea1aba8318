"""A small HTTP client that spends little: it shares the cores with what it measures."""

import asyncio
import re
from collections import deque
from typing import Final, Self

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """A connection over which requests go, and their answers come in the same order."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._awaited: deque[asyncio.Future[int]] = deque()
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
        answer = asyncio.get_running_loop().create_future()
        self._awaited.append(answer)
        self._transport.write(request)
        return answer

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # TCP's is a Transport

    def data_received(self, data: bytes) -> None:
        """Take in answers, or a part of one."""
        self._received += data
        while self._awaited and (answer := answered(self._received)) is not None:
            status, size = answer
            self._received = self._received[size:]
            awaited = self._awaited.popleft()
            if not awaited.done():  # nobody may wait for it any more
                awaited.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, also for whoever waits for an answer."""
        for awaited in self._awaited:
            if not awaited.done():
                awaited.set_exception(exc or ConnectionResetError("closed without an answer"))


def answered(received: bytes) -> tuple[int, int] | None:
    """The status and the bytes of the first answer, once all of it is there."""
    head = received.find(_END)
    if head < 0:
        return None
    length = _LENGTH.search(received, 0, head)
    size = head + len(_END) + (int(length[1]) if length else 0)
    return (int(received[9:12]), size) if len(received) >= size else None
