"""How a delivery's headers write the time at which it was signed."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from shared.sellfern.scheme import TimestampFormat

NAMES: Final[Mapping[TimestampFormat, str]] = {
    "seconds": "a number of seconds",
    "milliseconds": "a number of milliseconds",
    "rfc3339": "a time as RFC 3339 writes it",
}
"""What each is called, for people."""

_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,15}")
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def seconds(text: str, form: TimestampFormat) -> float | None:
    """The time in seconds since the epoch; None where the text is none."""
    match form:
        case "seconds":
            return int(text) if _SECONDS.fullmatch(text) else None
        case "milliseconds":
            return int(text) / 1000 if _MILLISECONDS.fullmatch(text) else None
        case "rfc3339":
            return _of_rfc_3339(text)


def written(now: float, form: TimestampFormat) -> str:
    """A time, in seconds since the epoch, as a header writes it."""
    match form:
        case "seconds":
            return str(int(now))
        case "milliseconds":
            return str(int(now * 1000))
        case "rfc3339":
            moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
            return moment.replace("+00:00", "Z")


def _of_rfc_3339(text: str) -> float | None:
    if not _RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):  # a 31st of February
        return None
