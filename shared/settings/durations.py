"""Durations as they are given: ``200ms`` by operators, numbers by code, a ``Retry-After``."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

EXPECTED: Final = "a duration such as 200ms, 30s, 5m, 2h or 7d (a bare number is seconds)"
"""What an error message says was expected."""

_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|)")


def parse_duration(text: str) -> float:
    """Give the seconds in a number with its unit; without one it is seconds, as in ``30``.

    Raises:
        ValueError: it is anything else; the message is what was expected.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(EXPECTED)
    if match[2] == "ms":
        return float(match[1]) / 1000
    return float(match[1]) * _SECONDS[match[2] or "s"]


def format_duration(seconds: float) -> str:
    """Write seconds, to the millisecond, in the largest unit that needs no fraction.

    `parse_duration` reads it back.

    Raises:
        ValueError: the seconds are negative or not finite.
    """
    if not 0 <= seconds < float("inf"):
        raise ValueError("a duration is finite and not negative")
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0"
    for unit, length in _SECONDS.items():
        whole, rest = divmod(milliseconds, round(length * 1000))
        if rest == 0:
            return f"{whole}{unit}"
    raise AssertionError("every whole number of milliseconds is one of ms")  # pragma: no cover


def seconds_in(value: object) -> float | None:
    """The seconds in a number or a ``timedelta``; None: it is neither, as a flag isn't."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    return seconds if is_number else None  # type: ignore[return-value]  # a number


def retry_after(text: str, now: datetime) -> float | None:
    """The seconds in a ``Retry-After``: a number or a moment (RFC 9110, 10.2.3); else None."""
    if text.isascii() and text.isdigit():
        # Of so many digits it is thirty years: nobody could sleep for more.
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # "-0000": it is in UTC all the same
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, OverflowError):  # a year or an offset of twenty digits
        return None
