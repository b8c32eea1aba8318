"""Which handler gets which event, with its data decoded to what type."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, final, get_args, get_origin, get_type_hints

import msgspec

from shared.errors import HandlerError
from shared.observe import metrics
from shared.sellfern import identifier
from shared.sellfern.envelope import decoded
from worker.events import Event, Organization
from worker.failures import Hook, check_hook
from worker.outcomes import Reject, Retry, Throttled
from worker.turns import Key, TurnRule


class DataDecoder:
    """Decodes to one type, in which `Id` takes text and whole numbers.

    Args:
        data_type: what the handler's annotation says.

    Attributes:
        strictly: the data in JSON that is as it should be; nothing of Python's is in between.

    Raises:
        TypeError: it can't be decoded from JSON.
    """

    def __init__(self, data_type: Any = Any) -> None:
        self.strictly = msgspec.json.Decoder(data_type, dec_hook=identifier.decoded).decode

    def decode(self, raw: bytes | msgspec.Raw) -> Any:
        """The data in JSON; broken text in it is mended, but only where it can't be read as it is.

        Raises:
            msgspec.DecodeError: it is not of the type, or no JSON.
            RecursionError: it is nested too deeply.
        """
        data, was_mended = decoded(self.strictly, raw)
        if was_mended:
            metrics.MENDED.labels("data").inc()
        return data


HandlerFunction = Callable[[Event[Any], Organization], Awaitable[Retry | Reject | Throttled | None]]
AnyHandler = TypeVar("AnyHandler", bound=HandlerFunction)
AnyHook = TypeVar("AnyHook", bound=Hook)

_MOST_FOUND = 10_000
"""Look-ups remembered; event types come from outside, so not all of them are."""


@final
@dataclass(frozen=True, slots=True)
class Registration:
    """A handler, or the wish to ignore, for a pattern of event types.

    Attributes:
        pattern: a type, a prefix that ends in ``.*``, or ``*``.
        organization: the one organization that it is for, or ``None`` for any.
        function: the handler; ``None`` ignores the event on purpose.
        data: decodes the event's data to the type that the handler's annotation names.
        turn: which of its events run one at a time; ``None`` where that doesn't matter.
        name: the handler's, for people: module and function.
    """

    pattern: str
    organization: str | None
    function: HandlerFunction | None
    data: DataDecoder
    turn: TurnRule | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what is said of every event."""
        object.__setattr__(self, "name", "" if self.function is None else _name(self.function))

    def matches(self, event_type: str, organization: str) -> bool:
        """Whether it is for this event."""
        if self.organization not in (None, organization):
            return False
        if self.pattern in {"*", event_type}:
            return True
        return self.pattern.endswith(".*") and event_type.startswith(self.pattern[:-1])

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """How specific it is: an organization's own first, an exact type, the longer prefix."""
        return (self.organization is not None, not self.pattern.endswith("*"), len(self.pattern))


class Handlers:
    """A registry of handlers; ``WORKER_HANDLERS`` names the one that the worker uses.

    Attributes:
        found: what `find` has found lately, by type and organization.
        has_turns: whether any handler has a key.
        on_error_hooks: told of each failed attempt.
        on_dead_hooks: told of each dead letter.
    """

    def __init__(self) -> None:
        self.has_turns = False
        self.on_error_hooks: list[Hook] = []
        self.on_dead_hooks: list[Hook] = []
        self._registrations: list[Registration] = []
        self.found: dict[tuple[str, str], Registration | None] = {}

    def on(
        self,
        pattern: str,
        *,
        organization: str | int | None = None,
        key: Key | None = None,
        latest: bool = False,
        quiet: str | float | timedelta | None = None,
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Register a handler for the event types that match.

        Args:
            pattern: a type (``order.updated``), a prefix (``order.*``) or ``*``. The most
                specific match wins.
            organization: the only organization that it is for, as text or as a whole number; any
                without it.
            key: a field of the data (``order_id``, ``customer.id``), or a function that makes a
                text or a whole number of the event. One organization's events with equal keys run
                one at a time, in order of acceptance, whichever handlers and workers run them.
            latest: of this handler's events that wait for their turn, only the newest runs.
            quiet: seconds, or a text such as ``2s``, for which these are gathered before it does.

        Raises:
            HandlerError: the organization or the key is neither, the function is not
                ``async def``, doesn't take an event and an organization, its annotation can't be
                decoded, or the pattern is taken.
        """
        only = _organization(organization)

        def register(function: AnyHandler) -> AnyHandler:
            _check_signature(function)
            turn = TurnRule.of(key, handler=_name(function), latest=latest, quiet=quiet)
            self._add(Registration(pattern, only, function, _data_decoder(function), turn))
            return function

        return register

    def ignore(self, pattern: str, *, organization: str | int | None = None) -> None:
        """Drop the event types that match, on purpose: they count as handled."""
        self._add(Registration(pattern, _organization(organization), None, DataDecoder()))

    def on_error(self, function: AnyHook) -> AnyHook:
        """Have a function told of each failed attempt, once Redis has taken note of it.

        Raises:
            HandlerError: it is not ``async def``, or doesn't take a `Failure` alone.
        """
        check_hook(function)
        self.on_error_hooks.append(function)
        return function

    def on_dead(self, function: AnyHook) -> AnyHook:
        """Have a function told of each dead letter that this worker buries, once it is there.

        Raises: as ``on_error`` does.
        """
        check_hook(function)
        self.on_dead_hooks.append(function)
        return function

    def find(self, event_type: str, organization: str) -> Registration | None:
        """The most specific registration for an event, or ``None``."""
        key = (event_type, organization)
        if key not in self.found:
            if len(self.found) > _MOST_FOUND:
                # All of it: to choose what stays would cost more than to find it again.
                self.found.clear()
            matching = [r for r in self._registrations if r.matches(event_type, organization)]
            self.found[key] = max(matching, key=lambda r: r.rank, default=None)
        return self.found[key]

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._registrations)

    def __len__(self) -> int:
        return len(self._registrations)

    def _add(self, registration: Registration) -> None:
        _check_pattern(registration.pattern)
        for other in self._registrations:
            if (other.pattern, other.organization) == (
                registration.pattern,
                registration.organization,
            ):
                of = f" of {other.organization}" if other.organization else ""
                raise HandlerError(f"{other.pattern!r}{of} is registered already")
        self._registrations.append(registration)
        self.found.clear()
        self.has_turns = self.has_turns or registration.turn is not None


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _organization(value: str | int | None) -> str | None:
    """The organization's id as text, which it is everywhere else."""
    try:
        return None if value is None else identifier.text(value)
    except ValueError as exc:
        raise HandlerError(f"organization: {exc}") from exc


def _check_pattern(pattern: str) -> None:
    star = pattern.find("*")
    if pattern == "*" or (pattern and star == -1):
        return
    if star != len(pattern) - 1 or not pattern.endswith(".*") or pattern == ".*":
        raise HandlerError(
            f"expected an event type, a prefix such as 'order.*', or '*', got {pattern!r}"
        )


def _check_signature(function: Callable[..., Any]) -> None:
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.iscoroutinefunction(function):
        raise HandlerError(f"{name}: expected an async def function, got {type(function).__name__}")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise HandlerError(
            f"{name}: expected the parameters (event, organization), "
            f"got {inspect.signature(function)}"
        ) from None


def _data_decoder(function: Callable[..., Any]) -> DataDecoder:
    """Built where the handler is registered, so that a wrong annotation shows at start."""
    name = getattr(function, "__qualname__", repr(function))
    first = next(iter(inspect.signature(function).parameters))
    try:
        annotation = get_type_hints(function).get(first, Event)
    except NameError as exc:
        raise HandlerError(
            f"{name}: the annotation of {first!r} names an unknown type: {exc}"
        ) from exc
    if annotation is not Event and get_origin(annotation) is not Event:
        raise HandlerError(f"{name}: expected {first!r} to be an Event, got {annotation!r}")
    (data_type,) = get_args(annotation) or (Any,)
    # Of a handler for any data nothing is known.
    if isinstance(data_type, TypeVar):
        data_type = Any
    try:
        return DataDecoder(data_type)
    except TypeError as exc:
        raise HandlerError(f"{name}: {data_type!r} can't be decoded from JSON: {exc}") from exc
