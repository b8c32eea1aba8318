"""The worker's command line."""

import asyncio
import os
import sys

import click
from redis.asyncio import Redis

from shared import display, logs
from shared.config import Reader
from shared.ending import ending_at_once
from shared.endpoints_file import EndpointsFile
from shared.env_file import offer_env_file
from shared.errors import SettingsError
from shared.findings import log_warnings, shadows, show
from shared.in_force import print_settings, settings_option
from shared.sellfern.reference_file import load_reference
from shared.setting_names import near_misses
from worker import contention, projection
from worker.app import run as run_worker
from worker.asking import ask, known_organization
from worker.check import findings
from worker.console.command import console
from worker.console.settings import ConsoleSettings
from worker.dead_letter_commands import dead_letters
from worker.doubts import Parts, doubts
from worker.loading import load_handlers
from worker.settings import WorkerSettings
from worker.status_command import status

_yes_option = click.option("--yes", is_flag=True, help="Though nobody knows the organization.")
_json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")


@click.group(invoke_without_command=True)
@click.version_option(package_name="sellfern-webhooks")
@click.pass_context
def main(context: click.Context) -> None:
    """Handle accepted Sellfern events; without a command, run a worker."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
def run() -> None:
    """Run a worker until it is told to stop (SIGTERM)."""
    try:
        with Reader(os.environ) as reader:
            settings = WorkerSettings.from_reader(reader)
            logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
            endpoints = EndpointsFile(settings.common.endpoints_file, os.environ, verifies=False)
            with ending_at_once():
                reader.note(lambda: endpoints.load(is_told=True))
            reader.note(lambda: load_reference(settings.common))
            handlers = load_handlers(settings.handlers)
        parts = Parts(handlers, load_reference(settings.common), endpoints.current)
        log_warnings([*shadows(), *near_misses(os.environ), *doubts(parts)])
        try:
            code = run_worker(settings, endpoints, handlers)
        finally:
            logs.flush(logs.LAST_SECONDS)
        sys.exit(code)
    except SettingsError as exc:
        display.refuse(exc)


@main.command()
@click.argument("organization")
@click.argument("key_prefix", default="")
@_yes_option
@_json_option
def state(organization: str, key_prefix: str, *, yes: bool, as_json: bool) -> None:
    """Show an organization's committed state as JSON lines."""
    del as_json  # it is JSON either way; the option is there as in every command that lists
    name = known_organization(organization, yes=yes)

    async def show(redis: Redis) -> None:
        async for value in projection.stored_values(redis, name, key_prefix):
            click.echo(display.json_line(value))

    ask(show)


@main.command()
@click.argument("organization")
@click.option("--why", default="by an operator", show_default=True, help="Shown by status.")
@_yes_option
def pause(organization: str, *, why: str, yes: bool) -> None:
    """Let an organization's events wait until resume. The ingress goes on accepting them."""
    name = known_organization(organization, yes=yes)
    if ask(lambda redis: contention.pause(redis, name, why)):
        click.echo(f"{name} is paused; its events wait")
    else:
        click.echo(f"{name} was paused already")


@main.command()
@click.argument("organization")
@_yes_option
def resume(organization: str, *, yes: bool) -> None:
    """Let an organization's events go on that wait by a pause or its breaker, in their order."""
    name = known_organization(organization, yes=yes)
    if ask(lambda redis: contention.resume(redis, name)):
        click.echo(f"{name} goes on")
    else:
        click.echo(f"{name} was neither paused nor held by its breaker")


@main.command()
@settings_option
@_json_option
def check(*, settings: bool, as_json: bool) -> None:
    """Look at all that a start needs, and at what may not be meant so. Exit code 2 for errors."""
    if settings:
        print_settings(ConsoleSettings.from_reader, as_json=as_json)  # and the worker's
        return
    found = asyncio.run(findings(os.environ))
    for finding in found:
        show(finding, as_json=as_json)
    if any(finding.level == "error" for finding in found):
        raise SystemExit(display.USAGE_ERROR)


main.add_command(console)
main.add_command(dead_letters)
main.add_command(status)
offer_env_file(main)
