"""What a test is told of a delivery: how it ended, and what it left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias, final

from shared.errors import SellfernError


class DeliveryError(SellfernError):
    """A delivery failed without an exception of the handler's; the message says how."""


@final
@dataclass(frozen=True, slots=True)
class Handled:
    """The handler returned, and what it wrote is committed."""


@final
@dataclass(frozen=True, slots=True)
class Ignored:
    """The registry ignores such events on purpose."""


@final
@dataclass(frozen=True, slots=True)
class Retried:
    """The handler asked for another attempt: ``Retry``.

    Attributes:
        after: seconds; ``None`` where the backoff decides.
        why: what it said.
    """

    after: float | None = None
    why: str = "the handler asked for a retry"


@final
@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed, and there is another one after the backoff.

    Attributes:
        error: the exception with its traceback; a ``TimeoutError`` where the time limit was over,
            a `DeliveryError` where the handler raised none.
        why: what the log says.
    """

    error: BaseException
    why: str = field(default="", compare=False)


@final
@dataclass(frozen=True, slots=True)
class Rejected:
    """The handler gave up: ``Reject``. The event is a dead letter.

    Attributes:
        why: what it said.
    """

    why: str = "the handler rejected it"


@final
@dataclass(frozen=True, slots=True)
class Throttled:
    """The handler asked that its organization's events wait: ``worker.Throttled``.

    Attributes:
        after: seconds for which they wait, from a second to an hour.
        why: what it said.
    """

    after: float
    why: str = "the handler asked for a wait"


@final
@dataclass(frozen=True, slots=True)
class Dead:
    """The event is a dead letter.

    Attributes:
        reason: one of the names under "Dead letters" in ``worker/README.md``: ``malformed``,
            ``unavailable_event``, ``exhausted`` after the last attempt, ….
        why: for people; it isn't compared.
        error: the exception of the last attempt, where one raised it; it isn't compared.
    """

    reason: str
    why: str = field(default="", compare=False)
    error: BaseException | None = field(default=None, compare=False)


@final
@dataclass(frozen=True, slots=True)
class NoHandler:
    """No handler is registered for the event: it waits for a worker that has one."""


@final
@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event was handled before, or is on its way in other bytes."""


@final
@dataclass(frozen=True, slots=True)
class Held:
    """The event is dead, and was delivered again too soon or too often: it stays so."""


@final
@dataclass(frozen=True, slots=True)
class Released:
    """Nothing came of it: what the handler reads had changed at every commit."""


Outcome: TypeAlias = (
    Handled
    | Ignored
    | Retried
    | Failed
    | Rejected
    | Throttled
    | Dead
    | NoHandler
    | Duplicate
    | Held
    | Released
)
"""How a delivery may end."""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What became of one delivery.

    Attributes:
        outcome: how it ended.
        state: the organization's values afterwards; as before, unless it was handled.
        log: what `Organization.log` was told, and what the worker said of the handler: the event,
            the level and the fields of each line.
    """

    outcome: Outcome
    state: Mapping[str, Any]
    log: list[dict[str, Any]]

    @property
    def exception(self) -> BaseException | None:
        """The exception of an attempt that failed."""
        return self.outcome.error if isinstance(self.outcome, Failed | Dead) else None

    def raise_for_failure(self) -> Self:
        """Give itself, unless the attempt failed or the event died of other than ``Reject``.

        Raises:
            BaseException: what the handler raised, with its traceback.
            DeliveryError: it raised nothing; there was no handler, or it was never reached.
        """
        __tracebackhide__ = True
        if self.exception is not None:
            raise self.exception
        if isinstance(self.outcome, Dead | NoHandler):
            raise DeliveryError(str(self.outcome))
        return self
