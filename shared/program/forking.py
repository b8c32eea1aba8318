"""What becomes of a child that the process forks: nothing that it does reaches its parent.

A handler may fork, as ``multiprocessing`` does. The child has the parent's event loop, its signal
handlers and its connections in hand, and unguarded it uses them: a SIGTERM for the child arrives in
the parent's loop, whose worker then drains; a child that awaits runs the parent's other handlers
and writes to the parent's connection to Redis.
"""

import asyncio
import contextlib
import gc
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from shared.observe.logs import get_logger

STRAYED: Final = 70
"""The exit code of a child that came back to its parent's event loop: sysexits' EX_SOFTWARE."""

_FILES: Final = Path("/proc/self/fd")
_EPOLL: Final = "anon_inode:[eventpoll]"


class _Guard:
    """What a child must know of its parent.

    Attributes:
        loop: that of the program.
        thread: the id of the thread that runs it.
        is_child: whether this process is such a child, and not the program itself.
    """

    loop: asyncio.AbstractEventLoop | None = None
    thread = 0
    is_child = False

    def __init__(self) -> None:
        self._masks = threading.local()

    def forks(self) -> None:
        """Let signals wait, since one for the child may come before it is parted."""
        self._masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def has_forked(self) -> None:
        """Let them come again, in the parent."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.former)

    def forked(self) -> None:
        """Part a child from its parent, before any other code of the child runs."""
        self.is_child = True
        _part_signals()
        self.has_forked()
        _part_files()
        if self.loop is not None and self.thread == threading.get_ident():
            _end_with_next_step(self.loop)


GUARD: Final = _Guard()


def guard() -> None:
    """Guard this process and its running event loop from the children that it will fork."""
    if GUARD.loop is None:
        os.register_at_fork(
            before=GUARD.forks,
            after_in_parent=GUARD.has_forked,
            after_in_child=GUARD.forked,
        )
    GUARD.loop = asyncio.get_running_loop()
    GUARD.thread = threading.get_ident()


def end(error: BaseException | None = None) -> NoReturn:
    """End a child that has come to the end of what its parent forked it for.

    Its exit code is what Python's would be; what the program does at its end, such as giving back
    what it holds, is left to the program.

    Args:
        error: that the child's code raised.
    """
    match error:
        case None | SystemExit(code=None):
            code = 0
        case SystemExit(code=int(number)):
            code = number
        case _:
            get_logger().error("forked_child_failed", pid=os.getpid(), exc_info=error)
            code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced by anything
            stream.flush()
    os._exit(code & 0xFF)


def _part_signals() -> None:
    # Python tells the loop of a signal by a socket, and the child has the same one.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _part_files() -> None:
    """Put something harmless in the place of each event poll and of whatever it watches.

    An epoll is one for parent and child: what either adds or takes away is so for both. What it
    watches are the connections: the child would send what the parent had not sent yet. Where there
    is no /proc, there is no epoll either, and a kqueue isn't inherited.
    """
    polls = list(_event_polls())
    nothing = os.open(os.devnull, os.O_RDWR)
    for watched in {fd for poll in polls for fd in _watched(poll)}:
        os.dup2(nothing, watched, inheritable=False)
    os.close(nothing)
    for poll in polls:
        with select.epoll() as empty:
            os.dup2(empty.fileno(), poll, inheritable=False)


def _event_polls() -> Iterator[int]:
    if not _FILES.exists():
        return
    for file in list(_FILES.iterdir()):
        with contextlib.suppress(OSError):  # the listing's own, which is closed by now
            if str(file.readlink()) == _EPOLL:
                yield int(file.name)


def _watched(poll: int) -> Iterator[int]:
    told = Path(f"/proc/self/fdinfo/{poll}").read_text(encoding="ascii")
    for line in told.splitlines():
        if line.startswith("tfd:"):
            yield int(line.split()[1])


def _end_with_next_step(loop: asyncio.AbstractEventLoop) -> None:
    """Let the child end before its parent's loop would do anything else in it.

    Neither asyncio nor uvloop has a way to be told so; what they do next is the first of the one
    deque that they have.
    """
    with contextlib.suppress(RuntimeError):  # closed already
        handle = loop.call_soon(_stray)
        for ready in gc.get_referents(loop):
            if isinstance(ready, deque) and ready and ready[-1] is handle:
                ready.rotate(1)


def _stray() -> NoReturn:
    told = "expected a forked child to end itself, got it back in its parent's event loop"
    get_logger().error("forked_child_strayed", pid=os.getpid(), error=told)
    os._exit(STRAYED)
