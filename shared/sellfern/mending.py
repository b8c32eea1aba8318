r"""Makes JSON readable that holds halves of surrogate pairs, or bytes that are no UTF-8.

A text that somebody cut at a number of UTF-16 units ends in half a pair, such as ``"Ren\ud83d"``.
Python, Ruby and JavaScript write and read that; a strict reader refuses the whole body for it.
"""

import re
from typing import Final

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some senders put before their JSON."""

LOST: Final = "\ufffd"
"""Stands where something was that is no text: Unicode's replacement character."""

_OTHER_THAN_LOST: Final = "\ufffc"

# From the left: whole pairs and all other escapes are passed over, or `\\ud83d` (a backslash and
# five letters) would count as half a pair.
_ESCAPES: Final = re.compile(
    r"((?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])+)"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_NO_TEXT: Final = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte


def mended(raw: bytes) -> bytes:
    """The JSON with `LOST` where half a pair or a byte that is no UTF-8 stood; else the same."""
    return _whole(raw.decode("utf-8", "replace"), LOST)


def mended_otherwise(raw: bytes) -> bytes:
    """The same with another character: what differs from `mended` is not what was sent."""
    text = _NO_TEXT.sub(_OTHER_THAN_LOST, raw.decode("utf-8", "surrogateescape"))
    return _whole(text, _OTHER_THAN_LOST)


def _whole(text: str, instead: str) -> bytes:
    return _ESCAPES.sub(lambda found: found[1] or instead, text).encode()
