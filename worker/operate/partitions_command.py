"""``python -m worker partitions``: where each partition is, and what it has to do."""

from collections.abc import Mapping

import click

from shared.display import roughly
from shared.program import tables
from shared.program.commands import json_option
from shared.queue.reach import Reach
from shared.redis.connection import server_of
from worker.operate.asking import ask
from worker.operate.merged import look
from worker.operate.overview import Overview

_COLUMNS = ("number", "node", "organizations", "waiting", "running", "dead", "oldest", "up")


@click.command()
@json_option
def partitions(*, as_json: bool) -> None:
    """Show where each partition is, what it has to do, and whether it answers."""
    rows = ask(read_rows)
    shown = rows if as_json else map(_as_people_say, rows)
    tables.emit(shown, _COLUMNS, as_json=as_json, title="Partitions")


async def read_rows(reach: Reach) -> list[dict[str, object]]:
    """A row for each, in order; of one that doesn't answer, why not.

    Raises: what the client does, where none answers.
    """
    parts = (await look(reach)).parts
    why = {each.partition: each.code for each in reach.missing}
    return [
        {
            "number": each.number,
            "node": server_of(each.redis),
            **_figures(parts.get(each.number)),
            "up": each.number in parts,
            "why": why.get(each.number),
        }
        for each in reach.partitions
    ]


def _figures(part: Overview | None) -> dict[str, object]:
    if part is None:
        return {}
    return {
        "organizations": len(part.organizations),
        "waiting": part.waiting,
        "running": part.running,
        "dead": part.dead,
        "oldest_seconds": part.oldest_seconds,
    }


def _as_people_say(row: Mapping[str, object]) -> dict[str, object]:
    oldest = row.get("oldest_seconds")
    up = "yes" if row["up"] else row["why"]
    return {**row, "oldest": roughly(oldest) if isinstance(oldest, float) else None, "up": up}
