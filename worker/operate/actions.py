"""Tells what the commands of a worker do, and shows what operators have done last."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import click
import msgspec

from shared.display import moment
from shared.program import tables
from shared.program.commands import json_option
from shared.queue.actions import KEPT, Action, on_stderr, record, whoami
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from worker.operate.asking import ask

_COLUMNS: Final = ("when", "who", "by", "address", "action", "organization", "about", "outcome")


async def record_command(reach: Reach, action: str, **about: Any) -> None:
    """Tell what a command has done: its log line goes to stderr, unless that is a terminal.

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


async def _read(partition: Partition) -> list[Action]:
    command = ("LRANGE", partition.names.actions, 0, KEPT - 1)
    found = []
    for raw in await partition.redis.execute_command(*command):
        with suppress(msgspec.MsgspecError, ValueError):  # a later version's, or somebody's hand's
            found.append(msgspec.json.decode(raw, type=Action))
    return found


@click.command()
@json_option
def actions(*, as_json: bool) -> None:
    """Show the last hundred things that people have done, in the console and by commands."""
    tables.emit(map(_row, ask(last)), _COLUMNS, as_json=as_json, title="Actions")


def _row(action: Action) -> dict[str, object]:
    about = ", ".join(filter(None, (action.job, action.about)))
    return {"when": moment(action.at), **action.fields, "about": about}
