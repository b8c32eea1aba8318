"""``python -m worker state``, ``pause`` and ``resume``: one organization, looked at or held."""

import time

import click

from shared import display
from shared.endpoints.endpoint import Rate
from shared.endpoints.place import shown
from shared.program.commands import json_option
from shared.queue.actions import whoami
from shared.queue.reach import Reach
from worker.operate import organizations
from worker.operate.actions import record_command
from worker.operate.asking import anyway_option, ask, known_organization
from worker.operate.organizations import Paused


@click.command()
@click.argument("organization")
@click.argument("key_prefix", default="")
@anyway_option
@json_option
def state(organization: str, key_prefix: str, *, yes: bool, as_json: bool) -> None:
    """Show an organization's committed state as JSON lines."""
    del as_json  # it is JSON either way; the option is there as in every command that lists
    name = known_organization(organization, yes=yes)

    async def show(reach: Reach) -> None:
        partition = await reach.living(name)
        async for value in organizations.stored_values(partition, name, key_prefix):
            click.echo(display.json_line(value))

    ask(show)


@click.command()
@click.argument("organization")
@click.option("--why", default="by an operator", show_default=True, help="Shown by status.")
@anyway_option
def pause(organization: str, *, why: str, yes: bool) -> None:
    """Let an organization's events wait until resume. The ingress goes on accepting them."""
    name = known_organization(organization, yes=yes)

    async def paused(reach: Reach) -> tuple[bool, Paused]:
        partition = await reach.living(name)
        is_changed = await organizations.pause(partition, name, why, whoami()[0])
        before = Paused() if is_changed else await organizations.pause_of(partition, name)
        outcome = "" if is_changed else "was paused already"
        await record_command(reach, "pause", organization=name, about=why, outcome=outcome)
        return is_changed, before

    is_changed, before = ask(paused)
    if is_changed:
        click.echo(f"{name} is paused; its events wait")
    else:
        because = f" ({display.escape_controls(before.sentence(time.time()))})" * bool(before.why)
        click.echo(f"{name} was paused already{because}")


def _starts(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """The starts a second in an option's text."""
    try:
        return None if text is None else 1000 / Rate.parse(text).interval
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {shown(text)}") from None


@click.command()
@click.argument("organization")
@click.option(
    "--rate",
    callback=_starts,
    metavar="N/s",
    help="Start so many until none waits any more, not 10/s and twice as many each second.",
)
@anyway_option
def resume(organization: str, *, rate: float | None, yes: bool) -> None:
    """Let an organization's events go on that wait by a pause, a hold or its breaker, in order."""
    name = known_organization(organization, yes=yes)

    async def resumed(reach: Reach) -> bool:
        is_changed = await organizations.resume(await reach.living(name), name, rate)
        about = "" if rate is None else f"at {rate:g}/s"
        outcome = "" if is_changed else "was neither paused nor held"
        await record_command(reach, "resume", organization=name, about=about, outcome=outcome)
        return is_changed

    if ask(resumed):
        click.echo(f"{name} goes on")
    else:
        click.echo(f"{name} was neither paused nor held")
