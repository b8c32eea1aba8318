"""Where requests end within bytes that the parser was given: it doesn't tell."""

from collections.abc import Sequence
from typing import Final

from aiohttp import StreamReader
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
