"""What is started by the warm process begins and ends as what is executed."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance import warm
from tests.acceptance.process import ROOT, Ended, end_of, environment, run, until

TOLD = """
import atexit, gc, os, signal, sys, threading, time

def name(handler):
    return getattr(handler, "__name__", str(handler))

def facts():
    import json
    stat = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    return json.dumps({
        "name": __name__, "spec": __spec__.name, "file": __file__, "argv": sys.argv,
        "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags),
        "main": sys.modules["__main__"].__file__, "here": os.getcwd(), "environ": dict(os.environ),
        "stdin": sys.stdin.read(), "encodings": [sys.stdout.encoding, sys.stderr.errors],
        "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdin.isatty()],
        "handlers": [name(signal.getsignal(each)) for each in sorted(signal.valid_signals())],
        "is_traced": bool(sys.gettrace()),
        "signals": [stat[each] for each in ("SigBlk", "SigIgn", "SigCgt")],
        "files": os.listdir("/proc/self/fd"),
        "inheritable": [os.get_inheritable(each) for each in range(3)],
        "session": [os.getsid(0), os.getpgrp()], "umask": os.umask(0), "nice": os.nice(0),
        "threads": threading.active_count(), "gc": [gc.isenabled(), gc.get_threshold()],
        "wakeup": signal.set_wakeup_fd(-1),
    })

def unflushed():
    atexit.register(print, "last", end="")
    print("first")
    sys.stderr.write("complaint")

def failed():
    raise ValueError("why")

def waits():
    print("waits", flush=True)
    time.sleep(60)

if __name__ == "__main__":
    exec(sys.argv[1])
"""

Start = Callable[..., Awaitable[asyncio.subprocess.Process]]
STARTS: tuple[Start, Start] = (asyncio.create_subprocess_exec, warm.start)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that does as it is told, which the warm process starts like ours."""
    Path(tmp_path, "told.py").write_text(TOLD)
    monkeypatch.setattr(warm, "suits", lambda *_: True)
    return tmp_path


async def began(start: Start, folder: Path, code: str) -> asyncio.subprocess.Process:
    environ = {**os.environ, "NOT_ASCII": "\udcff é", "PWD": str(folder)}
    del environ["PATH"]
    return await start(
        *(sys.executable, "-m", "told", code, "two words"),
        cwd=folder,
        env=environ,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )


async def ended(start: Start, folder: Path, code: str) -> Ended:
    process = await began(start, folder, code)
    async with asyncio.timeout(30):
        stdout, stderr = await process.communicate(b"read\n")
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("print(facts())", 0),
        ("unflushed()", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('said')", 1),
        ("sys.stdout.reconfigure(errors='replace'); print('\\xe9')", 0),
        ("unflushed(); os._exit(4)", 4),
        ("failed()", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.close(1); os.close(2)", 0),
    ],
)
async def test_it_is_given_says_and_ends_with_the_same(
    told: Path, code: str, exit_code: int
) -> None:
    executed, warmed = [await ended(start, told, code) for start in STARTS]
    assert executed == warmed
    assert warmed.code == exit_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_signal_ends_it_the_same_way(told: Path, number: signal.Signals) -> None:
    for start in STARTS:
        process = await began(start, told, "waits()")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"waits\n"
        assert process.returncode is None
        process.send_signal(number)
        ended = await end_of(process)
        assert (ended.code, ended.stdout) == (-number, "")
        assert ("KeyboardInterrupt" in ended.stderr) == (number == signal.SIGINT)
        await until(partial(is_known_to_have_ended, process))


async def is_known_to_have_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether a signal to it is refused, as it is once asyncio has taken leave of its streams."""
    try:
        process.kill()
    except ProcessLookupError:
        return True
    return False


def test_it_is_waited_for_without_asyncio_too(told: Path) -> None:
    def begun(code: str, output: Path) -> "subprocess.Popen[bytes] | warm.Fork":
        with output.open("wb") as stdout:
            words = (sys.executable, "-m", "told", code)
            return warm.popen(words, cwd=told, env=os.environ, stdout=stdout)

    process = begun("print('said'); sys.exit(3)", told / "said")
    assert [process.wait(30), process.wait(), process.poll()] == [3, 3, 3]
    assert (told / "said").read_text() == "said\n"
    process = begun("waits()", told / "waits")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


async def test_many_at_once_differ_in_what_they_draw(told: Path) -> None:
    code = "import random; print(random.random(), os.getpid())"
    drawn = await asyncio.gather(*(ended(warm.start, told, code) for _ in range(5)))
    assert len({each.stdout.split()[0] for each in drawn}) == 5


async def test_a_stream_that_is_not_a_pipe_is_its_own(told: Path) -> None:
    reads, writes = os.pipe()
    process = await warm.start(
        *(sys.executable, "-m", "told", "print(len(sys.stdin.read())); sys.stderr.write('said')"),
        cwd=told, env=os.environ, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=writes,
    )  # fmt: skip
    os.close(writes)
    stdout, _ = await process.communicate()
    assert (stdout, process.returncode) == (b"0\n", 0)
    assert os.read(reads, 100) == b"said"
    os.close(reads)


async def test_the_programs_begin_there_and_nothing_that_begins_otherwise(tmp_path: Path) -> None:
    python, environ = sys.executable, environment("redis://127.0.0.1:1/0", tmp_path)
    assert warm.suits((python, "-m", "worker"), ROOT, environ)
    assert warm.suits((python, "-m", "ingress", "check"), ROOT, environ)
    assert not warm.suits((python, "-m", "worker"), tmp_path, environ)
    assert not warm.suits(("unshare", python, "-m", "worker"), ROOT, environ)
    assert not warm.suits((python, "-m", "worker"), ROOT, {**environ, "PYTHONPATH": "/"})
    for program in ("ingress", "worker"):
        assert (await run(program, "--version", environ=environ)).code == 0
