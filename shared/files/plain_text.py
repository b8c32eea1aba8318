"""Text as editors, shells and secret stores leave it: marks, quotes, white space around it."""

import codecs
import re
from typing import Final

UNWRAPPED: Final = "no quotes or blanks around it"
"""What an error message says was expected."""

_OUTSIDE: Final = "\\s\"'`\u2018\u2019\u201c\u201d\u200b\ufeff"
_WRAPPED: Final = re.compile(
    f"(?P<before>[{_OUTSIDE}]*)(?P<inside>.*?)(?P<after>[{_OUTSIDE}]*)", re.DOTALL
)


def split_wrapping(text: str) -> tuple[str, str, str]:
    """Give what stands before a value, the value, and what stands after it."""
    match = _WRAPPED.fullmatch(text)
    if match is None:
        raise AssertionError("every text is something within nothing")  # pragma: no cover
    return match["before"], match["inside"], match["after"]


def has_blanks_or_quotes(text: str) -> bool:
    """Whether there are any in it, wherever they stand."""
    return re.search(f"[{_OUTSIDE}]", text) is not None


_BOM: Final = "\ufeff"
_LAST_SPACE: Final = 0x3000
_OUTER: Final = _BOM + "".join(filter(str.isspace, map(chr, range(_LAST_SPACE + 1))))


def decoded(content: bytes) -> str:
    """The text in the bytes of a file: UTF-8, with or without a byte order mark.

    Raises:
        UnicodeDecodeError: it isn't; `no_text` says why.
    """
    return content.decode("utf-8-sig")


def no_text(exc: UnicodeDecodeError) -> str:
    """Why a file is no text, in two words."""
    # What PowerShell's `>` writes. To guess at a secret's bytes would be worse than to say so.
    if exc.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16, not UTF-8"
    return "not UTF-8"


def trimmed(text: str) -> str:
    """The text without byte order mark and white space around it."""
    return text.strip(_OUTER)
