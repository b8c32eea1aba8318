"""The command line of the ingress."""

import asyncio
import os
from datetime import datetime

import click
import msgspec
import uvloop

from ingress.app import serve
from ingress.check import findings
from ingress.management.endpoint_commands import endpoints
from ingress.management.reference_commands import reference
from ingress.management.settings import read_all
from ingress.receive import ROUTE
from ingress.send import (
    DEFAULT_DATA,
    Answer,
    SendError,
    envelope,
    find_endpoint,
    post,
    signed_headers,
    warnings,
)
from ingress.settings import IngressSettings
from shared import logs
from shared.config import Reader
from shared.display import USAGE_ERROR, escape_controls, fail, json_line, refuse
from shared.ending import ending_at_once
from shared.endpoints import nearest
from shared.endpoints_file import EndpointsFile
from shared.env_file import offer_env_file
from shared.errors import SettingsError
from shared.findings import log_warnings, shadows, show
from shared.in_force import print_settings, settings_option
from shared.sellfern.reference_file import load_reference
from shared.setting_names import near_misses


@click.group(invoke_without_command=True)
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
        with Reader(os.environ) as reader:
            settings = IngressSettings.from_reader(reader)
            logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
            file = EndpointsFile(settings.common.endpoints_file, os.environ)
            with ending_at_once():
                reader.note(lambda: file.load(is_told=True))
        log_warnings([*shadows(), *near_misses(os.environ)])
        try:
            uvloop.run(serve(settings, file))
        finally:
            logs.flush(logs.LAST_SECONDS)
    except SettingsError as exc:
        refuse(exc)


@main.command()
@settings_option
@click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
def check(*, settings: bool, as_json: bool) -> None:
    """Look at the settings, the endpoints and the Redis. Exit code 2 when one is wrong."""
    if settings:
        print_settings(IngressSettings.from_reader, read_all, as_json=as_json)
    elif not asyncio.run(_show_findings(as_json=as_json)):
        raise SystemExit(USAGE_ERROR)


async def _show_findings(*, as_json: bool) -> bool:
    fine = True
    async for finding in findings(os.environ):
        show(finding, as_json=as_json)
        fine = fine and finding.level != "error"
    return fine


@main.command()
@click.argument("endpoint")
@click.argument("event_type", metavar="TYPE")
@click.option("--data", help=f"JSON object; default {json_line(DEFAULT_DATA)}.")
@click.option("--id", "event_id", help="Event id; default a new one.")
@click.option("--created-at", help="RFC 3339 time; default now.")
@click.option("--organization", help="Claim another organization than the endpoint's.")
@click.option("--url", help=f"Default http://$INGRESS_HOST:$INGRESS_PORT{ROUTE}ENDPOINT.")
def send(
    endpoint: str,
    event_type: str,
    *,
    data: str | None,
    event_id: str | None,
    created_at: str | None,
    organization: str | None,
    url: str | None,
) -> None:
    """Send an event to an endpoint, signed as Sellfern would. Exit code 1 unless accepted."""
    try:
        settings = IngressSettings.from_environ(os.environ)
        target = find_endpoint(
            EndpointsFile(settings.common.endpoints_file, os.environ).load(), endpoint
        )
        body = envelope(
            target,
            event_type,
            data=_data(data),
            event_id=event_id,
            created_at=_time(created_at),
            organization=organization,
        )
        headers = signed_headers(target, event_type, body)
        reference = load_reference(settings.common)
        for warning in warnings(target):
            click.echo(f"warning: {warning}", err=True)
        answer = asyncio.run(post(url or _default_url(settings, target.id), body, headers))
    except SettingsError as exc:
        refuse(exc)
    except SendError as exc:
        fail(str(exc))
    if answer.is_success and not reference.is_available(event_type):
        hint = nearest(event_type, reference.near_events(event_type))
        end = "the API Reference doesn't list this event, so workers end it as unavailable_event"
        click.echo(f"warning: TYPE: {end}{escape_controls(hint)}", err=True)
    _show(answer)


def _data(text: str | None) -> object:
    if text is None:
        return DEFAULT_DATA
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise SendError(f"--data: expected a JSON object, got {text!r:.80}") from None


def _time(text: str | None) -> str | None:
    """The text as it is, once it is sure to be a time with an offset."""
    if text is None:
        return None
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        expected = "a time with an offset such as 2026-01-31T12:00:00.000Z"
        raise SendError(f"--created-at: expected {expected}, got {text!r:.80}")
    return text


def _default_url(settings: IngressSettings, endpoint_id: str) -> str:
    if settings.address.url is None:
        raise SendError("--url: expected it, since INGRESS_PORT is 0, got nothing")
    return f"{settings.address.url}{ROUTE}{endpoint_id}"


main.add_command(endpoints)
main.add_command(reference)
offer_env_file(main)


def _show(answer: Answer) -> None:
    click.echo(f"{answer.status} {escape_controls(answer.text.strip())}")
    if not answer.is_success:
        raise SystemExit(1)
