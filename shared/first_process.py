"""SIGTERM while a program begins, for the first process of a container, which the system spares.

`ingress` and `worker` run this file by its place before they import anything else, which takes a
second or two, and in which nothing is in hand yet. So it imports nothing of ours.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

_FIRST: Final = 1

_BY_SIGNAL: Final = 128
"""What shells add to a signal's number for the exit code."""


def end_on_sigterm(program: str) -> None:
    """End this process on SIGTERM until something else takes it, or at once where it has come.

    Nothing is done for a process that the system ends by itself, nor for anybody else's.

    Args:
        program: the package that begins, ``ingress`` or ``worker``.
    """
    # The image's entry point blocks the signal, so that one which comes before Python can run
    # anything is kept: the first process would not be given it otherwise.
    is_blocked = signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if _is_program(program) and (is_blocked or os.getpid() == _FIRST):
        signal.signal(signal.SIGTERM, _end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _is_program(program: str) -> bool:
    """Whether it begins, or is imported by something else."""
    name = Path(sys.argv[0]).name
    # Python says -m until it has found what it is to run.
    return name == f"sellfern-{program}" or (name == "-m" and program in sys.orig_argv)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # Not by an exception, which whatever is being imported may catch.
    os._exit(_BY_SIGNAL + number)
