"""What one body takes on the wire: how much of it is parsed at once, and what beside it comes."""

from typing import Final

from aiohttp import StreamReader, hdrs
from aiohttp.http import RawRequestMessage

SLICE_BYTES: Final = 16 * 1024
"""How much of a body in chunks is parsed before what it bears is looked at: 2,700 chunks of one
byte, each of which costs three calls."""

OVERHEAD_BYTES: Final = 64 * 1024
"""What sizes, extensions and trailers of chunks may take beside the body itself. A body of 1 MiB in
chunks of 128 bytes fits."""


class BodyWire:
    """The bytes of one body as they come.

    Args:
        message: the head before it.
        body: what of it has been parsed already.

    Attributes:
        announced: its length; ``None`` where it comes in chunks.
    """

    __slots__ = ("_body", "_came", "announced")

    def __init__(self, message: RawRequestMessage, body: StreamReader) -> None:
        length = None if message.chunked else message.headers.get(hdrs.CONTENT_LENGTH)
        self.announced = None if length is None else int(length[-_DIGITS:])
        self._body = body
        self._came = body.total_bytes

    def take(self, size: int) -> bool:
        """Take note of so many bytes that were parsed whole; whether too many are not the body's.

        What aiohttp keeps back while it is paused is neither yet: it isn't asked about then.
        """
        self._came += size
        return self.announced is None and self._came - self._body.total_bytes > OVERHEAD_BYTES

    def portion(self) -> int:
        """How much may be parsed at once: what is known to be the body costs one call in all."""
        if self.announced is None:
            return SLICE_BYTES
        return max(SLICE_BYTES, self.announced - self._body.total_bytes)


_DIGITS: Final = 20
"""Of a length: the parser takes no more than 64 bits, but any number of zeros before them."""
