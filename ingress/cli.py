"""The command line of the ingress."""

import os
from typing import Final

import click
import uvloop

from ingress.app import serve
from ingress.settings import IngressSettings
from shared.display import refuse
from shared.endpoints.file import EndpointsFile
from shared.errors import SettingsError
from shared.observe import logs
from shared.program.commands import LazyGroup
from shared.program.env_file import offer_env_file
from shared.program.findings import log_warnings, shadows
from shared.program.setting_names import near_misses
from shared.program.stopping import ending_at_once
from shared.settings.reader import Reader

_COMMANDS: Final = {
    "check": "ingress.check:check",
    "endpoints": "ingress.management.endpoint_commands:endpoints",
    "reference": "ingress.management.reference_commands:reference",
    "send": "ingress.send:send",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, invoke_without_command=True)
@click.version_option(package_name="sellfern-webhooks")
@click.pass_context
def main(context: click.Context) -> None:
    """Take in Sellfern's deliveries; without a command, serve."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command("serve")
def run() -> None:
    """Take deliveries in until told to stop (SIGTERM)."""
    try:
        # A file system that hangs is waited for, and the loop that would take SIGTERM isn't there.
        with ending_at_once():
            _serve()
    except SettingsError as exc:
        refuse(exc)


def _serve() -> None:
    with Reader(os.environ) as reader:
        settings = IngressSettings.from_reader(reader)
        # Before the endpoints are read, which may be waited for: somebody has to be told.
        logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
        file = EndpointsFile(settings.common.endpoints_file, os.environ)
        reader.note(lambda: file.load(is_told=True))
    log_warnings([*shadows(), *near_misses(os.environ)])
    try:
        uvloop.run(serve(settings, file))
    finally:
        # Lines are written by a thread that ends with the process; the last ones say why it does.
        logs.flush(logs.LAST_SECONDS)


offer_env_file(main)
