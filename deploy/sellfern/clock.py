"""The simulator's time: a function that tests may replace, in seconds since the epoch."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Gives seconds since the epoch, as ``time.time`` does."""


def timestamp(seconds: float) -> str:
    """Write a time as Sellfern does: RFC 3339, UTC, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
