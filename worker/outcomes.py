"""How the handling of an event can end."""

from dataclasses import dataclass
from datetime import timedelta

from shared.errors import SellfernError


class Retry(SellfernError):
    """Raised or returned by a handler that wants the event again later.

    Args:
        after: seconds, or a ``timedelta``; without it the backoff decides.
        why: shown in the log and, should it be the last attempt, in the dead letter.
    """

    def __init__(self, after: float | timedelta | None = None, why: str = "") -> None:
        self.after = after.total_seconds() if isinstance(after, timedelta) else after
        if self.after is not None and not self.after >= 0:
            raise ValueError(f"Retry(after=…): expected 0 seconds or more, got {after!r}")
        self.why = why
        super().__init__(why or "the handler asked for a retry")


class Reject(SellfernError):
    """Raised or returned by a handler for an event that no further attempt can help."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Done:
    """The event is handled; what the handler did to the state is committed with its mark."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another job carries this event, or has finished it."""


@dataclass(frozen=True, slots=True)
class Later:
    """The attempt failed; the event comes back.

    Attributes:
        error: what went wrong, for people.
        after: seconds, if the handler named them.
        failed: whether the handler failed, rather than asked for it.
    """

    error: str
    after: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Dead:
    """The event is buried as a dead letter.

    Attributes:
        reason: one of the stable names under "Judgement" in the README.
        error: what went wrong, for people.
        attempted: whether a handler had its try in this attempt.
        failed: whether it failed, rather than decided.
    """

    reason: str
    error: str
    attempted: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gives the job back, as if it had never had it."""


Outcome = Done | Duplicate | Later | Dead | Released
