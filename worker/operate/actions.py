"""What operators have done, in the console and by commands: a log line each, and the last of them.

One is kept where the organization lives that it is about; one about none, or several, in the first
partition that takes it. A Redis that is away keeps no action from being done, nor from being told.
"""

import getpass
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

import click
import msgspec

from shared.display import encodable, escape_controls, json_line, moment
from shared.errors import Unavailable
from shared.observe.log_lines import render_json
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.program import tables
from shared.program.commands import json_option
from shared.queue import scripts
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from shared.redis.connection import REDIS_ERRORS, translate
from worker.operate.asking import ask

KEPT: Final = 100
"""How many of the last ones are shown."""

_COLUMNS: Final = ("when", "who", "by", "address", "action", "organization", "about", "outcome")
_NOTE: Final = scripts.load("note")
_NOT_KEPT: Final = "operator_action_not_kept"
_LONGEST: Final = 300
_TEXTS: Final = ("who", "address", "organization", "job", "about", "outcome", "run")

By = Literal["console", "command"]

Told = Callable[[str, dict[str, object]], None]
"""Told an event's name and its fields."""


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that somebody has done.

    Attributes:
        action: what, such as ``pause``.
        by: ``console`` or ``command``.
        who: as they call themselves: a session's name, or the user of a command's process.
        address: from where: a browser's address, or the host on which the command ran.
        at: seconds since the epoch.
        organization: on which; empty where it was on none, or on several.
        job: on which dead letter.
        about: why, or on which ones.
        outcome: what came of it.
        run: the id of the run that it has begun, or ended.
    """

    action: str
    by: By
    who: str
    address: str
    at: float = msgspec.field(default_factory=time.time)
    organization: str = ""
    job: str = ""
    about: str = ""
    outcome: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        """Bound each text: what is kept is a hundred of them."""
        for name in _TEXTS:
            text = getattr(self, name)
            msgspec.structs.force_setattr(self, name, text[:_LONGEST])

    @property
    def fields(self) -> dict[str, object]:
        """What a log line says of it."""
        found = {name: getattr(self, name) for name in ("action", "by", *_TEXTS)}
        return {name: text for name, text in found.items() if text}


async def record(reach: Reach, action: Action, told: Told) -> None:
    """Log it, and keep it where some Redis takes it; what was done stays done where none does.

    Args:
        reach: the partitions.
        action: what was done.
        told: logs it.
    """
    told("operator_action", action.fields)
    raw, cause = json_line(action), None
    for partition in await _places(reach, action.organization):
        try:
            await partition.run(_NOTE, raw, KEPT)
        except REDIS_ERRORS as exc:
            cause = translate(exc).message
        else:
            return
    told(_NOT_KEPT, {"action": action.action, "why": cause})


async def record_command(reach: Reach, action: str, **about: Any) -> None:
    """The same of a command: its log line goes to stderr, unless that is a terminal.

    Args:
        reach: the partitions.
        action: what was done.
        about: on what, by the names of `Action`.
    """
    await record(reach, Action(action, "command", *whoami(), **about), on_stderr)


@asynccontextmanager
async def recorded(
    reach: Reach, action: str, outcome: Callable[[], str] = lambda: "done", **about: str
) -> AsyncIterator[None]:
    """Record what a command does in the block: when it begins, and how that ended.

    Args:
        reach: the partitions.
        action: what.
        outcome: what came of it, once it has ended by itself.
        about: on what, by the names of `Action`.
    """
    await record_command(reach, action, **about, outcome="begun")
    ended = "interrupted"
    try:
        yield
        ended = outcome()
    except Exception as exc:
        ended = f"failed: {exc}"
        raise
    finally:
        await record_command(reach, action, **about, outcome=ended)


async def last(reach: Reach) -> list[Action]:
    """The last ones, the newest first.

    Raises: what the client does, where no partition answers.
    """
    found = [each for _, some in await reach.gather(_read) for each in some]
    return sorted(found, key=lambda each: each.at, reverse=True)[:KEPT]


async def _places(reach: Reach, organization: str) -> list[Partition]:
    """Where to keep what is about it, the best first."""
    # One of each server: where one is away, its other partitions are as well.
    firsts = [there[0] for there in reach.partitions.by_primary() if there[0] in reach]
    with suppress(*REDIS_ERRORS, Unavailable):
        if organization:
            return [await reach.living(organization), *firsts]
    # One that was left out since it is full takes this all the same.
    return firsts or [reach.partitions.all[0]]


async def _read(partition: Partition) -> list[Action]:
    command = ("LRANGE", partition.names.actions, 0, KEPT - 1)
    found = []
    for raw in await partition.redis.execute_command(*command):
        with suppress(msgspec.MsgspecError, ValueError):  # a later version's, or somebody's hand's
            found.append(msgspec.json.decode(raw, type=Action))
    return found


def log_to(log: FilteringBoundLogger) -> Told:
    """Has a program's log told."""

    def told(event: str, fields: dict[str, object]) -> None:
        log.info(event, **fields)

    return told


def whoami() -> tuple[str, str]:
    """The user of this process, and the host on which it runs."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's, which has no name
        user = f"uid {os.getuid()}"
    return encodable(user), socket.gethostname()  # any bytes may be in the environment


def on_stderr(event: str, fields: dict[str, object]) -> None:
    """Log what a command does, where nobody sits before a terminal who has just typed it."""
    if not sys.stderr.isatty():
        click.echo(render_json("info", {"event": event, **fields}).rstrip(b"\n"), err=True)
    elif event == _NOT_KEPT:
        click.echo(f"not in the list of actions: {escape_controls(str(fields['why']))}", err=True)


@click.command()
@json_option
def actions(*, as_json: bool) -> None:
    """Show the last hundred things that people have done, in the console and by commands."""
    tables.emit(map(_row, ask(last)), _COLUMNS, as_json=as_json, title="Actions")


def _row(action: Action) -> dict[str, object]:
    about = ", ".join(filter(None, (action.job, action.about)))
    return {"when": moment(action.at), **action.fields, "about": about}
