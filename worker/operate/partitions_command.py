"""``python -m worker partitions``: where each partition is, and who is to live there."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import click

from shared import display
from shared.display import counted, roughly
from shared.program import tables
from shared.program.commands import json_option
from shared.queue import hashes, keys
from shared.queue.keys import UNTAGGED
from shared.queue.partition import BEFORE, Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from shared.redis.connection import open_redis, server_of
from shared.settings.config import CommonSettings
from shared.settings.durations import parse_duration
from worker.operate.actions import recorded
from worker.operate.asking import anyway_option, ask, known_organization
from worker.operate.belongings import Belongings
from worker.operate.merged import look
from worker.operate.moving import Move, Patience, Progress
from worker.operate.overview import Overview
from worker.operate.ways import MoveError

_COLUMNS = ("number", "node", "organizations", "waiting", "running", "dead", "oldest", "up")


_CONNECTIONS = 3
"""One to ask, and two by which Redis tells what changes meanwhile."""

# What a shell says of a program that SIGINT has ended.
_INTERRUPTED = 130


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def partitions(context: click.Context, *, as_json: bool) -> None:
    """Show where each partition is, what it has to do, and whether it answers."""
    if context.invoked_subcommand is None:
        rows = ask(read_rows)
        shown = rows if as_json else map(_as_people_say, rows)
        tables.emit(shown, _COLUMNS, as_json=as_json, title="Partitions")


def _seconds(text: str) -> float:
    """The seconds of an option's duration."""
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {text!r:.40}") from None


_drain_option = click.option(
    "--drain",
    type=_seconds,
    default="500ms",
    show_default=True,
    help="Let its events wait for so long at a time for its handlers to end.",
)
_patience_option = click.option(
    "--patience",
    type=_seconds,
    default="1m",
    show_default=True,
    help="Try that again for so long.",
)


@contextmanager
def _going_on() -> Iterator[None]:
    """Say why a move has ended before its end."""
    try:
        yield
    except MoveError as exc:
        display.fail(str(exc))
    except KeyboardInterrupt:
        click.echo(
            "interrupted: nothing is lost, the same command goes on; its events may wait for it",
            err=True,
        )
        raise SystemExit(_INTERRUPTED) from None


@partitions.command()
@click.argument("organization")
@click.argument("number", type=click.IntRange(0))
@_drain_option
@_patience_option
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@anyway_option
@json_option
def move(
    *,
    organization: str,
    number: int,
    drain: float,
    patience: float,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Move an organization to the partition of that number, while events come in.

    None is refused, lost or handled twice. Its events wait for as long as its handlers take to end,
    and its events, dead letters and state to be copied. Where it is interrupted, or dies, the same
    command goes on; until then its events may wait. It needs the Redis user of a worker.
    """
    name = known_organization(organization, yes=yes)

    async def moved(reach: Reach) -> Progress | dict[str, object]:
        number_of = len(reach.partitions)
        if number >= number_of:
            expected = f"expected 0 to {number_of - 1} (PARTITIONS), got {number}"
            display.fail(f"NUMBER: {expected}")
        target = reach.partitions.all[number]
        if dry_run:
            return await _prospect(reach, name, number)
        wait = Patience(drain=drain, all_in_all=patience)
        async with recorded(reach, "move", organization=name, about=f"to partition {number}"):
            return await Move(reach.partitions, name, target, wait, told=_teller()).run()

    with _going_on():
        found = ask(moved, connections=_CONNECTIONS)
    row = found if isinstance(found, dict) else _as_row(name, found)
    if as_json:
        click.echo(display.json_line(row))
    else:
        click.echo(_sentence(row, dry_run=dry_run))


@partitions.command()
@_drain_option
@_patience_option
@json_option
def migrate(*, drain: float, patience: float, as_json: bool) -> None:
    """Move all organizations from the single queue of REDIS_URL_BEFORE into partitions.

    While events come in: each organization goes home, as `move` has it. All ingresses have
    REDIS_URL_BEFORE; workers of the single queue handle what waits there, until this has ended.
    """
    url = CommonSettings.from_environ(os.environ).redis_url_before
    if url is None:
        display.fail("REDIS_URL_BEFORE: expected the Redis that they leave, got nothing")
    wait, number = Patience(drain=drain, all_in_all=patience), 0

    def tell(organization: str, progress: Progress) -> None:
        nonlocal number
        number += 1
        row = _as_row(organization, progress)
        click.echo(display.json_line(row) if as_json else _sentence(row, dry_run=False))

    async def migrated(reach: Reach) -> None:
        async with open_redis(url, connections=_CONNECTIONS) as redis:
            before = Partition(BEFORE, UNTAGGED, redis)
            async with recorded(reach, "migrate", about=f"from {url}"):
                await migrate_all(reach.partitions, before, wait, tell)

    with _going_on():
        ask(migrated, connections=_CONNECTIONS)
    if not as_json:
        have = counted(number, "organization has", "organizations have")
        click.echo(f"{have} moved, and no other is accepted there any more")


async def migrate_all(
    partitions: Partitions,
    before: Partition,
    patience: Patience,
    told: Callable[[str, Progress], None],
) -> None:
    """Move all organizations from a single queue home, and have it accept nothing any more.

    Raises:
        MoveError: one can't be moved now; those before it have been.
    """
    is_closed = False
    while True:
        number = 0
        for organization in sorted(await _with_something(before)):
            target = partitions.of(organization)
            progress = await Move(partitions, organization, target, patience, before=before).run()
            if progress.source != progress.target:
                told(organization, progress)
                number += 1
        if is_closed and not number:
            return
        # What was accepted before that is seen in the next round.
        is_closed = is_closed or not number
        if is_closed:
            await Belongings(before, "*").ask("HSET", before.names.moved, "*", "home")


async def _with_something(partition: Partition) -> set[str]:
    """The organizations of which there is anything but what an endpoints file says."""
    names, found = partition.names, set[str]()
    for name in (names.waiting, names.buried, names.bytes, names.organizations, names.moving):
        async for page in hashes.pages(partition.redis, name):
            for raw in page:
                field = raw.decode(errors="replace")
                if name == names.bytes:
                    field = field.rpartition(":")[0]
                elif name == names.organizations:
                    field = field.partition(":")[2]  # such as a pause
                found.add(field)
    return {each for each in found if keys.ORGANIZATION_PATTERN.fullmatch(each)}


def _teller() -> Callable[[Progress], None]:
    """Says on stderr what is done now, once a step."""
    said = ""

    def tell(progress: Progress) -> None:
        nonlocal said
        if progress.step != said:
            said = progress.step
            click.echo(said, err=True)

    return tell


async def _prospect(reach: Reach, organization: str, number: int) -> dict[str, object]:
    """What a move would take along."""
    partition = await reach.living(organization)
    here, names = Belongings(partition, organization), partition.names
    held = await here.ask("HMGET", names.bytes, f"{organization}:marks", f"{organization}:state")
    return {
        "organization": organization,
        "from": partition.number,
        "to": number,
        "events": int(await here.field(names.waiting) or 0),
        "running": int(await here.field(names.running) or 0),
        "dead_letters": int(await here.field(names.buried) or 0),
        "bytes_of_marks_and_state": sum(int(each or 0) for each in held),
    }


def _as_row(organization: str, progress: Progress) -> dict[str, object]:
    return {
        "organization": organization,
        "from": progress.source,
        "to": progress.target,
        "events": progress.events,
        "dead_letters": progress.letters,
        "marks_before": progress.marks,
        "marks_and_state": progress.values,
        "held_seconds": round(progress.held, 3),
    }


def _sentence(row: Mapping[str, object], *, dry_run: bool) -> str:
    name, source, target = row["organization"], row["from"], row["to"]
    if source == target:
        return f"{name} lives in partition {target}"
    here = "REDIS_URL_BEFORE" if source == BEFORE else f"partition {source}"
    told = f"from {here} to partition {target}: {row['events']:,} events, "
    told += f"{row['dead_letters']:,} dead letters"
    if dry_run:
        running, held = row["running"], row["bytes_of_marks_and_state"]
        return (
            f"would move {name} {told}, about {held:,} bytes of marks and state; "
            f"{running:,} of its events are handled now"
        )
    before, after = row["marks_before"], row["marks_and_state"]
    return (
        f"moved {name} {told}, {before:,} marks before and {after:,} marks and values while its "
        f"events waited, for {row['held_seconds']} s"
    )


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
