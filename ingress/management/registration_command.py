"""The command that registers an endpoint."""

from typing import TextIO

import click

from ingress.http.receive import ROUTE
from ingress.management import options
from ingress.management.client import CREATE
from ingress.management.context import writing
from ingress.management.matching import endpoint_url, is_of
from ingress.management.registration import Wanted, register
from ingress.management.running import done, run, warn_of_readers
from ingress.management.settings import ManagementSettings, base_url
from shared.endpoints.endpoint import ENDPOINT_PATTERN
from shared.errors import SettingsError
from shared.program.options import json_option, yes_option
from shared.settings.config import NOTHING


@click.command("register")
@options.endpoint_argument
@click.option("--url", help=f"Default $INGRESS_PUBLIC_URL{ROUTE}ENDPOINT.")
@click.option("--event", "events", multiple=True, help="Default all that are available.")
@click.option("--disabled", is_flag=True, help="Without deliveries until it is enabled.")
@click.option("--show-secret", is_flag=True, help="Print the secret, too.")
@options.organization_option
@options.secret_file_option
@yes_option
@json_option
def register_endpoint(
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

    async def go() -> None:
        async with writing(organization, needs=[CREATE], yes=yes) as context:
            wanted = Wanted(
                endpoint,
                _url(endpoint, url, context.settings),
                tuple(dict.fromkeys(events)) or tuple(context.reference.available_events()),
                enabled=not disabled,
            )
            created, secret = await register(
                context, wanted, lambda: options.copied_secret(secret_file)
            )
            warn_of_readers(context)
            done(
                f"{endpoint} is registered as {created.remote_id} and in {context.editor.path}",
                {
                    "action": "register",
                    "endpoint": endpoint,
                    "organization": created.organization,
                    "remote_id": created.remote_id,
                    "url": created.url,
                },
                as_json=as_json,
                secret=secret if show_secret else None,
            )

    run(go(), "register", endpoint)


def _url(endpoint_id: str, url: str | None, settings: ManagementSettings) -> str:
    if not ENDPOINT_PATTERN.fullmatch(endpoint_id):
        got = repr(endpoint_id)[:80]
        raise SettingsError("ENDPOINT", "1 to 64 characters of A-Z a-z 0-9 _ -", got)
    if url is None:
        if settings.public_url is None:
            expected = "the URL that Sellfern reaches this ingress by (or --url)"
            raise SettingsError("INGRESS_PUBLIC_URL", expected, NOTHING)
        return endpoint_url(settings.public_url, endpoint_id)
    base = base_url("--url", url)
    if not is_of(base, endpoint_id):
        raise SettingsError("--url", f"a URL that ends in {ROUTE}{endpoint_id}", repr(url)[:200])
    return base
