"""Begins and ends what handlers share for as long as their worker runs: pools, clients."""

import asyncio
import inspect
import socket
import ssl
import types
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Union, final, get_args, get_origin, get_type_hints

from shared.errors import HandlerError, Problem, SettingsError
from shared.observe.structlog_alone import FilteringBoundLogger
from worker.masking import Masks
from worker.opened import OPENED, Kept
from worker.tracebacks import masked_text, traceback_of

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds until what couldn't be reached is tried again, twice as many each time."""

_SETTING: Final = "WORKER_HANDLERS"
_EXPECTED: Final = "an async generator function of the settings that yields once"


class MissingSettingError(SettingsError, KeyError):
    """A lifespan asked for a setting that nobody has given."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "a value, which the handlers' lifespan asks for", "nothing")

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError would quote it


class Settings(Mapping[str, str]):
    """What the worker's environment says; an empty variable counts as none.

    Raises:
        SettingsError: nobody has set the variable that is asked for; it is a ``KeyError``, too.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in environ.items() if value}

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            raise MissingSettingError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Lifespan:
    """What an author's function gives from the first claim to the last settlement.

    Attributes:
        function: an async generator function of the settings.
        name: its module and name, for people.
        gives: the type that its annotation says it yields; `Any` where it says nothing.
    """

    function: Callable[[Settings], AsyncIterator[Any]]
    name: str
    gives: Any

    @classmethod
    def of(cls, function: Callable[[Settings], AsyncIterator[Any]]) -> "Lifespan":
        """Look at a function.

        Raises:
            HandlerError: it is none that can be a lifespan.
        """
        name = getattr(function, "__qualname__", repr(function))
        if not (inspect.isasyncgenfunction(function) and hasattr(function, "__qualname__")):
            raise HandlerError(f"{name}: expected {_EXPECTED}, got {_kind(function)}")
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            got = inspect.signature(function)
            raise HandlerError(f"{name}: expected the parameters (settings), got {got}") from None
        return cls(function, f"{function.__module__}.{name}", _yielded(function))

    def fits(self, annotation: Any) -> bool:
        """Whether what it gives is what a parameter's annotation says, as far as one can tell."""
        return _fits(self.gives, annotation)


def _kind(function: object) -> str:
    if inspect.iscoroutinefunction(function):
        return "an async function without a yield"
    if inspect.isgeneratorfunction(function):
        return "a generator function without async"
    return type(function).__name__


def _yielded(function: Callable[..., Any]) -> Any:
    try:
        annotation = get_type_hints(function).get("return", Any)
    except NameError as exc:
        raise HandlerError(
            f"{function.__qualname__}: its annotation names an unknown type: {exc}"
        ) from exc
    return next(iter(get_args(annotation)), Any)


def _fits(given: Any, asked: Any) -> bool:
    if asked is Any or given is Any or given == asked:
        return True
    if get_origin(given) in {Union, types.UnionType}:
        return all(_fits(each, asked) for each in get_args(given))
    if get_origin(asked) in {Union, types.UnionType}:
        return any(_fits(given, each) for each in get_args(asked))
    # Of `list[int]` and the like only the class; a type checker knows the rest.
    given, asked = get_origin(given) or given, get_origin(asked) or asked
    if isinstance(given, type) and isinstance(asked, type):
        try:
            return issubclass(given, asked)
        except TypeError:  # a protocol of which nobody can ask that
            return True
    return True


@dataclass(slots=True)
class Lifespans:
    """Those of a worker, begun in order and ended in the opposite one; all in one task.

    Attributes:
        lifespans: them.
        settings: what each is given.
        log: told of waiting and of failures.
        is_patient: whether what can't be reached is waited for; else that is a failure, too.
        problems: what is waited for; any thread may read it.
        opened: what they have open that wants to be looked after.
    """

    lifespans: Sequence[Lifespan]
    settings: Settings
    log: FilteringBoundLogger
    is_patient: bool = True
    problems: list[Problem] = field(default_factory=list)
    opened: list[Kept] = field(default_factory=list)
    _given: dict[Lifespan | None, Any] = field(default_factory=dict)
    _begun: list[tuple[Lifespan, AbstractAsyncContextManager[Any]]] = field(default_factory=list)

    def resources(self, lifespan: Lifespan | None) -> Any:
        """What a lifespan has given.

        Raises:
            KeyError: it has not begun.
        """
        return self._given[lifespan]

    async def begin(self, stop: asyncio.Event) -> bool:
        """Begin all of them, or until the stop; whether all have begun.

        What can't be reached is waited for, as Redis is.

        Raises:
            SettingsError: one has failed otherwise, or a setting is missing.
        """
        OPENED.set(self.opened)
        for lifespan in self.lifespans:
            if not await self._begin(lifespan, stop):
                return False
        if stop.is_set():  # one has begun in spite of it
            return False
        self.problems = []
        return True

    async def end(self, seconds: float) -> None:
        """End those that have begun, all within so many seconds.

        What fails or takes longer is told, and changes nothing of what has been settled.
        """
        until = asyncio.get_running_loop().time() + seconds
        while self._begun:
            lifespan, context = self._begun.pop()
            bound = asyncio.timeout_at(until)
            try:
                async with bound:
                    await context.__aexit__(None, None, None)
            except BaseException as exc:  # noqa: BLE001  an author's, and the others are to end, too
                self._note_end(lifespan, exc, is_cut_short=bound.expired())

    async def _begin(self, lifespan: Lifespan, stop: asyncio.Event) -> bool:
        pause, began = FIRST_PAUSE, monotonic()
        self._await(lifespan, "has not begun yet")
        while not stop.is_set():
            context = asynccontextmanager(lifespan.function)(self.settings)
            bound = asyncio.timeout(None)
            try:
                async with bound, _expiring(bound, stop):
                    self._given[lifespan] = await context.__aenter__()
            except SettingsError:
                raise
            except BaseException as exc:  # noqa: BLE001  an author's code, which may raise anything
                if bound.expired():
                    return False
                self._note_failure(lifespan, exc)
                await _pause(stop, pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                continue
            self._begun.append((lifespan, context))
            if pause > FIRST_PAUSE:
                seconds = round(monotonic() - began, 1)
                self.log.info("resources_found", lifespan=lifespan.name, seconds=seconds)
            return True
        return False

    def _note_failure(self, lifespan: Lifespan, error: BaseException) -> None:
        hide = Masks().own.hide
        said = masked_text(error, hide)
        if not (self.is_patient and is_unreachable(error)):
            expected, traceback = (
                f"a lifespan that begins: {lifespan.name}",
                traceback_of(error, hide),
            )
            raise SettingsError(_SETTING, expected, said, detail=traceback) from error
        if self._await(lifespan, said):
            self.log.warning("resources_awaited", lifespan=lifespan.name, error=said)

    def _note_end(self, lifespan: Lifespan, error: BaseException, *, is_cut_short: bool) -> None:
        hide = Masks().own.hide
        told = {"lifespan": lifespan.name, "traceback": traceback_of(error, hide)}
        if is_cut_short:  # where it was then is of use; that it was cancelled isn't
            self.log.error("lifespan_cut_short", **told)
        else:
            self.log.error("lifespan_failed", error=masked_text(error, hide), **told)

    def _await(self, lifespan: Lifespan, why: str) -> bool:
        """Note what is waited for; whether that is news."""
        before = self.problems
        self.problems = [Problem("resources_awaited", f"{lifespan.name}: {why}")]
        return before != self.problems


def is_unreachable(error: BaseException) -> bool:
    """Whether an error says that something can't be reached, which may mend itself.

    Clients wrap what the system said in errors of their own, and name it as the cause.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, BaseExceptionGroup):
            return all(map(is_unreachable, each.exceptions))
        if isinstance(each, ssl.SSLCertVerificationError):  # somebody has to mend that
            return False
        if isinstance(each, ConnectionError | TimeoutError | socket.gaierror):
            return True
        # A socket's error names no file, though a missing one's is that of a missing file; and
        # "no route to host" is nothing but an OSError.
        if isinstance(each, OSError) and each.filename is None and each.errno is not None:
            return True
        each = each.__cause__ or each.__context__
    return False


@asynccontextmanager
async def _expiring(bound: asyncio.Timeout, stop: asyncio.Event) -> AsyncIterator[None]:
    """Have a time limit be over on a stop."""

    async def watch() -> None:
        await stop.wait()
        bound.reschedule(asyncio.get_running_loop().time())

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
