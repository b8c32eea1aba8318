"""One connection of an attacker, and how much all of an attacker's may send."""

import asyncio
from typing import Final

_PIECE: Final = 64 * 1024
_READ: Final = 4096


class Pace:
    """How fast all connections together may send.

    Args:
        rate: bytes a second; ``None`` is as fast as they can.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(now, self._free_at) + size / self._rate
        await asyncio.sleep(self._free_at - now)


class Line:
    """One connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pace = pace

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._writer.is_closing()

    async def send(self, raw: bytes) -> None:
        """Send bytes as fast as may be."""
        for at in range(0, len(raw), _PIECE):
            piece = raw[at : at + _PIECE]
            await self._pace.take(len(piece))
            self._writer.write(piece)
            await self._writer.drain()

    async def read(self) -> bytes:
        """Some of what comes; nothing at the end."""
        return await self._reader.read(_READ)

    def abort(self) -> None:
        """End it at once."""
        self._writer.transport.abort()
