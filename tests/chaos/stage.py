"""What is put under fire: two ingresses, three workers, and whatever keeps their events."""

import asyncio
import contextlib
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, TypeVar

from redis.asyncio import Redis

from deploy.local.supervisor import Program, bare_environment
from tests.chaos.sender import ORDERED, Secrets
from tests.ports import free_ports

LEASE_SECONDS: Final = 3
INGRESSES: Final = 2
WORKERS: Final = 3
LEFT: Final = frozenset({70, 71, 72})
"""The codes with which a worker may leave by itself, since a handler has harmed it."""

_PATIENCE: Final = 30.0
_STARTS_WITHIN: Final = 120.0
"""A worker may start while its Redis fails over, on a machine that others have."""

_LOOK_SECONDS: Final = 0.1
_WRONG_CLOCK: Final = Path(__file__).parent / "wrong_clock"

Result = TypeVar("Result")


class Stage(ABC):
    """Everything that runs; faults act on it.

    Args:
        folder: for logs, data and what the handlers write.
        durability: ``fsync`` or ``replica``.
        say: tells of what must not happen, such as a program that doesn't stop as it should.
        organizations: who has events.
    """

    def __init__(
        self,
        folder: Path,
        durability: str,
        say: Callable[[str], None],
        organizations: Iterable[str],
    ) -> None:
        self.folder = folder
        self.durability = durability
        self.say = say
        self.secrets = Secrets.first_of(organizations)
        self.ports = free_ports(INGRESSES)
        self.ingresses: list[Program] = []
        self.workers: list[Program] = []
        self.in_hand = [asyncio.Lock() for _ in range(WORKERS)]
        self.left = 0
        self._programs = 0
        # Children end with the thread that started them: this one stays.
        self._thread = ThreadPoolExecutor(max_workers=1)

    @abstractmethod
    def storing(self) -> AbstractAsyncContextManager[None]:
        """Have Redis run, in whatever form, for the time of a block."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The settings that tell both programs of it."""

    @abstractmethod
    def primaries(self) -> AbstractAsyncContextManager[list[Redis]]:
        """Clients of all that have anything, which nothing cuts off."""

    @abstractmethod
    async def has_more(self) -> bool:
        """Whether anything that was accepted is unfinished."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, and end it all with the block."""
        self.write_endpoints(self.secrets.current)
        try:
            async with self.storing():
                for number in range(INGRESSES):
                    self.ingresses.append(await self.start_ingress(number))
                for number in range(WORKERS):
                    self.workers.append(await self.start_worker(number))
                async with self._keeping_workers():
                    yield
        finally:
            for program in (*self.ingresses, *self.workers):
                program.signal(signal.SIGCONT)
                program.kill()
            self._thread.shutdown()

    async def do(self, action: Callable[[], Result]) -> Result:
        """Do what takes a while in the thread that starts and waits for processes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    def write_endpoints(
        self, secrets: Mapping[str, str], old: Mapping[str, str] | None = None
    ) -> None:
        """Write the endpoints file: for each organization its secret, and perhaps an old one."""
        tables = []
        for name in secrets:
            valid = [secrets[name], *([old[name]] if old else [])]
            cap = "concurrency = 1\n" if name == ORDERED else ""
            listed = ", ".join(f'"{secret}"' for secret in valid)
            tables.append(
                f'[[endpoint]]\nid = "{name}"\norganization_id = "{name}"\n'
                f"secrets = [{listed}]\n{cap}"
            )
        path = self.folder / "endpoints.toml"
        path.with_suffix(".new").write_text("\n".join(tables), encoding="utf-8")
        path.with_suffix(".new").replace(path)

    async def publish_endpoints(
        self, secrets: Mapping[str, str], old: Mapping[str, str] | None = None
    ) -> None:
        """Write the endpoints file; returns once every ingress goes by it."""
        before = [_reloads(program) for program in self.ingresses]
        self.write_endpoints(secrets, old)
        async with asyncio.timeout(_PATIENCE):
            while any(
                _reloads(program) <= number
                for program, number in zip(self.ingresses, before, strict=True)
            ):
                await asyncio.sleep(0.05)

    async def start_ingress(self, number: int) -> Program:
        """Start an ingress on its port."""
        environ = self.environ(INGRESS_PORT=str(self.ports[number]))
        return await self._start(f"ingress-{number}", "ingress", "ingress_listening", environ)

    async def start_worker(self, number: int, clock: float = 0.0) -> Program:
        """Start a worker, perhaps with a clock that is so many seconds wrong."""
        environ = self.environ()
        if clock:
            environ |= {"CHAOS_CLOCK_SECONDS": str(clock), "PYTHONPATH": str(_WRONG_CLOCK)}
        return await self._start(f"worker-{number}", "worker", "worker_started", environ)

    async def stop(self, program: Program) -> None:
        """Ask a program to stop, and say so where it doesn't as it should."""
        program.signal(signal.SIGTERM)
        code = await self.do(lambda: program.wait(_PATIENCE))
        if code in LEFT:  # it had just left
            self.left += 1
        elif code:
            self.say(f"{program.name} ended with code {code} on SIGTERM")

    @contextlib.asynccontextmanager
    async def _keeping_workers(self) -> AsyncIterator[None]:
        """Begin another worker where one leaves by itself, until the end of the block."""
        keeping = asyncio.create_task(self._keep_workers())
        try:
            yield
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def _keep_workers(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for number, lock in enumerate(self.in_hand):
                if not lock.locked():
                    async with lock:
                        await self._keep_worker(number)

    async def _keep_worker(self, number: int) -> None:
        program = self.workers[number]
        if program.is_running:
            return
        self.left += 1
        code = program.wait(0)
        if code not in LEFT:
            self.say(f"{program.name} left by itself with code {code}")
        self.workers[number] = await self.start_worker(number)

    async def _start(
        self, name: str, module: str, ready: str, environ: Mapping[str, str]
    ) -> Program:
        program = await self.start_program(name, environ, "-m", module)
        await asyncio.to_thread(program.wait_for, ready, _STARTS_WITHIN)
        return program

    async def start_program(self, name: str, environ: Mapping[str, str], *words: str) -> Program:
        """Start a Python with some arguments; what it is may be started several times."""
        self._programs += 1
        label, command = f"{name}-{self._programs}", [sys.executable, *words]
        return await self.do(lambda: Program(label, command, environ, self.folder))

    def environ(self, **more: str) -> dict[str, str]:
        """What both programs go by."""
        return bare_environment(
            os.environ,
            ENDPOINTS_FILE=str(self.folder / "endpoints.toml"),
            LOG_FORMAT="json",
            INGRESS_ADMIN_PORT="0",
            WORKER_ADMIN_PORT="0",
            DURABILITY=self.durability,
            WORKER_HANDLERS="tests.chaos.handlers:handlers",
            WORKER_CONCURRENCY="20",
            LEASE_SECONDS=f"{LEASE_SECONDS}s",
            # Some handlers don't end when they are told to: that has to show within two leases.
            HANDLER_TIMEOUT="3s",
            STUCK_AFTER="500ms",
            BACKOFF_BASE="100ms",
            BACKOFF_CAP="1s",
            # A fault that lasts may cost attempts, and crashes; neither is what is looked for.
            MAX_ATTEMPTS="50",
            MAX_CRASHES="50",
            DRAIN_SECONDS="10s",
            BODY_TIMEOUT="5s",
            CHAOS_FOLDER=str(self.folder),
            **self.settings(),
            **more,
        )


def _reloads(program: Program) -> int:
    return sum(line.get("event") == "endpoints_reloaded" for line in program.lines())
