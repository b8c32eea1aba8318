"""What is told of a failure: to the log and the dead letter, and to Sentry and the like."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from shared.errors import HandlerError
from worker.events import Event
from worker.outcomes import MOST_ERROR_CHARACTERS, Busy, Dead, Fault, Later
from worker.tracebacks import Hide, traceback_of


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has failed, or an event that was given up.

    Attributes:
        job: its id; ``python -m worker dead-letters show JOB``.
        organization_id: whose event it is.
        settings: of that organization, as its handlers have them; with secrets.
        event_id: Sellfern's; empty where the body gave none.
        type: of the event; empty where the body gave none.
        event: ``None`` where no handler had it, or where it is so large that its memory is counted.
        exception: what the handler raised; ``None`` where it raised nothing (it took too long, or
            there was none), and where ``event`` is ``None``.
        handler: its module and name; empty where there was none.
        reason: of the dead letter; empty where the event comes back.
        attempt: which of its attempts, from 1.
        error: what went wrong, without secrets.
        traceback: of the exception, the same; empty where there is none.
        will_retry: whether the event comes back.
        after: seconds until then; ``None`` where it doesn't.
    """

    job: str
    organization_id: str
    settings: Mapping[str, object]
    event_id: str
    type: str
    event: Event[Any] | None
    exception: BaseException | None
    handler: str
    reason: str
    attempt: int
    error: str
    traceback: str
    will_retry: bool
    after: float | None


Hook = Callable[[Failure], Awaitable[None]]
"""Told of a failure, after Redis has taken note of it."""


def check_hook(function: Callable[..., Any]) -> None:
    """See that a function can be told.

    Raises:
        HandlerError: it isn't ``async def``, or doesn't take a failure alone.
    """
    name = getattr(function, "__qualname__", repr(function))
    # A `partial` is one as well, and has no name to tell of it.
    if not (inspect.iscoroutinefunction(function) and hasattr(function, "__qualname__")):
        raise HandlerError(f"{name}: expected an async def function, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        got = inspect.signature(function)
        raise HandlerError(f"{name}: expected the parameter (failure), got {got}") from None


def explained(
    outcome: Later | Dead | Busy, raised: object, hide: Hide, event: Event[Any] | None
) -> Later | Dead | Busy:
    """The same without secrets, and with what a failure is looked into by.

    Args:
        outcome: of an attempt.
        raised: the exception that the handler raised, if that is why.
        hide: masks secrets.
        event: that it had; ``None`` where neither that nor the exception may be kept.
    """
    error = hide(outcome.error)[:MOST_ERROR_CHARACTERS]
    if isinstance(outcome, Busy):
        return replace(outcome, error=error)
    # By its true class: an author's may say that it has another, or refuse to say.
    exception: Any = raised if issubclass(type(raised), BaseException) else None
    # Who decides says why; where in his code he did so is no news to him.
    has_failed = outcome.failed and exception is not None
    text = traceback_of(exception, hide) if has_failed else ""
    kept = None if event is None else exception
    return replace(outcome, error=error, fault=Fault(text, event, kept))
