"""``python -m worker running``: what takes long now, and in which worker."""

import click
from msgspec import structs

from shared import display
from shared.display import roughly
from shared.program import tables
from shared.program.commands import json_option
from worker.at_work import Doing
from worker.operate.asking import ask
from worker.operate.merged import look
from worker.operate.workers import running as all_running
from worker.operate.workers import summary, troubles

_COLUMNS = ("for", "state", "handler", "event_id", "type", "organization", "worker")


@click.command()
@json_option
def running(*, as_json: bool) -> None:
    """Show handlers that have run for longer than a second, what is stuck, what blocks a worker.

    Each worker says so every two seconds. Where the code of one is stands in --json. Workers that
    went without a word within the last hour are told below.
    """
    overview = ask(look).overview
    tables.emit(
        [_row(each, overview.at) for each in all_running(overview.workers)],
        _COLUMNS,
        as_json=as_json,
        title="Running",
    )
    if as_json:
        return
    for each in troubles(overview.workers):
        display.show_below(f"{each.worker}: {each.stack.replace(' > ', chr(10))}")
    for lost in overview.lost or ():
        click.echo(display.escape_controls(lost.sentence))
    click.echo(summary(overview.workers, overview.running))


def _row(doing: Doing, now: float) -> dict[str, object]:
    seconds = max(0.0, now - doing.since)
    return {
        **structs.asdict(doing),
        "for": roughly(seconds),
        "since": display.moment(doing.since),
        "seconds": round(seconds, 1),
    }
