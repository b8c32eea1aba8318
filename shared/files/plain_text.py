"""Text as editors, shells and secret stores leave it: a mark before it, white space around it."""

import codecs
from typing import Final

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
