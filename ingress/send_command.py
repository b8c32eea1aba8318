"""``python -m ingress send``."""

import asyncio
import os
from datetime import datetime

import click
import msgspec

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
from shared.display import escape_controls, fail, json_line, refuse
from shared.endpoints import nearest
from shared.endpoints_file import EndpointsFile
from shared.errors import SettingsError
from shared.sellfern.reference_file import load_reference


@click.command()
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


def _show(answer: Answer) -> None:
    click.echo(f"{answer.status} {escape_controls(answer.text.strip())}")
    if not answer.is_success:
        raise SystemExit(1)
