"""The programs of `make dev`, from their start to their end, one after the other."""

import contextlib
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.local.kept_redis import refuse_ended
from deploy.local.log_view import LogView
from deploy.local.reloading import ReloadedWorker
from deploy.local.supervisor import Program, Supervisor
from deploy.local.workbench import Workbench

_LOOK_SECONDS: Final = 0.05
_BEGUN: Final = {
    "sellfern": "simulator_listening",
    "ingress": "ingress_listening",
    "console": "console_listening",
}
"""What each program says once it does what it is there for."""


class Services:
    """Everything that runs.

    Args:
        supervisor: of all programs but the worker.
        redis: the server.
        worker: the worker.
        view: shows what they all say.
    """

    def __init__(
        self, supervisor: Supervisor, redis: EmbeddedRedis, worker: ReloadedWorker, view: LogView
    ) -> None:
        self._supervisor = supervisor
        self._redis = redis
        self._worker = worker
        self._view = view
        self._programs: dict[str, Program] = {}

    def start(self, bench: Workbench) -> None:
        """Start all but the worker, which comes once its files are watched, at the first look.

        Raises:
            ProgramError: one has ended, or takes too long.
        """
        self._view.follow_file("redis", self._redis.folder / "redis.log")
        self._start("sellfern", "deploy.sellfern", *bench.sellfern_arguments, bench=bench)
        self._start("ingress", "ingress", bench=bench)
        self._start("console", "worker", "console", bench=bench)
        for name, event in _BEGUN.items():
            self._programs[name].wait_for(event)
        _learn_reference(self._supervisor, bench)

    def look(self, changed: Collection[str]) -> None:
        """Show what has been said, and see to everything.

        Args:
            changed: files of the handlers that have.

        Raises:
            ProgramError: a program but the worker has ended by itself.
            RedisServerError: Redis has.
        """
        self._worker.look(changed)
        self._view.show()
        self._supervisor.check()
        refuse_ended(self._redis)

    def stop(self) -> None:
        """Stop one after the other: nothing is sent to whoever has left already.

        Raises:
            ProgramError: one had to be killed, or stopped with an error.
        """
        self._dismiss("sellfern")
        self._dismiss("ingress")
        self._worker.stop()
        self._dismiss("console")

    def _start(self, name: str, module: str, *arguments: str, bench: Workbench) -> None:
        program = self._supervisor.start(name, module, *arguments, environ=bench.environ)
        self._programs[name] = program
        self._view.follow(program)

    def _dismiss(self, name: str) -> None:
        self._supervisor.dismiss(self._programs[name])
        while self._supervisor.leaving:
            self._supervisor.check()
            self._view.show()
            time.sleep(_LOOK_SECONDS)
        self._view.finish(name)


@contextlib.contextmanager
def begun(logs: Path, project: Path, bench: Workbench, redis: EmbeddedRedis) -> Iterator[Services]:
    """Have everything running but the worker; at the end of the block nothing is.

    Args:
        logs: the folder for what they say.
        project: where the worker runs.
        bench: what they are told.
        redis: the server, which runs already.

    Raises:
        ProgramError: a program doesn't come up.
    """
    logs.mkdir(exist_ok=True)
    view = LogView("redis", *_BEGUN, "worker")

    def start_worker() -> Program:
        words = [sys.executable, "-m", "worker"]
        return Program("worker", words, bench.environ, logs, project)

    with Supervisor(logs) as supervisor, ReloadedWorker(start_worker, view) as worker:
        services = Services(supervisor, redis, worker, view)
        services.start(bench)
        yield services


def _learn_reference(supervisor: Supervisor, bench: Workbench) -> None:
    """Import what the simulated Sellfern lists, or most events of its page would be unavailable."""
    known = Path(bench.settings["REFERENCE_FILE"])
    if known.exists():
        return
    document = known.with_name("openapi.json")
    with urlopen(f"{bench.sellfern}/openapi.json") as answer:  # noqa: S310  # our own program's
        document.write_bytes(answer.read())
    words = ("reference", "import", "--yes", str(document))
    supervisor.ask("ingress", [words], environ=bench.environ)
