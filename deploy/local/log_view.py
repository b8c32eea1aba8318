"""Shows what several programs write, as lines that are told apart by a prefix."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from deploy.local.supervisor import Program
from shared.display import escape_controls
from shared.observe.log_lines import ConsoleRenderer

# No red: that is what an error's line has.
_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue")
_RENDER: Final = ConsoleRenderer(colours=True).at  # click takes them out where there is no terminal
# Read of a file at once, so that no program has all the time.
_MOST_BYTES: Final = 1024 * 1024


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
