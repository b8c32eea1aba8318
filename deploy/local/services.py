"""The programs of `make dev`, from their start to their end, and what each of them says."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final, Self
from urllib.request import urlopen

import click
from watchfiles import PythonFilter, watch

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.local.stage import short
from deploy.local.supervisor import STOP_SECONDS, Program, Supervisor
from deploy.local.workbench import Workbench
from shared.display import escape_controls
from shared.errors import SettingsError
from shared.observe.log_lines import ConsoleRenderer

# No red: that is what an error's line has.
_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue")
_RENDER: Final = ConsoleRenderer(colours=True).at  # click takes them out where there is no terminal
# Read of a file at once, so that no program has all the time.
_MOST_BYTES: Final = 1024 * 1024

_LOOK_SECONDS: Final = 0.05
_NEVER: Final = float("inf")
_BEGUN: Final = {
    "sellfern": "simulator_listening",
    "ingress": "ingress_listening",
    "console": "console_listening",
}
"""What each program says once it does what it is there for."""

_LOOK_MILLISECONDS: Final = 100
# Changes that come in such a time are one: an editor or git writes several files.
_TOGETHER_MILLISECONDS: Final = 400

# A worker that ends at once, as one without its service does, would fill the screen.
_PAUSE_SECONDS: Final = 1.0
"""Until a worker that has ended by itself is there again."""


class Tail:
    """The lines that come to a file.

    Args:
        path: the file; perhaps it isn't there yet.
        at_end: whether what is in it already doesn't count.
    """

    def __init__(self, path: Path, *, at_end: bool = False) -> None:
        self._path = path
        self._read = path.stat().st_size if at_end and path.exists() else 0
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """What has come since the last time, complete lines only."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._read)
            while content := file.read(_MOST_BYTES):
                self._read += len(content)
                # A program may have written half a line; a UTF-8 character may be cut in it as
                # well.
                *complete, self._rest = (self._rest + content).split(b"\n")
                yield from complete

    def rest(self) -> Iterator[bytes]:
        """The last lines of a program that has ended."""
        yield from self.lines()
        if self._rest:
            yield self._rest
            self._rest = b""


class LogView:
    """The lines of all programs on stdout.

    Args:
        names: whose lines there will be; the prefix has room for each of them.
    """

    def __init__(self, *names: str) -> None:
        width = max(map(len, names))
        self._prefixes = {
            name: click.style(f"{name:<{width}} | ", fg=_COLOURS[place % len(_COLOURS)])
            for place, name in enumerate(names)
        }
        self._tails: dict[str, list[Tail]] = {}

    def follow(self, program: Program) -> None:
        """Show the lines of a program that has just begun; its predecessor's are finished."""
        self._tails[program.name] = [Tail(program.log), Tail(program.out)]

    def follow_file(self, name: str, path: Path) -> None:
        """Show the lines that are added to a file from now on."""
        self._tails[name] = [Tail(path, at_end=True)]

    def show(self) -> None:
        """Print what has come since the last time."""
        for name, tails in self._tails.items():
            for tail in tails:
                for line in tail.lines():
                    self._print(name, line)

    def finish(self, name: str) -> None:
        """Print the last lines of a program that has ended."""
        for tail in self._tails.pop(name, ()):
            for line in tail.rest():
                self._print(name, line)

    def say(self, name: str, text: str) -> None:
        """Print a line of one's own among those of a program."""
        click.echo(self._prefixes[name] + click.style(escape_controls(text), bold=True))

    def _print(self, name: str, line: bytes) -> None:
        for each in readable(line).splitlines():
            click.echo(self._prefixes[name] + each)


def readable(line: bytes) -> str:
    """A log line as people read it; a traceback in it makes several of one."""
    fields = _fields(line)
    if fields is None:
        # What a handler prints is anything; it must not move the cursor among others' lines.
        return escape_controls(line.decode("utf-8", "replace").expandtabs())
    timestamp, level = str(fields.pop("timestamp")), str(fields.pop("level"))
    return _RENDER(timestamp, level, fields).decode()


def _fields(line: bytes) -> dict[str, Any] | None:
    """What a line of one of our programs says; None where it is of somebody else."""
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(line)
        if isinstance(fields, dict) and {"timestamp", "level", "event"} <= fields.keys():
            return fields
    return None


class ReloadedWorker:
    """Keeps a worker running while the block runs, each time with the newest files.

    Args:
        start: starts one.
        view: shows what it says.
    """

    def __init__(self, start: Callable[[], Program], view: LogView) -> None:
        self._start = start
        self._view = view
        self._program: Program | None = None
        self._begin_at = 0.0
        self._kill_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            self._program.kill()

    def look(self, changed: Collection[str] = ()) -> None:
        """Do what there is to do now; never waits.

        Args:
            changed: files that have.
        """
        if changed:
            self._renew(changed)
        program = self._program
        if program is not None and not program.is_running:
            self._ended(program)
        # The old one may have handlers that won't end; the new files are what somebody waits for.
        elif program is not None and self._kill_at and time.monotonic() > self._kill_at:
            program.kill()
        if self._program is None and time.monotonic() >= self._begin_at:
            self._begin()

    def stop(self) -> None:
        """Ask it to stop and wait until it has; it is killed where it takes too long."""
        self._begin_at = _NEVER
        self._dismiss()
        while self._program is not None:
            self.look()
            self._view.show()
            time.sleep(_LOOK_SECONDS)

    def _renew(self, changed: Collection[str]) -> None:
        first, *others = changed
        more = f" and {len(others)} more" if others else ""
        self._view.say("worker", f"{first}{more} changed: a new worker takes over")
        self._begin_at = 0.0
        # A second change while the old one leaves changes nothing: the new one isn't begun yet.
        self._dismiss()

    def _dismiss(self) -> None:
        # Once: a second SIGTERM would hurry it.
        if self._program is not None and not self._kill_at:
            self._kill_at = time.monotonic() + STOP_SECONDS
            self._program.signal(signal.SIGTERM)

    def _begin(self) -> None:
        self._begin_at, self._kill_at = _NEVER, 0.0
        self._program = self._start()
        self._view.follow(self._program)

    def _ended(self, program: Program) -> None:
        """Say how it has ended where nobody asked for it, and when there will be another."""
        self._view.finish(program.name)
        self._program = None
        if self._kill_at:
            return
        # One that never began has an error in its files, which no other start would mend.
        had_begun = any(line.get("event") == "worker_started" for line in program.lines())
        then = "it starts anew" if had_begun else "the next change of a file starts it anew"
        how = str(program.ended_early()).partition(":")[0]  # why, it has said itself
        self._view.say("worker", f"{how}; {then}")
        self._begin_at = time.monotonic() + _PAUSE_SECONDS if had_begun else _NEVER


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
        # Redis writes its log itself, behind that of earlier runs: only what is new is shown.
        self._view.follow_file("redis", self._redis.folder / "redis.log")
        self._start("sellfern", "deploy.sellfern", *bench.sellfern_arguments, bench=bench)
        self._start("ingress", "ingress", bench=bench)
        self._start("console", "worker", "console", bench=bench)
        # All are on their way before the first is waited for: they start side by side.
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
        self._redis.check()

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

    # Not the supervisor's: its `check` would end everything as soon as a handler has a mistake.
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


def watched(handlers: str, project: Path) -> tuple[Path, bool]:
    """The folder whose changes concern these handlers, and whether those below it do as well.

    Nothing is imported: the module may have an error that is about to be mended.

    Args:
        handlers: ``package.module:name``.
        project: the folder that they are imported from.

    Raises:
        SettingsError: there is no such module or package.
    """
    name = handlers.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(name, [str(project), *sys.path])
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))), True
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent, False
    raise SettingsError("--handlers", f"a module to import from {project}", repr(handlers))


def changes(folder: Path, *, below: bool) -> Iterator[list[str]]:
    """The Python files that have changed, again and again; an empty list where none has.

    Args:
        folder: what is watched, from the first list on.
        below: whether its sub-folders are, too.
    """
    # It comes back empty now and then, since the lines of all programs are to be shown meanwhile.
    for found in watch(
        folder,
        watch_filter=PythonFilter(),
        recursive=below,
        debounce=_TOGETHER_MILLISECONDS,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
    ):
        yield sorted({short(Path(path), folder.parent) for _, path in found})
