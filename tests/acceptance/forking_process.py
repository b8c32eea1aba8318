"""The process that `tests/acceptance/warm.py` has fork each program which it starts."""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
import threading
from io import TextIOWrapper
from types import TracebackType
from typing import Final

PROGRAMS: Final = (
    "ingress",
    "worker",
    "deploy.sellfern",
    "tests.acceptance.dying_command",
    "tests.acceptance.forking_parent",
)
"""What is forked: it imports next to nothing but what is here already."""
_IMPORTED: Final = ("ingress.cli", "worker.cli", "coverage")
ENDED: Final = 255
"""The exit code where none is known, as asyncio has it."""
MEASURED_BY: Final = "COVERAGE_PROCESS_CONFIG"
_MOST_BYTES: Final = 200_000
"""Of a request: less than a socket takes at once."""
_MOST_FILES: Final = 4096
_STREAMS: Final = 3
_BYTES: Final = 4


def read_number(file: int) -> int | None:
    """A process's id or its exit code, or nothing where there is nobody who would tell."""
    told = os.read(file, _BYTES)
    return int.from_bytes(told, signed=True) if told else None


def serve(channel: int) -> None:
    """Import what the programs import, fork for each request, and in the fork be what it asks for.

    Args:
        channel: a socket, which tells each request as one: words, folder and variables, with the
            three streams and a socket for answers. When the other end is closed, this returns.
    """
    for module in _IMPORTED:
        importlib.import_module(module)
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # or the first collection of each fork would write to, and so copy, all of it
    itself = os.getpid()
    try:
        request = _requested(socket.socket(fileno=channel))
    except KeyboardInterrupt:  # where somebody ends the tests, with all that they have started
        if os.getpid() != itself:
            raise
        return
    if request is not None:
        _become(*json.loads(request))


def _requested(channel: socket.socket) -> bytes | None:
    """What this process, by now a fork, is to be; nothing in the parent, when it isn't needed."""
    channel.send(b"\0")
    forks: dict[int, tuple[int, int]] = {}
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in forks:
                poll.unregister(ready)
                _tell_end(ready, *forks.pop(ready))
                continue
            request, files, _, _ = socket.recv_fds(channel, _MOST_BYTES, _STREAMS + 1)
            if not request:
                return None
            *streams, answers = files
            pid = os.fork()
            if pid == 0:
                channel.detach()
                for number, file in enumerate(streams):
                    os.dup2(file, number)
                os.closerange(_STREAMS, _MOST_FILES)
                return request
            for file in streams:
                os.close(file)
            _tell(answers, pid)
            ends = os.pidfd_open(pid)
            forks[ends] = pid, answers
            poll.register(ends, select.POLLIN)


def _tell_end(ends: int, pid: int, answers: int) -> None:
    os.close(ends)
    _, status = os.waitpid(pid, 0)
    _tell(answers, os.waitstatus_to_exitcode(status))
    os.close(answers)


def _tell(answers: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever asked may have left
        os.write(answers, number.to_bytes(_BYTES, signed=True))


def _become(words: list[str], folder: str, environ: dict[str, str]) -> None:
    """Be ``python -m`` with these words."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.orig_argv[:] = words
    sys.argv[:] = [words[1], *words[3:]]
    sys.path[0] = folder
    sys.excepthook = _show
    _open_streams()
    if MEASURED_BY in environ:
        importlib.import_module("coverage").process_startup()
    # What Python itself calls for -m.
    runpy._run_module_as_main(words[2])  # type: ignore[attr-defined]


def _open_streams() -> None:
    """Open those anew that are written to: their first file may have had places to seek."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: TextIOWrapper = getattr(sys, name)
        is_unbuffered = stream.write_through
        file = open(number, "wb", 0 if is_unbuffered else -1, closefd=False)  # noqa: SIM115  # it is kept
        how = (stream.encoding, stream.errors, None, stream.line_buffering or os.isatty(number))
        setattr(sys, name, TextIOWrapper(file, *how, is_unbuffered))


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error as Python does, without what was on the stack before the program."""
    for _ in ("what Python was told to run", serve, _become):
        trace = trace and trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
