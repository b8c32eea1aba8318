"""The quotes and blanks that come around a value when a file is read as it stands."""

import re
from typing import Final

EXPECTED: Final = "no quotes or blanks around it"
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
