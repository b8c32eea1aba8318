"""What operators do, in the console and by the commands of both programs: told, and kept a while.

One is kept where the organization lives that it is about; one about none, or several, in the first
partition that takes it. A Redis that is away keeps no action from being done, nor from being told.
"""

import asyncio
import getpass
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import click
import msgspec

from shared.display import encodable, escape_controls, json_line
from shared.errors import SettingsError, Unavailable
from shared.observe.log_lines import render_json
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import scripts
from shared.queue.partition import Partition
from shared.queue.partitions import open_partitions
from shared.queue.reach import Reach
from shared.redis.connection import REDIS_ERRORS, look_up, translate
from shared.settings.config import CommonSettings

KEPT: Final = 100
"""How many of the last ones are shown."""

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


async def record_within(common: CommonSettings, seconds: float, action: Action) -> None:
    """The same of a command that needs no Redis for what it does, and waits no longer for one.

    Args:
        common: where it is.
        seconds: for which it is waited for.
        action: what was done.
    """

    def told(event: str, fields: dict[str, object]) -> None:
        told_already.append(event)
        on_stderr(event, fields)

    told_already: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            await look_up(common.redis_urls)
            async with open_partitions(common, connections=1, socket_timeout=seconds) as partitions:
                await record(Reach(partitions), action, told)
    except (TimeoutError, SettingsError, *REDIS_ERRORS) as exc:
        if not told_already:
            told("operator_action", action.fields)
        if _NOT_KEPT not in told_already:
            why = str(exc) if isinstance(exc, SettingsError) else translate(exc).message
            told(_NOT_KEPT, {"action": action.action, "why": why})


async def _places(reach: Reach, organization: str) -> list[Partition]:
    """Where to keep what is about it, the best first."""
    # One of each server: where one is away, its other partitions are as well.
    firsts = [there[0] for there in reach.partitions.by_primary() if there[0] in reach]
    with suppress(*REDIS_ERRORS, Unavailable):
        if organization:
            return [await reach.living(organization), *firsts]
    # One that was left out since it is full takes this all the same.
    return firsts or [reach.partitions.all[0]]


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
