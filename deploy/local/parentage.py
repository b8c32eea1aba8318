"""Lets the system end a child with the program that started it."""

import os
import sys
from typing import Final

_END_WITH_PARENT: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def launcher() -> list[str]:
    """Give the words before a command, a path, that end it with this program, however that ends.

    Only Linux can do so; elsewhere there are none. Start the child from a thread that stays: the
    system takes its end for the parent's. A small Python rather than ``preexec_fn``, which isn't
    safe in a program with threads.
    """
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid())]
