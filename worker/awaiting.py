"""Notices calls of coroutines that nobody has awaited."""

from inspect import CORO_CREATED, getcoroutinelocals, getcoroutinestate
from typing import Any

from worker.arguments import shown

Calls = list[Any]
"""Coroutines that were given out.

Python itself warns of one that nobody awaits on stderr only, once it is collected.
"""


def prune(calls: Calls) -> None:
    """Let go of those that have run to their end: they have no frame any more."""
    calls[:] = [call for call in calls if call.cr_frame is not None]


def unawaited(calls: Calls) -> str:
    """The first that has not begun, such as ``put('k')``; empty where each has."""
    for call in calls:
        if call.cr_frame is not None and getcoroutinestate(call) == CORO_CREATED:
            return _shown(call)
    return ""


def _shown(call: Any) -> str:
    """Its name with the first argument behind ``self``."""
    arguments = getcoroutinelocals(call)
    first = next((value for name, value in arguments.items() if name != "self"), None)
    return f"{call.__name__}({shown(first)})"
