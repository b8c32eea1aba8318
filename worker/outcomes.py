"""How the handling of an event can end."""

import asyncio
import enum
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, final

from shared.errors import SellfernError
from shared.settings.durations import retry_after, seconds_in

if TYPE_CHECKING:  # events know their organization's state, which is more than an end needs
    from worker.events import Event

LONGEST_HOLD: Final = 3600.0
SHORTEST_HOLD: Final = 1.0
"""Seconds for which an organization waits at once, as ``settle.lua`` has them."""

LONGEST_DELAY: Final = 365 * 86_400.0
"""Seconds that a handler may ask for. Beyond a year it is a slip: a date taken for a delay."""

# It stays in Redis for as long as the dead letter does.
MOST_ERROR_CHARACTERS: Final = 2000

_MOST_ASKED_FOR: Final = 3 * MOST_ERROR_CHARACTERS
"""Secrets are masked before the text is cut, so that no half of one is left at its end."""


class Retry(SellfernError):
    """Raised or returned by a handler that wants the event again later.

    Args:
        after: seconds, or a ``timedelta``; without it the backoff decides.
        why: shown in the log and, should it be the last attempt, in the dead letter.

    Raises:
        ValueError: ``after`` is no number of seconds from 0 to a year.
    """

    def __init__(self, after: float | timedelta | None = None, why: str = "") -> None:
        self.after = None if after is None else _seconds(after)
        self.why = why
        super().__init__(why or "the handler asked for a retry")


class Reject(SellfernError):
    """Raised or returned by a handler for an event that no further attempt can help.

    Args:
        why: shown in the log and in the dead letter; anything that can be printed.
    """

    def __init__(self, why: object = "the handler rejected it") -> None:
        self.why = why
        super().__init__(why)


class Throttled(SellfernError):
    """Raised or returned by a handler whose organization's own system asks for fewer calls.

    All of that organization's events wait until then, of several the longest. It spends no attempt,
    says nothing to the breaker, and the event goes first afterwards.

    Args:
        after: seconds, or a ``timedelta``; less than a second is one, more than an hour is one.
        why: shown in the log and where the wait is shown.

    Raises:
        ValueError: ``after`` is no number of seconds from 0 to a year.
    """

    def __init__(self, after: float | timedelta, why: str = "") -> None:
        self.after = _seconds(after, "Throttled")
        self.why = why
        super().__init__(why or "the handler asked for a wait")

    @classmethod
    def from_response(
        cls, headers: Mapping[str, str], otherwise: float | timedelta = 30, why: str = ""
    ) -> Self:
        """What an answer such as 429 or 503 asks for in ``Retry-After``.

        Args:
            headers: of the answer; their names in any case.
            otherwise: seconds, where the header is missing or says nothing that RFC 9110 knows
                (10.2.3: seconds, or a moment).
            why: as above.
        """
        said = next((text for name, text in headers.items() if name.lower() == "retry-after"), "")
        after = retry_after(said.strip(), datetime.now(UTC))
        return cls(otherwise if after is None else min(after, LONGEST_DELAY), why)


def _seconds(after: object, asked_by: str = "Retry") -> float:
    seconds = seconds_in(after)
    if seconds is None or not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(
            f"{asked_by}(after=…): expected 0 to {LONGEST_DELAY:.0f} seconds, got {after!r:.80}"
        )
    return float(seconds)


@final
@dataclass(frozen=True, slots=True)
class Done:
    """The event is handled; what the handler did to the state is committed with its mark.

    Attributes:
        returned: the type of a value that the handler returned and nobody reads.
    """

    returned: str = ""


DONE: Final = Done()
"""What nearly every event comes to."""


@final
@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another job carries this event, or has finished it."""


@final
@dataclass(frozen=True, slots=True)
class Held:
    """The event is dead, and was redelivered too often, or too soon: its dead letter stays."""


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """What else is known of an attempt without success.

    Attributes:
        traceback: of what the handler raised, without secrets; empty where it only said so.
        event: that it had; ``None`` unless somebody is to be told of it.
        exception: that it raised; the same.
    """

    traceback: str = ""
    event: "Event[Any] | None" = None
    exception: BaseException | None = None


NO_FAULT: Final = Fault()
"""Where no handler was at work."""


@final
@dataclass(frozen=True, slots=True)
class Later:
    """The attempt failed; the event comes back.

    Attributes:
        error: what went wrong, for people.
        after: seconds, if the handler named them.
        failed: whether the handler failed, rather than asked for it.
        blocked: whether it kept its worker's loop from doing anything else.
        fault: what is known of it besides.
    """

    error: str
    after: float | None = None
    failed: bool = False
    blocked: bool = False
    fault: Fault = field(default=NO_FAULT, compare=False)


@final
@dataclass(frozen=True, slots=True)
class Busy:
    """The organization's own system asks for fewer calls: all of its events wait.

    Attributes:
        error: what it said, for people.
        after: seconds.
    """

    error: str
    after: float


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """This worker can't handle the event, but another version of it may: nothing is spent.

    Attributes:
        reason: that of the dead letter, should nobody be able to in time.
        error: what is missing, for people.
        patience: seconds from the first time on until it is buried; ``None``: it never is.
    """

    reason: str
    error: str
    patience: float | None


@final
@dataclass(frozen=True, slots=True)
class Dead:
    """The event is buried as a dead letter.

    Attributes:
        reason: one of the stable names under "Dead letters" in ``worker/README.md``.
        error: what went wrong, for people.
        attempted: whether a handler had its try in this attempt.
        failed: whether it failed, rather than decided.
        fault: what is known of it besides.
    """

    reason: str
    error: str
    attempted: bool = False
    failed: bool = False
    fault: Fault = field(default=NO_FAULT, compare=False)


@final
@dataclass(frozen=True, slots=True)
class Released:
    """The worker gives the job back, as if it had never had it.

    Attributes:
        in_doubt: the process ends, and this event may be why: its claim stays counted, so that
            it is a suspect if that happens again.
    """

    in_doubt: bool = False


Outcome = Done | Duplicate | Held | Later | Busy | Waiting | Dead | Released


class Cause(enum.Enum):
    """Who has cancelled a handler."""

    NOBODY = "nobody"
    LIMIT = "limit"
    WORKER = "worker"


def outcome_of(result: object, cause: Cause, seconds: float) -> Outcome:
    """What becomes of an event, from whatever its handler returned or raised.

    Total: there is an outcome for every object, however it behaves when it is looked at. Its error
    is to be masked, and then cut to `MOST_ERROR_CHARACTERS`.

    Args:
        result: what was returned, or the exception that was raised.
        cause: who had cancelled the handler by then.
        seconds: that it might take.
    """
    if result is None:
        return DONE
    try:
        return _outcome_of(result, cause, seconds)
    except BaseException as exc:  # noqa: BLE001  an attribute of an author's class may do anything
        said = text_of(exc, whole=True)
        return Later(f"what the handler left can't be read: {said}", failed=True)


def _outcome_of(result: object, cause: Cause, seconds: float) -> Outcome:
    if result is Retry or result is Reject:  # the class means its instance, as after `raise`
        result = result()
    if isinstance(result, BaseException):
        return _outcome_of_error(result, cause, seconds)
    if inspect.isawaitable(result):
        return Later(
            f"the handler returned {_kind(result)} that nobody awaits; is an `await` missing?",
            failed=True,
        )
    if isinstance(result, type) and issubclass(result, BaseException):
        return Later(f"the handler returned the class {result.__name__}", failed=True)
    return Done(returned=_kind(result))


def _outcome_of_error(error: BaseException, cause: Cause, seconds: float) -> Outcome:
    leaves = list(_leaves(error))
    decisions = [leaf for leaf in leaves if isinstance(leaf, Retry | Reject | Throttled)]
    if len(decisions) == len(leaves):
        return _decided(decisions)
    if cause is Cause.WORKER:  # which had no use for it any more; an error may well come of that
        return Released()
    if cause is Cause.LIMIT and isinstance(error, asyncio.CancelledError | TimeoutError):
        return Later(took_too_long(seconds), failed=True)
    return Later(text_of(error, whole=True), failed=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, as a TaskGroup raises one, however deep; an error is its own leaf."""
    left = [error]
    while left:
        each = left.pop()
        if isinstance(each, BaseExceptionGroup):
            # As a stack, which gives them in their order; a group may be nested deeper than calls
            # may be.
            left.extend(reversed(each.exceptions))
        else:
            yield each


def _decided(decisions: list[Retry | Reject | Throttled]) -> Outcome:
    # Before the retries: no further attempt can help the event, whatever else was asked for.
    rejects = [each for each in decisions if isinstance(each, Reject)]
    if rejects:
        return Dead("rejected", _said(lambda: str(rejects[0].why)), attempted=True)
    # A subclass may have set the attribute to anything.
    throttled = [each for each in decisions if isinstance(each, Throttled)]
    if throttled:
        longest = max(throttled, key=lambda each: _seconds(each.after, "Throttled"))
        after = min(max(SHORTEST_HOLD, _seconds(longest.after, "Throttled")), LONGEST_HOLD)
        return Busy(_said(lambda: str(longest)), after)
    retries = [each for each in decisions if isinstance(each, Retry)]
    delays = [_seconds(each.after) for each in retries if each.after is not None]
    # The longest, since each asked not to come back before its own.
    return Later(_said(lambda: str(retries[0])), max(delays, default=None))


def took_too_long(seconds: float) -> str:
    """The error of an attempt whose time is over."""
    return f"the handler took longer than {seconds:g} s"


def text_of(error: BaseException, *, whole: bool = False) -> str:
    """What an exception says, whatever it does when it is asked.

    Args:
        error: to be asked.
        whole: whether to give some more than may be kept, since secrets are to be masked in it.
    """
    said = _said(lambda: f"{type(error).__name__}: {error}", f"{_kind(error)}: (can't be printed)")
    return said if whole else said[:MOST_ERROR_CHARACTERS]


def _said(say: Callable[[], str], otherwise: str = "(can't be printed)") -> str:
    try:
        return say()[:_MOST_ASKED_FOR]
    except BaseException:  # noqa: BLE001  as in `outcome_of`
        return otherwise


def _kind(value: object) -> str:
    name: object = type(value).__name__
    return name[:80] if type(name) is str else "an object"
