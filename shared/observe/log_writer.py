"""Writes log lines from a thread of its own, so that nobody who logs waits for their reader."""

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from shared.observe import metrics

MOST_WAITING: Final = 8 * 1024 * 1024
"""Bytes of lines that may wait for a reader: a second of a busy worker's five times over, and
little beside what a worker may take in all. Nobody would have to set it."""

_AT_ONCE: Final = 64 * 1024
"""Bytes of one write: what a pipe holds on Linux."""

_REST: Final = 0.01
"""Seconds between two writes. A thread that wakes for each line takes the interpreter from the
event loop each time; this way it is a hundred times a second at the most."""

_AFTER_ERROR: Final = 1.0
"""Seconds until a log that couldn't be written (a full disk, a reader that left) is tried again."""

_WHOLE: Final = select.PIPE_BUF
"""Bytes that a pipe takes at once or not at all, where it says that it takes some."""

_Done = SimpleQueue[bool]


class _Gap:
    """Stands in the queue where lines were lost."""


class _End:
    """Stands in the queue behind the last line."""


_GAP: Final = _Gap()
_END: Final = _End()


class LogWriter:
    """Takes lines at once and writes them soon, in their order, whoever logs.

    What its reader doesn't take waits; where too much waits, lines are lost, and one line in their
    place says how many. Nothing here waits for a lock that is held while something else happens,
    so a thread may flush while another hangs, and a finalizer or a signal's handler may log.

    Args:
        fd: where to; it may be closed afterwards, since a copy is written to.
        gap: gives the line that says how many were lost.
        most: bytes that may wait.
    """

    def __init__(self, fd: int, gap: Callable[[int], bytes], *, most: int = MOST_WAITING) -> None:
        # A handler that closes stderr would have the lines go to whatever is opened next: Redis.
        self._fd = os.dup(fd)
        self._gap = gap
        self._most = most
        self._queue: deque[bytes | _Gap | _End | _Done] = deque()
        self._lock = threading.RLock()  # among those who put; the thread needs none
        self._put = self._written = 0  # bytes, ever
        self._lost = self._told = 0  # lines, ever
        self._losing = False
        self._closed = False
        self._forked = False
        self._idle = False
        self._asked: list[_Done] = []
        self._wake: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._run, name="logs", daemon=True).start()

    def put(self, line: bytes, lines: int = 1) -> None:
        """Have a line, or so many, written or lost as a whole; never waits and never raises."""
        if self._forked:
            self._put_at_once(line)
            return
        with self._lock:
            size, waiting = len(line), self._put - self._written
            if waiting and waiting + size > self._most:
                self._lose(lines)
                return
            self._losing = False
            self._put += size
            self._queue.append(line)
            if self._idle:
                self._idle = False
                self._wake.put(None)

    def flush(self, seconds: float) -> bool:
        """Write all that waits, in so many seconds; false where that can't be done.

        Any thread may ask, whatever the others are at.
        """
        if self._forked:
            return True
        done: _Done = SimpleQueue()
        self._asked.append(done)
        self._queue.append(done)
        self._wake.put(None)
        try:
            return done.get(timeout=seconds)
        except Empty:
            return False

    def close(self) -> None:
        """Let the thread end once it has written what waits; nobody may put any more."""
        self._closed = True
        self._queue.append(_END)
        self._wake.put(None)

    def forked(self) -> None:
        """Go on in a child that the process has forked, where no other thread is left.

        What waits is the parent's to write.
        """
        self._forked = True

    def _lose(self, lines: int) -> None:
        self._lost += lines
        metrics.LOG_LINES_LOST.inc(lines)
        if not self._losing:
            self._losing = True
            self._queue.append(_GAP)

    def _put_at_once(self, line: bytes) -> None:
        """Write what can be written without waiting: a child has no thread for it."""
        for start in range(0, len(line), _WHOLE):
            if not self._is_writable(0):
                return
            try:
                os.write(self._fd, line[start : start + _WHOLE])
            except OSError:
                return

    # In the thread

    def _run(self) -> None:
        while True:
            while self._queue:
                if not self._do_next():
                    os.close(self._fd)
                    return
            self._pause(_REST)
            self._idle = True
            if not self._queue:  # else it came before anybody could see that this is idle
                self._wake.get()
            self._idle = False

    def _do_next(self) -> bool:
        """Do what is asked first; false at the end."""
        match self._queue[0]:
            case bytes():
                self._write_lines()
                return True
            case _Gap():
                self._tell_loss()
            case _End():
                return False
            case done:
                done.put(True)  # noqa: FBT003  # what `flush` answers
                with contextlib.suppress(ValueError):  # refused meanwhile
                    self._asked.remove(done)
        self._queue.popleft()
        return True

    def _write_lines(self) -> None:
        lines: list[bytes] = []
        size = 0
        while size < _AT_ONCE and self._queue and isinstance(line := self._queue[0], bytes):
            lines.append(line)
            size += len(line)
            self._queue.popleft()
        self._write(b"".join(lines))
        self._written += size

    def _tell_loss(self) -> None:
        lost = self._lost
        if lost > self._told:
            self._write(self._gap(lost - self._told))
            self._told = lost

    def _write(self, text: bytes) -> None:
        """Write a text, however long it takes."""
        rest = memoryview(text)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # somebody who shares it made it so
                self._is_writable(_AFTER_ERROR)
            except OSError:
                if self._closed:
                    return
                self._refuse()
                self._pause(_AFTER_ERROR)

    def _refuse(self) -> None:
        """Tell whoever waits for a flush that it can't be done now."""
        asked, self._asked = self._asked, []
        for done in asked:
            done.put(False)  # noqa: FBT003  # what `flush` answers

    def _pause(self, seconds: float) -> None:
        """Wait; whoever flushes ends it."""
        with contextlib.suppress(Empty):
            self._wake.get(timeout=seconds)

    def _is_writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))
