"""Which event a task was made under, and who may cancel which task.

A handler shares its loop with the worker and with other handlers. Whatever it starts inherits its
context, so a context variable tells of any task, however deep, under which event it was made. From
that one fact follow: whom to charge when a task that a handler left ends the process or blocks the
loop, and that a handler which cancels all tasks it can find ends none but its own event's.
"""

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

from worker.pipeline.work import Work

Result = TypeVar("Result")

CURRENT: Final[ContextVar[Work | None]] = ContextVar("sellfern_event", default=None)
"""The event under which this code runs; ``None`` in the worker's own."""

_left: Final[set["Task[Any]"]] = set()
"""Tasks made under an event that have not been seen to end."""

_ended_the_loop: Final[list["Task[Any]"]] = []
"""Those that ended the loop. It may turn once more before it stops, and has forgotten them then."""

_FATAL: Final = (SystemExit, KeyboardInterrupt)
"""What asyncio lets out of a task and out of the loop."""


class Task(asyncio.Task[Result]):
    """A task that knows its event: the worker's own, or a handler's. Whoever makes it says which.

    Only the worker may cancel it, and code under the same event.

    Attributes:
        origin: the event for which it runs; ``None`` for the worker's own.
    """

    __slots__ = ("origin",)
    origin: Work | None

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask it to end, unless that is none of the asking event's business; as in asyncio."""
        asking = CURRENT.get()
        if asking is not None and asking is not self.origin:
            return False
        return super().cancel(msg)


class LeftTask(Task[Result]):
    """A task that code under an event has made.

    Other events may cancel it: clients that handlers share work in tasks that one of them made.
    """

    __slots__ = ()

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask it to end; as in asyncio."""
        return asyncio.Task.cancel(self, msg)


def make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Result] | Generator[Any, None, Result],
    *,
    context: Context | None = None,
    **options: Any,
) -> Task[Result]:
    """Make a task; the loop's task factory."""
    # The worker's own contexts say that there is none, where a handler may be what asks. A library
    # that makes a task in an empty context says nothing, and works for whoever calls it.
    says = context is not None and CURRENT in context
    origin = context[CURRENT] if says and context is not None else CURRENT.get()
    kind = Task if origin is None else LeftTask
    task = kind(coroutine, loop=loop, context=context, **options)
    task.origin = origin
    if origin is not None:
        _left.add(task)
        task.add_done_callback(_seen_to_end)
    return task


def _seen_to_end(task: "Task[Any]") -> None:
    _left.discard(task)
    if isinstance(_error_of(task), _FATAL):
        _ended_the_loop.append(task)


def _error_of(task: "Task[Any]") -> BaseException | None:
    """What it raised; unlike `exception` that doesn't count as somebody having asked for it."""
    error: BaseException | None = task._exception  # noqa: SLF001
    return error


def origin_of(task: "asyncio.Task[Any] | None") -> Work | None:
    """The event under which a task was made, if any is known."""
    return task.origin if isinstance(task, Task) else None


def tasks_left() -> Iterator["Task[Any]"]:
    """The tasks under events that have not been seen to end, a handler's own aside."""
    return iter(tuple(_left))


def own_context() -> Context:
    """A copy of this context, of which is known that no event runs in it."""
    context = copy_context()
    context.run(CURRENT.set, None)
    return context


def raised_by(error: BaseException) -> Work | None:
    """The event whose task ended the loop with this error, if any is known."""
    tasks = [*_ended_the_loop, *_left]
    _ended_the_loop.clear()
    return next((task.origin for task in tasks if _error_of(task) is error), None)
