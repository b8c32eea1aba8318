"""How often Python looks for garbage that refers to itself."""

import contextlib
import ctypes
import functools
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Final

_YOUNG: Final = 10_000
"""Objects between two looks at the young ones. Python's own 700 are made by a few events, and what
an event leaves behind refers to itself nowhere: each look would find next to nothing."""

_MIB: Final = 1024 * 1024
_GROWTH: Final = 64 * _MIB
"""Bytes that a process may grow by before all garbage is collected. A few objects may hold as much,
which Python doesn't see, since it counts objects."""

_MOST_GROWTH: Final = 256 * _MIB
"""The same, where collecting has freed little time and again: it is what the program keeps."""

_PAUSE: Final = 0.005
"""Seconds between two looks at the process's size: each costs two microseconds."""


def tune() -> None:
    """Leave out what a program has loaded, and look at the rest less often.

    Call it once all is loaded and before the work begins. Garbage of cycles, as a handler may
    leave it, is found all the same, some thousand objects later; garbage of few large objects is
    for `Watch`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


class Watch:
    """Collects garbage when the process has grown, however few objects it may be.

    What collecting can't free belongs to the program. So that it isn't gone through again and
    again, the process may grow by twice as much from then on, until garbage is found again.

    Args:
        size: gives the memory that the process has, in bytes.
        growth: in bytes, after which to collect.
    """

    def __init__(self, size: Callable[[], int] | None = None, *, growth: int = _GROWTH) -> None:
        self._size = size or _size_of_process()
        self._least_growth = self._growth = growth
        self._base = self._size()
        self._next = 0.0

    def look(self) -> None:
        """Collect where there is a reason to; call it after every few events.

        It costs two microseconds at the most where there is none.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        size = self._size()
        if size < self._base:
            self._base = size
        elif size - self._base >= self._growth:
            self._collect(size)

    def _collect(self, size: int) -> None:
        gc.collect()
        _return_memory()
        left = self._size()
        freed_enough = 2 * (size - left) >= size - self._base
        grown = self._least_growth if freed_enough else 2 * self._growth
        self._growth = min(grown, max(_MOST_GROWTH, self._least_growth))
        self._base = left


@functools.cache  # one file for the process
def _size_of_process() -> Callable[[], int]:
    """What tells the resident size; where there is no /proc, the largest that it ever was."""
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = resource.getpagesize()
    return lambda: page * int(os.pread(statm, 64, 0).split(maxsplit=2)[1])


def _malloc_trim() -> Callable[[int], int] | None:
    with contextlib.suppress(OSError, AttributeError):  # it is glibc's own
        trim = ctypes.CDLL(None).malloc_trim
        trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
        return trim
    return None


_TRIM: Final = _malloc_trim()


def _return_memory() -> None:
    """Have what was freed given back, so that the next growth is seen from its beginning.

    The allocator would keep it, and garbage could fill it up again unseen.
    """
    if _TRIM is not None:
        _TRIM(0)
