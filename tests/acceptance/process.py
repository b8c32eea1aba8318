"""The two programs and their commands as processes of their own, as an operator starts them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.acceptance import warm
from tests.ingress_support import Reply, ask

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
SECRET = "whsec_a"
ENDPOINTS = f"""
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["{SECRET}"]

[[endpoint]]
id = "bolt"
organization_id = "org_b"
secrets = ["whsec_b"]
"""
SETTINGS = {
    "LOG_FORMAT": "json",
    "INGRESS_PORT": "0",
    "INGRESS_ADMIN_PORT": "0",
    "WORKER_ADMIN_PORT": "0",
    "WORKER_HANDLERS": "tests.acceptance.acting:handlers",
    "LEASE_SECONDS": "1s",
    "BACKOFF_BASE": "10ms",
    "BACKOFF_CAP": "50ms",
}
"""Any free port, short leases, and handlers that do as they are told."""

_FOREIGN = ("INGRESS_", "WORKER_", "LOG_", "DURABILITY", "MAX_", "DRAIN_")


def environment(url: str, folder: Path, **changes: str) -> dict[str, str]:
    """An environment for either program and its commands.

    Args:
        url: of Redis.
        folder: where the endpoints file is; made where it isn't.
        changes: settings that differ from `SETTINGS`.
    """
    endpoints = folder / "endpoints.toml"
    if not endpoints.exists():
        endpoints.write_text(ENDPOINTS)
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_FOREIGN)}
    files = {"REDIS_URL": url, "ENDPOINTS_FILE": str(endpoints)}
    return {**kept, **files, **SETTINGS, **changes}


async def until(fact: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    """Wait for a fact; fails when it doesn't come."""
    async with asyncio.timeout(patience):
        while not await fact():
            await asyncio.sleep(0.01)


class Program:
    """A running program and what it has said so far.

    Attributes:
        process: it.
        lines: its log.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self._written: list[str] = []  # one string that grows is copied with each of many lines
        self._silent = False
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def begin(cls, module: str, environ: Mapping[str, str], folder: Path = ROOT) -> Self:
        """Start it from its source's folder, and don't wait for anything; it has to be stopped."""
        process = await warm.start(
            sys.executable, "-m", module, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE
        )
        return cls(process)

    async def _read(self) -> None:
        await asyncio.gather(*map(self._read_from, (self.process.stdout, self.process.stderr)))
        async with self._changed:
            self._silent = True
            self._changed.notify_all()

    async def _read_from(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            async with self._changed:
                self._written.append(line.decode())
                # Python's own complaints come in pieces, which a line may follow on the same one.
                _, start, rest = line.rpartition(b'{"timestamp":')
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(start + rest))
                self._changed.notify_all()

    @property
    def text(self) -> str:
        """All that it has written so far, log or not."""
        return "".join(self._written)

    async def logged(self, event: str, times: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Wait until an event, with these fields, has been logged so often."""

        def enough() -> bool:
            return self._silent or len(self.events(event, **fields)) >= times

        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._changed.wait_for(enough)
        found = self.events(event, **fields)
        assert len(found) >= times, f"no {event} {fields} in: {self.text[-4000:]}"
        return found

    def events(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of an event, with these fields, so far."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.returncode is None

    async def admin(self, path: str) -> Reply:
        """An answer of its admin site."""
        (line,) = await self.logged("admin_listening")
        return await get(line["port"], path)

    async def is_ready(self) -> bool:
        """Whether it says so; on a busy machine a lease of a second may be renewed late."""
        return (await self.admin("/readyz")).status == 200

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; its exit code."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code

    async def stop(self) -> None:
        """End it, whatever it does."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._reading


async def get(port: int, path: str) -> Reply:
    """The answer to a GET."""
    return await ask(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has run.

    Attributes:
        code: its exit code.
        stdout: what it printed.
        stderr: what it complained of.
    """

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> list[Any]:
        """The JSON lines that it printed."""
        assert self.code == 0, self.stderr
        return [json.loads(line) for line in self.stdout.splitlines()]


async def run(module: str, *arguments: str, environ: Mapping[str, str]) -> Ended:
    """Run a command to its end."""
    return await run_command(sys.executable, "-m", module, *arguments, environ=environ)


async def run_command(*words: str, environ: Mapping[str, str], folder: Path = ROOT) -> Ended:
    """Run any command to its end, in a folder."""
    process = await warm.start(*words, cwd=folder, env=environ, stdout=PIPE, stderr=PIPE)
    return await end_of(process)


async def end_of(process: Process) -> Ended:
    """What a command that is running came to; it is killed where it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())
