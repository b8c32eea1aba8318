"""Where heads and bodies end within bytes that the parser was given, which doesn't tell."""

from collections.abc import Sequence
from typing import Final

from aiohttp import StreamReader, hdrs
from aiohttp.http import RawRequestMessage

END: Final = b"\r\n\r\n"
"""What ends a head, and a body in chunks with its trailers; a head that is only begun has none."""

UNKNOWN: Final = 16 * 1024
"""What is taken for the number of bytes behind a request where nobody knows it: the most that were
parsed at once. That is only where many requests come at once, or chunks before another body."""

EMPTY: Final = b"\r\n"
"""Lines before a request consist of these, and are none of it."""


def behind(
    requests: Sequence[tuple[object, StreamReader]],
    data: bytes,
    at: int | None = 0,
    *,
    is_begun: bool = False,
) -> int | None:
    """How many bytes of a head that is only begun have come behind requests.

    Args:
        requests: all whose heads end within `data`; they are whole.
        data: bytes that were parsed at once.
        at: where the first of them begins; None where nobody knows.
        is_begun: whether that is within its head, or its end, rather than before it.

    Returns:
        None where nobody knows; there may be some.
    """
    is_chunked = False
    for message, body in requests:
        if not isinstance(message, RawRequestMessage):  # no request: the connection ends
            return 0
        is_chunked = message.chunked
        if is_chunked:
            at = None
        elif at is not None:
            at = _end_of_head(data, at, is_begun=is_begun) + body.total_bytes
        is_begun = False
    if is_chunked:
        # From the end: what chunks bear may hold anything, blank lines as well.
        at = data.rfind(END) + len(END)
    if at is None or at > len(data):
        return None
    return len(data) - at if data[at:].strip(EMPTY) else 0


def _end_of_head(data: bytes, at: int, *, is_begun: bool) -> int:
    """Where it ends; beyond the end of the data where it doesn't."""
    if not is_begun and data[at : at + 1] in (b"\r", b"\n"):
        at = len(data) - len(data[at:].lstrip(EMPTY))
    end = data.find(END, at)
    return len(data) + 1 if end < 0 else end + len(END)


SLICE_BYTES: Final = 4 * 1024
"""How much of a body in chunks is parsed before what it bears is looked at: 680 chunks of one
byte, each of which costs three calls, half a millisecond in all: others have their turn between."""

OVERHEAD_BYTES: Final = 64 * 1024
"""What sizes, extensions and trailers of chunks may take beside the body itself. A body of 1 MiB in
chunks of 128 bytes fits."""


class BodyWire:
    """The bytes of one body as they come.

    Args:
        message: the head before it.
        body: what of it has been parsed already.
        data: the bytes that were parsed last, to their end.

    Attributes:
        announced: its length; ``None`` where it comes in chunks.
    """

    __slots__ = ("_beside", "_beside_before", "_body", "_came", "_last", "_since", "announced")

    def __init__(self, message: RawRequestMessage, body: StreamReader, data: bytes) -> None:
        length = None if message.chunked else message.headers.get(hdrs.CONTENT_LENGTH)
        self.announced = None if length is None else int(length[-_DIGITS:])
        self._body = body
        self._came = body.total_bytes
        self._since = 0
        self._beside = len(data) - body.total_bytes
        self._beside_before = 0
        self._last = b""
        if self.announced is None:
            self._look_for_end(data)

    def take(self, data: bytes) -> bool:
        """Take note of bytes that were parsed whole; whether too many of all are not the body's.

        What aiohttp keeps back while it is paused is neither yet: it isn't asked about then.
        """
        self._came += len(data)
        if self.announced is not None:
            return False
        self._look_for_end(data)
        beside = self._came - self._body.total_bytes
        self._beside, self._beside_before = beside - self._beside_before, beside
        return beside > OVERHEAD_BYTES

    @property
    def behind(self) -> int:
        """How many bytes of a head have come behind the body, which is complete."""
        return self._since if self.announced is None else self._came - self.announced

    def _look_for_end(self, data: bytes) -> None:
        """Remember how much has come since what ended the chunks, if anything has by now."""
        # What ends the chunks may lie across two reads.
        seam = self._last + data
        end = seam.rfind(END)
        self._since = self._since + len(data) if end < 0 else len(seam) - end - len(END)
        self._last = seam[1 - len(END) :]

    @property
    def is_costly(self) -> bool:
        """Whether what came last was mostly chunks rather than what they bear."""
        return self._beside > _COSTLY_BYTES

    def portion(self) -> int:
        """How much may be parsed at once: what is known to be the body costs one call in all."""
        if self.announced is None:
            return SLICE_BYTES
        return max(SLICE_BYTES, self.announced - self._body.total_bytes)


_COSTLY_BYTES: Final = 1024  # of a slice: 250 chunks

_DIGITS: Final = 20
"""Of a length: the parser takes no more than 64 bits, but any number of zeros before them."""
