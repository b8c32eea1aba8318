"""The commands that change what Sellfern has of an endpoint, or have it do something."""

from typing import Any

import click

from ingress.management import options
from ingress.management.client import CHANGE, LIST, REMOVE, TEST, RemoteEndpoint
from ingress.management.context import Reading, Writing, writing
from ingress.management.matching import the_one
from ingress.management.running import about, done, run
from shared import display
from shared.program.options import json_option, yes_option


@click.command()
@options.endpoint_argument
@options.id_option
@options.organization_option
@yes_option
@json_option
def enable(endpoint: str, **chosen: Any) -> None:
    """Let Sellfern deliver to an endpoint."""
    _switch(endpoint, enabled=True, **chosen)


@click.command()
@options.endpoint_argument
@options.id_option
@options.organization_option
@yes_option
@json_option
def disable(endpoint: str, **chosen: Any) -> None:
    """Let Sellfern deliver nothing to an endpoint; what happens meanwhile isn't sent later."""
    _switch(endpoint, enabled=False, **chosen)


def _switch(
    endpoint: str,
    *,
    enabled: bool,
    remote_id: str | None,
    organization: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    verb = "enable" if enabled else "disable"

    async def go() -> None:
        async with writing(organization, needs=[LIST, CHANGE], yes=yes) as context:
            remote = await registration_of(context, endpoint, remote_id)
            context.confirm([f"{verb} {remote.id} ({remote.url}) at Sellfern"])
            async with context.client.switching(remote.id, enabled=enabled):
                pass
            row = about(verb, context, endpoint, remote)
            done(f"{remote.id} is {verb}d", row, as_json=as_json)

    run(go(), verb, endpoint)


@click.command()
@options.endpoint_argument
@click.option("--keep-local", is_flag=True, help="Leave it in the endpoints file.")
@options.id_option
@options.organization_option
@yes_option
@json_option
def remove(
    endpoint: str,
    *,
    keep_local: bool,
    remote_id: str | None,
    organization: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove an endpoint at Sellfern and from the endpoints file."""
    note = f"removal/{endpoint}"

    async def go() -> None:
        async with writing(organization, needs=[LIST, REMOVE], yes=yes) as context:
            remote = context.journal.noted(note, RemoteEndpoint)
            if remote is None or not context.client.has_begun_removing(remote.id):
                remote = await registration_of(context, endpoint, remote_id)
            # Else it may be gone already, and Sellfern's list can't tell which one it was.
            context.confirm(_removal(context, endpoint, remote, keep_local=keep_local))
            context.journal.note(note, remote)
            async with context.client.removing(remote.id):
                if not keep_local:
                    context.editor.remove(endpoint)
                context.journal.note(note, None)
            row = about("remove", context, endpoint, remote)
            done(f"{remote.id} is removed", row, as_json=as_json)

    run(go(), "remove", endpoint)


def _removal(
    context: Writing, endpoint: str, remote: RemoteEndpoint, *, keep_local: bool
) -> list[str]:
    file = context.editor.path
    first = f"remove {remote.id} ({remote.url}) at Sellfern, for good"
    if keep_local:
        return [first, f"{endpoint} stays in {file}"]
    if len(context.editor.endpoints) == 1:
        return [first, f"{endpoint} stays in {file}: it is the only one, and a file needs one"]
    return [first, f"take {endpoint} with its secrets out of {file}"]


@click.command("test")
@options.endpoint_argument
@options.id_option
@options.organization_option
@yes_option
@json_option
def send_test(
    endpoint: str, *, remote_id: str | None, organization: str | None, yes: bool, as_json: bool
) -> None:
    """Have Sellfern send a test delivery; handlers will see it."""

    async def go() -> None:
        async with writing(organization, needs=[LIST, TEST], yes=yes) as context:
            remote = await registration_of(context, endpoint, remote_id)
            context.confirm([f"have a test delivery sent to {remote.url}; handlers will see it"])
            async with context.client.testing(remote.id) as answer:
                told = answer
            row = about("test", context, endpoint, remote) | {"answer": told}
            done(f"Sellfern answered {display.json_line(told)}", row, as_json=as_json)

    run(go(), "test", endpoint)


async def registration_of(
    context: Reading, endpoint_id: str, remote_id: str | None
) -> RemoteEndpoint:
    """What Sellfern has for an endpoint of the organization.

    Raises:
        SellfernError: it can't be told.
    """
    context.mine(endpoint_id)
    return the_one(await context.client.endpoints(), endpoint_id, remote_id)
