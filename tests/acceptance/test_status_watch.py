"""Facts about `status --watch`, on a terminal as a person has it."""

import asyncio
import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance import warm
from tests.acceptance.process import PATIENCE, ROOT, environment, run
from tests.conftest import StartRedis
from tests.integration.workplace import Workplace, body

CTRL_C = b"\x03"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(slots=True)
class Watch:
    """A watch on a terminal of its own.

    Attributes:
        process: it.
        terminal: our side.
        written: all that it has written.
    """

    process: subprocess.Popen[bytes]
    terminal: int
    written: str = ""
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    async def shows(self, fact: Callable[[str], bool]) -> str:
        """Wait until the screen that was drawn last shows something."""
        async with asyncio.timeout(PATIENCE):
            while not fact(screen := self._screen()):
                await asyncio.sleep(0.02)
        return screen

    def _screen(self) -> str:
        with contextlib.suppress(BlockingIOError, OSError):
            while piece := os.read(self.terminal, 65536):
                self.written += piece.decode(errors="replace")
        *_, last = self.written.rpartition("\x1b[H")
        return _ESCAPES.sub("", last)

    async def ends(self) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(PATIENCE):
            while self.process.poll() is None:
                self._screen()
                await asyncio.sleep(0.02)
        self._screen()
        return self.process.returncode


@contextlib.contextmanager
def watching(environ: Mapping[str, str], *arguments: str) -> Iterator[Watch]:
    """Start a watch; it is ended with the block."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 110))
    os.set_blocking(ours, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "status", "--watch", *arguments],
        cwd=ROOT,
        env={**environ, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,  # noqa: PLW1509  # no thread of this process runs by then
    )
    os.close(theirs)
    try:
        yield Watch(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _own_terminal() -> None:
    """Let Ctrl-C on the terminal reach the process."""
    import fcntl  # noqa: PLC0415  # in the child only

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_a_watch_shows_and_follows_and_ends_on_ctrl_c(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    place = Workplace(redis)
    await place.accept(body())
    with watching(environment(redis_server.url, tmp_path), "--interval", "100ms") as watch:
        first = await watch.shows(lambda screen: "Ctrl-C ends" in screen)
        assert re.search(r"waiting .*\n.*\n\s*1 ", first)
        assert "No worker is alive" in first
        assert "org_a" in first
        await place.accept(
            body(organization="org_b"), body(organization="org_b"), organization="org_b"
        )
        await watch.shows(lambda screen: "org_b" in screen and "Ctrl-C ends" in screen)
        os.write(watch.terminal, CTRL_C)
        assert await watch.ends() == 0
        assert watch.written.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in watch.written
        assert "Traceback" not in watch.written


async def test_a_watch_outlives_an_outage_of_redis(
    fresh_redis_server: StartRedis, tmp_path: Path
) -> None:
    server = fresh_redis_server(appendfsync="no")
    with watching(environment(server.url, tmp_path), "--interval", "100ms") as watch:
        await watch.shows(lambda screen: "Ctrl-C ends" in screen)
        server.stop()
        await watch.shows(lambda screen: "Redis does not answer" in screen)
        server.start()
        await watch.shows(
            lambda screen: "Ctrl-C ends" in screen and "Redis does not answer" not in screen
        )
        os.write(watch.terminal, CTRL_C)
        assert await watch.ends() == 0


async def test_a_watch_without_a_terminal_says_what_it_needs(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    ended = await run(
        "worker", "status", "--watch", environ=environment(redis_server.url, tmp_path)
    )
    assert ended.code == 2
    assert ended.stderr == (
        "error: --watch: expected a terminal, or --json for one line a look, got neither\n"
    )


async def test_a_watch_for_machines_is_a_line_a_look(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path)
    process = await warm.start(
        sys.executable, "-m", "worker", "status", "--watch", "--json", "--interval", "100ms",
        cwd=ROOT, env=environ, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            assert b'"waiting":0' in await process.stdout.readline()
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize("interval", ["soon", "1ms", "0"])
async def test_an_interval_that_cannot_be_is_refused(
    redis_server: EmbeddedRedis, tmp_path: Path, interval: str
) -> None:
    ended = await run(
        "worker", "status", "--watch", "--interval", interval,
        environ=environment(redis_server.url, tmp_path),
    )  # fmt: skip
    assert ended.code == 2
    assert "--interval" in ended.stderr
