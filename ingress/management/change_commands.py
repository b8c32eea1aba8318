"""The commands that change what Sellfern has of an endpoint, or have it do something."""

from collections.abc import Sequence
from typing import TextIO

import click

from ingress.http.receive import ROUTE
from ingress.management.client import CHANGE, CREATE, LIST, REMOVE, TEST, RemoteEndpoint
from ingress.management.context import Reading, Writing, writing
from ingress.management.matching import endpoint_url, is_of, the_one
from ingress.management.observation import Ingresses
from ingress.management.registration import Wanted, register
from ingress.management.rotation import NEEDED, Options, Rotating
from ingress.management.running import (
    Target,
    about,
    about_an_endpoint,
    copied_secret,
    done,
    organization_option,
    running,
    seconds,
    secret_file_option,
    warn_of_readers,
)
from ingress.management.settings import ManagementSettings, base_url
from shared import display
from shared.endpoints.endpoint import ENDPOINT_PATTERN
from shared.errors import SettingsError
from shared.program.commands import json_option, yes_option
from shared.settings.reader import NOTHING


@click.command()
@running
@about_an_endpoint
@yes_option
@json_option
async def enable(target: Target, *, yes: bool, as_json: bool) -> None:
    """Let Sellfern deliver to an endpoint."""
    await _switch(target, "enable", yes=yes, as_json=as_json)


@click.command()
@running
@about_an_endpoint
@yes_option
@json_option
async def disable(target: Target, *, yes: bool, as_json: bool) -> None:
    """Let Sellfern deliver nothing to an endpoint; what happens meanwhile isn't sent later."""
    await _switch(target, "disable", yes=yes, as_json=as_json)


async def _switch(target: Target, verb: str, *, yes: bool, as_json: bool) -> None:
    doing = {"action": f"{verb} endpoint", "about": target.endpoint}
    async with writing(target.organization, needs=[LIST, CHANGE], yes=yes, **doing) as context:
        remote = await registration_of(context, target)
        context.confirm([f"{verb} {remote.id} ({remote.url}) at Sellfern"])
        # Nothing of the answer has to be kept.
        async with context.client.switching(remote.id, enabled=verb == "enable"):
            pass
        row = about(verb, target.endpoint, context.organization, remote.id, url=remote.url)
        done(f"{remote.id} is {verb}d", row, as_json=as_json)


@click.command()
@running
@click.option("--keep-local", is_flag=True, help="Leave it in the endpoints file.")
@about_an_endpoint
@yes_option
@json_option
async def remove(target: Target, *, keep_local: bool, yes: bool, as_json: bool) -> None:
    """Remove an endpoint at Sellfern and from the endpoints file."""
    endpoint, note = target.endpoint, f"removal/{target.endpoint}"
    doing = {"action": "remove endpoint", "about": endpoint}
    async with writing(target.organization, needs=[LIST, REMOVE], yes=yes, **doing) as context:
        remote = context.journal.noted(note, RemoteEndpoint)
        if remote is None or not context.client.has_begun_removing(remote.id):
            remote = await registration_of(context, target)
        # Else it may be gone already, and Sellfern's list can't tell which one it was.
        context.confirm(_removal(context, endpoint, remote, keep_local=keep_local))
        context.journal.note(note, remote)
        async with context.client.removing(remote.id):
            # Within the block: whoever dies here asks again, and does this once more.
            if not keep_local:
                context.editor.remove(endpoint)
            context.journal.note(note, None)
        row = about("remove", endpoint, context.organization, remote.id, url=remote.url)
        done(f"{remote.id} is removed", row, as_json=as_json)


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
@running
@about_an_endpoint
@yes_option
@json_option
async def send_test(target: Target, *, yes: bool, as_json: bool) -> None:
    """Have Sellfern send a test delivery; handlers will see it."""
    doing = {"action": "test endpoint", "about": target.endpoint}
    async with writing(target.organization, needs=[LIST, TEST], yes=yes, **doing) as context:
        remote = await registration_of(context, target)
        context.confirm([f"have a test delivery sent to {remote.url}; handlers will see it"])
        async with context.client.testing(remote.id) as answer:
            told = answer
        row = about("test", target.endpoint, context.organization, remote.id, url=remote.url)
        answered = f"Sellfern answered {display.json_line(told)}"
        done(answered, row | {"answer": told}, as_json=as_json)


async def registration_of(context: Reading, target: Target) -> RemoteEndpoint:
    """What Sellfern has for an endpoint of the organization.

    Raises:
        SellfernError: it can't be told.
    """
    # A typing mistake is told before Sellfern is asked.
    context.mine(target.endpoint)
    return the_one(await context.client.endpoints(), target.endpoint, target.remote_id)


@click.command("register")
@running
@click.argument("endpoint")
@click.option("--url", help=f"Default $INGRESS_PUBLIC_URL{ROUTE}ENDPOINT.")
@click.option("--event", "events", multiple=True, help="Default all that are available.")
@click.option("--disabled", is_flag=True, help="Without deliveries until it is enabled.")
@click.option("--show-secret", is_flag=True, help="Print the secret, too.")
@organization_option
@secret_file_option
@yes_option
@json_option
async def register_endpoint(
    endpoint: str,
    *,
    url: str | None,
    events: tuple[str, ...],
    disabled: bool,
    organization: str | None,
    secret_file: TextIO | None,
    show_secret: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Register an endpoint at Sellfern and add it with its secret to the endpoints file."""
    doing = {"action": "register endpoint", "about": endpoint}
    async with writing(organization, needs=[CREATE], yes=yes, **doing) as context:
        wanted = Wanted(
            endpoint,
            _url(endpoint, url, context.settings),
            tuple(dict.fromkeys(events)) or tuple(context.reference.available_events()),
            enabled=not disabled,
        )
        created, secret = await register(context, wanted, lambda: copied_secret(secret_file))
        warn_of_readers(context)
        whose, remote_id = created.organization, created.remote_id
        done(
            f"{endpoint} is registered as {remote_id} and in {context.editor.path}",
            about("register", endpoint, whose, remote_id, url=created.url),
            as_json=as_json,
            secret=secret if show_secret else None,
        )


def _url(endpoint_id: str, url: str | None, settings: ManagementSettings) -> str:
    if not ENDPOINT_PATTERN.fullmatch(endpoint_id):
        got = repr(endpoint_id)[:80]
        raise SettingsError("ENDPOINT", "1 to 64 characters of A-Z a-z 0-9 _ -", got)
    if url is None:
        # Nobody could guess by which name Sellfern reaches this machine.
        if settings.public_url is None:
            expected = "the URL that Sellfern reaches this ingress by (or --url)"
            raise SettingsError("INGRESS_PUBLIC_URL", expected, NOTHING)
        return endpoint_url(settings.public_url, endpoint_id)
    # Any host may be meant, but a delivery has to arrive at this very endpoint.
    base = base_url("--url", url)
    if not is_of(base, endpoint_id):
        raise SettingsError("--url", f"a URL that ends in {ROUTE}{endpoint_id}", repr(url)[:200])
    return base


@click.command()
@running
@click.option("--abort", is_flag=True, help="Go back: remove the second registration.")
@click.option("--test", is_flag=True, help="Have a test delivery made; handlers will see it.")
@click.option("--wait", callback=seconds, default="10m", show_default=True, help="For a delivery.")
@click.option(
    "--grace",
    callback=seconds,
    default="1h",
    show_default=True,
    help="For which the old secret is accepted after its registration is gone.",
)
@click.option(
    "--ingress",
    "ingresses",
    multiple=True,
    help="Admin site, http://HOST:PORT, once for each ingress; default this machine's.",
)
@about_an_endpoint
@secret_file_option
@yes_option
@json_option
async def rotate(
    target: Target,
    *,
    abort: bool,
    test: bool,
    wait: float,
    grace: float,
    ingresses: tuple[str, ...],
    secret_file: TextIO | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Replace an endpoint's secret without refusing a delivery; run it again to go on."""
    endpoint = target.endpoint
    chosen = Options(target.remote_id, test, wait, grace, lambda: copied_secret(secret_file))
    doing = {"action": "abort rotation" if abort else "rotate secret", "about": endpoint}
    async with writing(target.organization, needs=NEEDED, yes=yes, **doing) as context:
        context.mine(endpoint)
        # The admin sites are asked with no API key: the session has none of its own.
        known = Ingresses(context.session, _admin_urls(ingresses, context.settings))
        rotating = Rotating(context, endpoint, known, chosen)
        rotation = await (rotating.abort() if abort else rotating.run())
        warn_of_readers(context)
        gone, left = rotation.old_id, rotation.new_id
        if abort:
            gone, left = left, gone
        action = "abort" if abort else "rotate"
        done(
            f"{endpoint}: Sellfern signs with the secret of {left} alone",
            # Going back before anything was registered removes nothing.
            about(action, endpoint, rotation.organization, left, removed_id=gone or None),
            as_json=as_json,
        )


def _admin_urls(given: Sequence[str], settings: ManagementSettings) -> list[str]:
    if given:
        return [base_url("--ingress", url) for url in given]
    if settings.admin_url is None:
        raise SettingsError("--ingress", "it, since INGRESS_ADMIN_PORT is 0", NOTHING)
    return [settings.admin_url]
