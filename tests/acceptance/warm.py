"""Starts the two programs from a process that has imported already what they import.

A start takes half a second of a processor, nearly all of it for imports, and the tests start some
thousand programs. What is started so is a fork that has arguments, variables, folder and streams
of its own, and ends as Python ends it; `tests/acceptance/test_warm.py` compares. Whose subject is
the start itself, or how much memory a program has, executes it instead.
"""

import asyncio
import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from asyncio.base_subprocess import BaseSubprocessTransport
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from tests.acceptance.forking_process import ENDED, MEASURED_BY, PROGRAMS, read_number

ROOT: Final = Path(__file__).parents[2]
_READ_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "TZ")
"""Of these names are variables that Python or the C library reads when it begins."""

_CLOSED: Final = -1

Stream = int | IO[Any] | None


def suits(words: tuple[str, ...], folder: object, environ: Mapping[str, str]) -> bool:
    """Whether a command line may begin as a fork."""

    def at_start(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: text for name, text in variables.items() if name.startswith(_READ_AT_START)}

    return (
        sys.platform == "linux"
        and words[:2] == (sys.executable, "-m")
        and words[2] in PROGRAMS
        and folder == ROOT
        and at_start(environ) == at_start(os.environ)
    )


async def start(
    *words: str,
    cwd: Path,
    env: Mapping[str, str],
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> Process:
    """Do what `asyncio.create_subprocess_exec` does, by a fork where that suits."""
    if not suits(words, cwd, env):
        return await asyncio.create_subprocess_exec(
            *words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr
        )
    if not _started.cache_info().currsize:
        await asyncio.to_thread(_warm)  # which takes as long as a start
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(limit=2**16, loop=loop)
    begun = loop.create_future()
    request = json.dumps([words, str(cwd), dict(env)]).encode()
    transport = _Transport(
        *(loop, protocol, words, False, stdin, stdout, stderr, 0),
        waiter=begun,
        request=request,
    )
    await begun
    return Process(transport, protocol, loop)


def popen(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
) -> "subprocess.Popen[bytes] | Fork":
    """Do what `subprocess.Popen` does, by a fork where that suits."""
    if not suits(tuple(words), cwd, env):
        return subprocess.Popen(words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr)
    request = json.dumps([words, str(cwd), dict(env)]).encode()
    return Fork(request, (stdin, stdout, stderr))


class _Transport(BaseSubprocessTransport):
    """A fork, to asyncio."""

    def _start(self, *, request: bytes, stdin: Any, stdout: Any, stderr: Any, **_: Any) -> None:  # type: ignore[override]
        fork = Fork(request, (stdin, stdout, stderr))
        self._proc = fork  # type: ignore[assignment]  # what asyncio asks of a `Popen`, it has
        self._loop.add_reader(fork.answers, self._ended, fork)

    def _ended(self, fork: "Fork") -> None:
        if (code := fork.poll()) is not None:
            self._loop.remove_reader(fork.answers)
            os.close(fork.answers)
            self._process_exited(code)


class Fork:
    """What `subprocess.Popen` is for a child of one's own.

    Attributes:
        answers: where the warm process tells of it: its id, then its exit code.
        pid: its id.
        returncode: its exit code, as far as is known.
        stdin: our end of that stream, where it is a pipe; so are `stdout` and `stderr`.
    """

    def __init__(self, request: bytes, streams: tuple[Stream, Stream, Stream]) -> None:
        self.returncode: int | None = None
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.enter_context(theirs)
            ends = [_open(stack, *each) for each in enumerate(streams)]
            self.stdin, self.stdout, self.stderr = (mine for mine, _ in ends)
            socket.send_fds(_warm(), [request], [*(file for _, file in ends), theirs.fileno()])
        self.answers = ours.detach()
        pid = read_number(self.answers)
        assert pid is not None, "expected a fork, the warm process has ended"
        self.pid = pid
        os.set_blocking(self.answers, False)

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                code = read_number(self.answers)
                self.returncode = ENDED if code is None else code
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for so many seconds at the most; its exit code.

        Not where asyncio waits for it, too.
        """
        while (code := self.poll()) is None:
            if not select.select([self.answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0)
        if self.answers != _CLOSED:
            os.close(self.answers)
            self.answers = _CLOSED
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def _open(stack: contextlib.ExitStack, number: int, given: Stream) -> tuple[IO[bytes] | None, int]:
    """Our end of a stream, and the fork's, which is closed here with the stack if we opened it."""
    if given is None:
        return None, number
    if given == PIPE:
        reads, writes = os.pipe()
        mine, theirs = (reads, writes) if number else (writes, reads)
        stack.callback(os.close, theirs)
        return os.fdopen(mine, "rb" if number else "wb", buffering=0), theirs
    if given == subprocess.DEVNULL:
        given = os.open(os.devnull, os.O_RDWR)
        stack.callback(os.close, given)
    return None, given if isinstance(given, int) else given.fileno()


_starting: Final = threading.Lock()


def _warm() -> socket.socket:
    """The way to the warm process, which whoever asks first starts."""
    with _starting:
        return _started()


@functools.cache
def _started() -> socket.socket:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        code = f"from tests.acceptance.forking_process import serve; serve({theirs.fileno()})"
        # It isn't measured itself; what it forks is, where that is told to be.
        environ = {name: text for name, text in os.environ.items() if name != MEASURED_BY}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    assert ours.recv(1), "expected a warm process, it has ended"
    return ours
