"""The command that rotates an endpoint's secret."""

from collections.abc import Sequence
from typing import TextIO

import click

from ingress.management import options
from ingress.management.context import writing
from ingress.management.observation import Ingresses
from ingress.management.rotation import NEEDED, Options, Rotating
from ingress.management.running import done, run, warn_of_readers
from ingress.management.settings import ManagementSettings, base_url
from shared.errors import SettingsError
from shared.program.options import json_option, yes_option
from shared.settings.config import NOTHING


@click.command()
@options.endpoint_argument
@click.option("--abort", is_flag=True, help="Go back: remove the second registration.")
@click.option("--test", is_flag=True, help="Have a test delivery made; handlers will see it.")
@click.option(
    "--wait", callback=options.seconds, default="10m", show_default=True, help="For a delivery."
)
@click.option(
    "--grace",
    callback=options.seconds,
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
@options.id_option
@options.organization_option
@options.secret_file_option
@yes_option
@json_option
def rotate(
    endpoint: str,
    *,
    abort: bool,
    test: bool,
    wait: float,
    grace: float,
    ingresses: tuple[str, ...],
    remote_id: str | None,
    organization: str | None,
    secret_file: TextIO | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Replace an endpoint's secret without refusing a delivery; run it again to go on."""
    chosen = Options(remote_id, test, wait, grace, lambda: options.copied_secret(secret_file))

    async def go() -> None:
        async with writing(organization, needs=NEEDED, yes=yes) as context:
            context.mine(endpoint)
            known = Ingresses(context.session, _admin_urls(ingresses, context.settings))
            rotating = Rotating(context, endpoint, known, chosen)
            rotation = await (rotating.abort() if abort else rotating.run())
            warn_of_readers(context)
            gone, left = rotation.old_id, rotation.new_id
            if abort:
                gone, left = left, gone
            done(
                f"{endpoint}: Sellfern signs with the secret of {left} alone",
                {
                    "action": "abort" if abort else "rotate",
                    "endpoint": endpoint,
                    "organization": rotation.organization,
                    "remote_id": left,
                    "removed_id": gone or None,
                },
                as_json=as_json,
            )

    run(go(), "rotate", endpoint)


def _admin_urls(given: Sequence[str], settings: ManagementSettings) -> list[str]:
    if given:
        return [base_url("--ingress", url) for url in given]
    if settings.admin_url is None:
        raise SettingsError("--ingress", "it, since INGRESS_ADMIN_PORT is 0", NOTHING)
    return [settings.admin_url]
