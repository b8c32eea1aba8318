"""The commands about an organization's endpoints at Sellfern, and those that only look."""

import os
from collections.abc import Sequence
from time import time
from typing import Final

import click
import msgspec

from ingress.management.acting import tell_action
from ingress.management.api_errors import OperationUnavailable
from ingress.management.change_commands import (
    disable,
    enable,
    register_endpoint,
    registration_of,
    remove,
    rotate,
    send_test,
)
from ingress.management.client import DELIVERIES, LIST, RemoteEndpoint
from ingress.management.context import confirm, key_organization, reading
from ingress.management.editing import read_endpoints
from ingress.management.journal import Journal
from ingress.management.matching import shown, side_by_side
from ingress.management.rotation import Rotation
from ingress.management.running import Target, about_an_endpoint, organization_option, running
from ingress.management.settings import ManagementSettings
from shared.errors import SettingsError
from shared.program import tables
from shared.program.commands import json_option, yes_option
from shared.sellfern.reference_file import load_reference

_DELIVERY_COLUMNS: Final = (
    *("created_at", "event", "event_id", "status", "attempts"),
    *("response_status", "error"),
)


@click.group()
def endpoints() -> None:
    """Manage an organization's endpoints at Sellfern.

    Exit codes: 1 Sellfern refuses or doesn't answer, 2 a setting or an argument is wrong, 3 the
    API Reference doesn't list it, 4 run the same command again.
    """


for _command in (register_endpoint, rotate, enable, disable, remove, send_test):
    endpoints.add_command(_command)


@endpoints.command("list")
@running
@organization_option
@json_option
async def list_endpoints(*, organization: str | None, as_json: bool) -> None:
    """List the endpoints here and at Sellfern side by side, and where they differ."""
    try:
        async with reading(organization, needs=[LIST]) as context:
            remotes = await context.client.endpoints()
            _show_rows(organization, remotes, as_json=as_json)
    except OperationUnavailable:
        # What is here is told all the same; the exit code says that the rest is missing.
        _show_rows(organization, None, as_json=as_json)
        raise


def _show_rows(
    organization: str | None, remotes: Sequence[RemoteEndpoint] | None, *, as_json: bool
) -> None:
    settings = ManagementSettings.from_environ(os.environ)
    known = read_endpoints(settings.common.endpoints_file, os.environ)
    # Without the lock: to look, nobody waits for whoever changes something.
    journal = Journal(settings.journal)
    name = key_organization(organization, known, settings)
    rows = side_by_side(
        known,
        name,
        remotes,
        public_url=settings.public_url,
        reference=load_reference(settings.common),
        # Two registrations are no mistake while a rotation is under way.
        rotating=[each for each in known if journal.noted(f"rotation/{each}", Rotation)],
        now=time(),
    )
    tables.emit(
        (shown(row, name) for row in rows),
        ["endpoint", "remote_id", "url", "enabled", "events", "drift"],
        as_json=as_json,
        title=f"Endpoints of {name}",
    )


@endpoints.command()
@running
@about_an_endpoint
@json_option
async def deliveries(target: Target, *, as_json: bool) -> None:
    """List the latest deliveries to an endpoint, as Sellfern saw them."""
    async with reading(target.organization, needs=[LIST, DELIVERIES]) as context:
        remote = await registration_of(context, target)
        tables.emit(
            map(msgspec.to_builtins, await context.client.deliveries(remote.id)),
            _DELIVERY_COLUMNS,
            as_json=as_json,
            title=f"Deliveries to {remote.url}",
        )


@endpoints.command()
@running
@click.option("--forget", metavar="KEY", help="Forget one, after looking at Sellfern.")
@yes_option
@json_option
async def pending(*, forget: str | None, yes: bool, as_json: bool) -> None:
    """List the requests whose outcome isn't known; the same command again finds out."""
    settings = ManagementSettings.from_environ(os.environ)
    if forget is not None:
        await _forget(settings, forget, yes=yes)
        return
    tables.emit(
        map(msgspec.to_builtins, Journal(settings.journal).pending),
        ["key", "organization", "summary"],
        as_json=as_json,
        title="Requests without a known outcome",
    )


async def _forget(settings: ManagementSettings, key: str, *, yes: bool) -> None:
    with Journal.locked(settings.journal) as journal:
        for entry in journal.pending:
            if entry.key == key:
                confirm([f"forget {entry.summary}: its outcome stays unknown"], yes=yes)
                journal.settle(entry)
                about = {"organization": entry.organization, "about": entry.summary}
                await tell_action("forget request", **about)
                return
    raise SettingsError("--forget", "a key of endpoints pending", repr(key)[:80])
