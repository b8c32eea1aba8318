"""The worker's process: how it runs, is told to stop, and ends, whatever a handler does to it."""

import asyncio
import contextlib
import enum
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from types import FrameType
from typing import Any, Final, Protocol

import uvloop

from shared.observe import logs
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.program.stopping import Stopped
from worker.pipeline.attempts import make_task, own_context, raised_by
from worker.pipeline.work import Work

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)

_LAST_SECONDS: Final = 0.5
"""What a handler left may take to end, after the worker has stopped."""

Broken = Callable[[BaseException, Work | None], None]
"""Told of what ended the loop, and of the event whose task it was, if that is known."""

_FLUSH_SECONDS: Final = 1.0


def run(
    main: Callable[[], Coroutine[Any, Any, None]],
    *,
    broken: Broken,
    stopped: Callable[[], None],
) -> bool:
    """Run a coroutine function until it returns; whether all other tasks have ended then, too.

    asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of any task end the loop, and then ends
    all tasks. A task that a handler left must not do that to the others: the loop goes on, for as
    long as giving back what it holds takes.

    Args:
        main: the program.
        broken: called outside of the loop.
        stopped: the same, where somebody has called the loop's ``stop``.

    Raises:
        BaseException: whatever the program itself raises.
    """
    loop = uvloop.new_event_loop()
    loop.set_task_factory(make_task)
    asyncio.set_event_loop(loop)
    context = own_context()
    task = context.run(loop.create_task, main())
    while True:
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as exc:
            # A signal, before the program listens, finds nothing that is to be given back.
            if task.done() or isinstance(exc, Stopped):
                raise
            broken(exc, raised_by(exc))
        # What `run_until_complete` raises where somebody has called the loop's `stop`.
        except RuntimeError:
            if task.done():
                raise
            stopped()
        else:
            return loop.run_until_complete(_end_the_others())


async def _end_the_others() -> bool:
    """Cancel what handlers have left; whether nothing is left of it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        # Not asked again: what swallows it is left to the deadline.
        await asyncio.wait(tasks, timeout=_LAST_SECONDS)
    return all(task.done() for task in tasks)


class Signals:
    """Tells of each such signal, and how many there have been.

    Not by the loop's own means: these need a descriptor that a handler may take away, and a loop
    that goes round. Python calls a plain function between any two steps of the main thread, so a
    signal is heard even where a handler blocks the loop with Python code. Where it computes in C,
    only another thread can hear of it, by the socket to which Python writes each signal at once.

    Args:
        tell: told of a signal, in the main thread, in the middle of whatever that does.
        overhear: told that there is one, in another thread; earlier or later than `tell`.
        log: told where a handler had taken a signal.
    """

    def __init__(
        self,
        tell: Callable[[signal.Signals, int], None],
        overhear: Callable[[], None],
        log: FilteringBoundLogger,
    ) -> None:
        self._log = log
        self._tell = tell
        self._overhear = overhear
        self._loop = asyncio.get_running_loop()
        self._times = 0
        self._were_ours: set[signal.Signals] = set()
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)  # noqa: FBT003  # the standard library's own
        threading.Thread(target=self._hear, name="signals", daemon=True).start()

    def listen(self) -> None:
        """Be told from now on; to be called again and again, since a handler may change that."""
        for number in STOPPING:
            if signal.getsignal(number) != self._heard:
                if number in self._were_ours:  # a moment ago
                    self._log.warning("signal_taken_back", signal=number.name)
                self._were_ours.add(number)
                self._loop.remove_signal_handler(number)  # which would be called beside this one
                signal.signal(number, self._heard)
        # A bell that is full has been rung: no warning is due.
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)

    def stop(self) -> None:
        """Be told no more, since the process is about to end: it does so with a code of its own.

        One that comes in its last moments, of which freeing all memory is one, would end it with
        another, as if something had been left.
        """
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self._bell.close()

    def _heard(self, number: int, _: FrameType | None) -> None:
        self._times += 1
        self._tell(signal.Signals(number), self._times)

    # In a thread

    def _hear(self) -> None:
        with self._ear, contextlib.suppress(OSError):  # a handler may close what isn't its own
            while numbers := self._ear.recv(64):
                if any(number in STOPPING for number in numbers):
                    self._overhear()
                with contextlib.suppress(RuntimeError):  # the loop has been closed
                    # It waits for its own socket, without looking whether Python has heard.
                    self._loop.call_soon_threadsafe(_nothing)


def _nothing() -> None:
    """Have the loop turn."""


# Numbers of sysexits.h, since neither Python nor a shell ends with these.
class Exit(enum.IntEnum):
    """Why the process ended, for whoever restarts it."""

    DRAINED = 0
    AT_ONCE = 1
    """A second signal."""
    BLOCKED = 70
    """A handler kept the loop from doing anything for longer than HANDLER_TIMEOUT."""
    STUCK = 71
    """Half of the slots' handlers went on though they were cancelled, or one did that blocks."""
    BROKEN = 72
    """A task or a callback that a handler left ended the loop, as ``sys.exit`` does."""
    LEFT = 75
    """The time for draining was over, and something was left to its lease."""


class Leave(Protocol):
    """Ends the process for a reason: at once in any thread, else in the worker's own."""

    def __call__(self, code: Exit, *, at_once: bool) -> None:
        """End it, at once or once it has drained."""
        ...


class Deadline:
    """Ends the process at a time, come what may.

    A thread waits for it, since a loop that stands still, a handler's thread that never ends or a
    collector of spans that doesn't answer must not put it off.

    Args:
        last_words: called at the end, with what is left; its log line is the process's last.
    """

    def __init__(self, last_words: Callable[[], Exit]) -> None:
        self._last_words = last_words
        self._at: float | None = None
        self._changed = threading.Condition()

    def set(self, seconds: float) -> None:
        """End the process in so many seconds; a later call brings it forward, never back."""
        at = monotonic() + seconds
        with self._changed:
            if self._at is None:
                threading.Thread(target=self._wait, name="deadline", daemon=True).start()
            # Never back: what was promised to a signal holds, whatever asks afterwards.
            self._at = at if self._at is None else min(self._at, at)
            self._changed.notify()

    def left(self) -> float | None:
        """Seconds until then; ``None`` where no time has been set."""
        return None if self._at is None else self._at - monotonic()

    def _wait(self) -> None:
        with self._changed:
            while self._at is not None and (left := self._at - monotonic()) > 0:
                self._changed.wait(left)
        code = Exit.LEFT
        try:
            code = self._last_words()
            logs.flush(_FLUSH_SECONDS)
        finally:
            os._exit(code)
