"""Which handler gets which event, with its data decoded to what type."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Protocol,
    TypeVar,
    cast,
    final,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from shared.errors import HandlerError
from shared.sellfern import identifier
from worker.decoding import DataDecoder
from worker.events import Event, Organization
from worker.failures import Hook, check_hook
from worker.lifespans import Lifespan, Settings
from worker.outcomes import Reject, Retry, Throttled
from worker.turns import Key, TurnRule

if TYPE_CHECKING:
    # A default for a type variable is Python 3.13's; type checkers know it from here.
    import typing_extensions

    Resources = typing_extensions.TypeVar("Resources", default=Any)
else:
    Resources = TypeVar("Resources")

Answer = TypeVar("Answer", bound=Awaitable[Retry | Reject | Throttled | None])
Data = TypeVar("Data")

HandlerFunction = Callable[[Event[Any], Organization], Awaitable[Retry | Reject | Throttled | None]]
AnyHook = TypeVar("AnyHook", bound=Hook)


class Register(Protocol[Resources]):
    """Takes a handler, and gives it back as it is."""

    @overload
    def __call__(
        self, function: Callable[[Event[Data], Organization], Answer], /
    ) -> Callable[[Event[Data], Organization], Answer]: ...

    @overload
    def __call__(
        self, function: Callable[[Event[Data], Organization, Resources], Answer], /
    ) -> Callable[[Event[Data], Organization, Resources], Answer]: ...


_MOST_FOUND = 10_000
"""Look-ups remembered; event types come from outside, so not all of them are."""


_gathering: ContextVar[list[HandlerError] | None] = ContextVar("gathering", default=None)


@contextlib.contextmanager
def gathered(problems: list[HandlerError]) -> Iterator[None]:
    """Gather what is wrong with registrations in the block, which goes on without these."""
    token = _gathering.set(problems)
    try:
        yield
    finally:
        _gathering.reset(token)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Raise a ``HandlerError`` of the block, unless somebody gathers them."""
    try:
        yield
    except HandlerError as exc:
        problems = _gathering.get()
        if problems is None:
            raise
        problems.append(exc)


@final
@dataclass(frozen=True, slots=True)
class Registration:
    """A handler, or the wish to ignore, for a pattern of event types.

    Attributes:
        pattern: a type, a prefix that ends in ``.*``, or ``*``.
        organization: the one organization that it is for, or ``None`` for any.
        function: the handler; ``None`` ignores the event on purpose. With a `lender`, it takes
            resources as well.
        data: decodes the event's data to the type that the handler's annotation names.
        turn: which of its events run one at a time; ``None`` where that doesn't matter.
        lender: the registry whose lifespan gives the handler's resources; ``None`` where it takes
            none.
        resources: the type that it takes them for.
        name: the handler's, for people: module and function.
    """

    pattern: str
    organization: str | None
    function: HandlerFunction | None
    data: DataDecoder
    turn: TurnRule | None = None
    lender: "Handlers[Any] | None" = None
    resources: Any = Any
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what is said of every event."""
        object.__setattr__(self, "name", "" if self.function is None else full_name(self.function))

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

    @property
    def lifespan(self) -> Lifespan | None:
        """What gives its resources."""
        return None if self.lender is None else self.lender.own_lifespan

    def taking(self, resources: Any) -> HandlerFunction:
        """Its handler, with what its lifespan has given."""
        function: Any = self.function

        def call(event: Event[Any], organization: Organization) -> Any:
            return function(event, organization, resources)

        return call


class Handlers(Generic[Resources]):
    """A registry of handlers; ``WORKER_HANDLERS`` names the one that the worker uses.

    ``Handlers[Resources]()`` has type checkers compare what the lifespan yields with what handlers
    take; without that it is compared where they are registered.

    Attributes:
        found: what `find` has found lately, by type and organization.
        has_turns: whether any handler has a key.
        on_error_hooks: told of each failed attempt.
        on_dead_hooks: told of each dead letter.
        own_lifespan: gives what its handlers take as a third argument.
    """

    def __init__(self) -> None:
        self.has_turns = False
        self.on_error_hooks: list[Hook] = []
        self.on_dead_hooks: list[Hook] = []
        self.own_lifespan: Lifespan | None = None
        self._registrations: list[Registration] = []
        self._included: list[Handlers[Any]] = []
        self._is_included = False
        self.found: dict[tuple[str, str], Registration | None] = {}

    def on(
        self,
        pattern: str,
        *,
        organization: str | int | None = None,
        key: Key | None = None,
        latest: bool = False,
        quiet: str | float | timedelta | None = None,
    ) -> Register[Resources]:
        """Register a handler for the event types that match.

        A handler takes the event and its organization; where it takes a third argument, that is
        what the registry's lifespan has given.

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
                decoded, the lifespan gives something else than it takes, or the pattern is taken.
        """
        only = _organization(organization)

        def register(function: Any) -> Any:
            with _refusing():
                takes = _third_parameter(function)
                turn = TurnRule.of(key, handler=full_name(function), latest=latest, quiet=quiet)
                decoder = _data_decoder(function)
                lender = self if takes is not None else None
                resources = Any if takes is None else _annotation(function, takes)
                made = Registration(pattern, only, function, decoder, turn, lender, resources)
                self._check_resources(made)
                self._add(made)
            return function

        return cast("Register[Resources]", register)

    def ignore(self, pattern: str, *, organization: str | int | None = None) -> None:
        """Drop the event types that match, on purpose: they count as handled.

        Raises:
            HandlerError: the organization is none, or the pattern is none or taken.
        """
        with _refusing():
            self._add(Registration(pattern, _organization(organization), None, DataDecoder()))

    def lifespan(
        self, function: Callable[[Settings], AsyncIterator[Resources]]
    ) -> Callable[[Settings], AsyncIterator[Resources]]:
        """Register what gives handlers their third argument: an async generator that yields once.

        It begins before the worker claims anything, and goes on behind its ``yield`` once all is
        settled. It is given the worker's environment. What can't be reached (``ConnectionError``,
        ``TimeoutError`` and what has them for a cause) is waited for; any other failure is the
        end of the start.

        Raises:
            HandlerError: it is no such function, there is one already, or a handler takes
                something else than it gives.
        """
        with _refusing():
            lifespan = Lifespan.of(function)
            if self.own_lifespan is not None:
                raise HandlerError(
                    f"{lifespan.name}: expected one lifespan a registry, "
                    f"got {self.own_lifespan.name} before"
                )
            self._check_open(lifespan.name)
            self.own_lifespan = lifespan
            for each in self._registrations:
                self._check_resources(each)
        return function

    def include(self, other: "Handlers[Any]") -> None:
        """Take in the handlers of another registry, with the functions that watch over them.

        Those that take resources are given what their own registry's lifespan gives; where it has
        none, what this one's does.

        Raises:
            HandlerError: it is this one, it is included somewhere already, or both have a handler
                for one pattern.
        """
        with _refusing():
            if other is self or other._is_included:  # noqa: SLF001  # one of its kind
                raise HandlerError("include: expected a registry that is not included yet")
            self._check_open("include")
            for each in other:
                lends = each.lender is not None and each.lender.own_lifespan is None
                mine = replace(each, lender=self) if lends else each
                self._check_resources(mine)
                self._add(mine)
            self.on_error_hooks += other.on_error_hooks
            self.on_dead_hooks += other.on_dead_hooks
            other._is_included = True  # noqa: SLF001
            self._included.append(other)

    def lifespans(self) -> Iterator[Lifespan]:
        """Its own, and those of what it includes, in the order in which they begin."""
        if self.own_lifespan is not None:
            yield self.own_lifespan
        for each in self._included:
            yield from each.lifespans()

    def on_error(self, function: AnyHook) -> AnyHook:
        """Have a function told of each failed attempt, once Redis has taken note of it.

        Raises:
            HandlerError: it is not ``async def``, or doesn't take a `Failure` alone.
        """
        self._watch(function, self.on_error_hooks)
        return function

    def on_dead(self, function: AnyHook) -> AnyHook:
        """Have a function told of each dead letter that this worker buries, once it is there.

        Raises: as ``on_error`` does.
        """
        self._watch(function, self.on_dead_hooks)
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

    def without_resources(self) -> Iterator[HandlerError]:
        """An error for each handler that takes resources which no lifespan gives."""
        for each in self._registrations:
            if each.lender is not None and each.lifespan is None:
                yield HandlerError(
                    f"{each.name}: expected a lifespan that gives its third argument, got none"
                )

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._registrations)

    def __len__(self) -> int:
        return len(self._registrations)

    def _check_resources(self, registration: Registration) -> None:
        lifespan = registration.lifespan
        if lifespan is not None and not lifespan.fits(registration.resources):
            raise HandlerError(
                f"{registration.name}: expected to take what {lifespan.name} gives "
                f"({shown(lifespan.gives)}), got {shown(registration.resources)}"
            )

    def _check_open(self, name: str) -> None:
        if self._is_included:  # whoever has included it would not see this one
            raise HandlerError(
                f"{name}: expected to be registered before its registry is included in another "
                "one, got it afterwards"
            )

    def _watch(self, function: Hook, hooks: list[Hook]) -> None:
        with _refusing():
            check_hook(function)
            self._check_open(full_name(function))
            hooks.append(function)

    def _add(self, registration: Registration) -> None:
        _check_pattern(registration.pattern)
        self._check_open(registration.name or repr(registration.pattern))
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


def full_name(function: Callable[..., Any]) -> str:
    """A function's module and name, for people."""
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


def _third_parameter(function: Callable[..., Any]) -> str | None:
    """The name of the parameter that takes resources; one that has a default is none."""
    name = getattr(function, "__qualname__", repr(function))
    # A `partial` is one as well, and has no name to tell of it.
    if not (inspect.iscoroutinefunction(function) and hasattr(function, "__qualname__")):
        raise HandlerError(f"{name}: expected an async def function, got {type(function).__name__}")
    signature = inspect.signature(function)
    for arguments in ((None, None), (None, None, None)):
        with contextlib.suppress(TypeError):
            taken = list(signature.bind(*arguments).arguments)
            return next(iter(taken[2:]), None)
    raise HandlerError(
        f"{name}: expected the parameters (event, organization) or "
        f"(event, organization, resources), got {signature}"
    )


def _annotation(
    function: Callable[..., Any], parameter: str, otherwise: Any = Any, *, whole: bool = False
) -> Any:
    """What a parameter is annotated with; as a whole, with what `Annotated` says besides."""
    try:
        return get_type_hints(function, include_extras=whole).get(parameter, otherwise)
    except NameError as exc:
        name = getattr(function, "__qualname__", repr(function))
        raise HandlerError(
            f"{name}: the annotation of {parameter!r} names an unknown type: {exc}"
        ) from exc


def shown(annotation: Any) -> str:
    """A type as a person would write it."""
    return getattr(annotation, "__name__", None) or repr(annotation)


def _data_decoder(function: Callable[..., Any]) -> DataDecoder:
    """Built where the handler is registered, so that a wrong annotation shows at start."""
    name = getattr(function, "__qualname__", repr(function))
    first = next(iter(inspect.signature(function).parameters))
    # A union's discriminator, or a bound, may be said besides.
    annotation = _annotation(function, first, Event, whole=True)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is not Event and get_origin(annotation) is not Event:
        raise HandlerError(f"{name}: expected {first!r} to be an Event, got {annotation!r}")
    (data_type,) = get_args(annotation) or (Any,)
    # Of a handler for any data nothing is known.
    if isinstance(data_type, TypeVar):
        data_type = Any
    try:
        return DataDecoder(data_type)
    except (TypeError, NameError) as exc:
        raise HandlerError(f"{name}: {data_type!r} can't be decoded from JSON: {exc}") from exc
