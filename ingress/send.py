"""``python -m ingress send``: a delivery as Sellfern would send it, made, signed and posted."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from time import time
from uuid import uuid4

import click
import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, InvalidURL, NonHttpUrlClientError

from ingress.http.receive import ROUTE
from ingress.settings import IngressSettings
from shared.display import escape_controls, fail, json_line, refuse
from shared.endpoints.endpoint import Endpoint, Endpoints, nearest
from shared.endpoints.file import EndpointsFile
from shared.endpoints.secret_doubts import TINY, doubts
from shared.errors import SellfernError, SettingsError
from shared.sellfern import signature
from shared.sellfern.reference_file import load_reference
from shared.sellfern.scheme import write_timestamp

TIMEOUT_SECONDS = 30.0
"""How long an answer may take."""

DEFAULT_DATA: Mapping[str, object] = {"order_id": "ord_1"}
"""The ``data`` of an event that none is given for: what the vendor's sample holds."""

_SHOWN_ANSWER = 2000  # characters


class SendError(SellfernError):
    """A delivery can't be made, or nobody answers; the message is one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: of HTTP.
        text: the body, perhaps cut.
    """

    status: int
    text: str

    @property
    def is_success(self) -> bool:
        """Whether the delivery was accepted."""
        return 200 <= self.status < 300  # noqa: PLR2004  # the statuses of success


def find_endpoint(endpoints: Endpoints, endpoint_id: str) -> Endpoint:
    """The endpoint of this id.

    Raises:
        SendError: there is none; the message names the nearest.
    """
    endpoint = endpoints.get(endpoint_id)
    if endpoint is None:
        known = nearest(endpoint_id, list(endpoints)) or f"; known: {', '.join(endpoints)}"
        raise SendError(f"ENDPOINT: expected one of the endpoints file, got {endpoint_id!r}{known}")
    return endpoint


def envelope(
    endpoint: Endpoint,
    event_type: str,
    *,
    data: object = DEFAULT_DATA,
    event_id: str | None = None,
    created_at: str | None = None,
    organization: str | None = None,
) -> bytes:
    """The body of an event.

    Args:
        endpoint: whose organization it is of.
        event_type: such as ``order.updated``.
        data: what it is about; plain JSON values.
        event_id: by default a new one.
        created_at: RFC 3339; by default now.
        organization: another than the endpoint's.

    Raises:
        SendError: a text has bytes in it that are no UTF-8, as a terminal may give them.
    """
    fields = {
        "id": event_id or f"evt_{uuid4().hex}",
        "type": event_type,
        "created_at": created_at or write_timestamp(time(), "rfc3339"),
        "organization_id": organization or endpoint.organization_id,
        "data": data,
    }
    try:
        return msgspec.json.encode(fields)
    except UnicodeEncodeError as exc:
        raise SendError(f"the event: expected text in UTF-8, got {exc.object!r:.80}") from exc


def signed_headers(endpoint: Endpoint, event_type: str, body: bytes) -> dict[str, str]:
    """The headers of a delivery, signed with the endpoint's first active secret.

    Raises:
        SendError: none of its secrets is active or can be had, or the first one can only verify.
    """
    now = time()
    secrets = endpoint.active_secrets(now)
    if not secrets and endpoint.missing:
        raise SendError(str(endpoint.missing[0].error))
    if not secrets:
        raise SendError(f"ENDPOINT: expected one with an active secret, got {endpoint.id!r}")
    try:
        # The first is the newest: a rotation puts it in front of the others.
        signed = signature.sign(
            endpoint.scheme, body, secrets[0], now=now, message_id=f"msg_{uuid4().hex}"
        )
    except ValueError as exc:  # the endpoints file has let in what verifies
        expected = "one whose first active secret signs"
        raise SendError(f"ENDPOINT: expected {expected}, got {endpoint.id!r}: {exc}") from None
    return {
        "Content-Type": "application/json",
        "User-Agent": "sellfern-ingress-send",
        "X-Sellfern-Event": event_type,
        **signed,
    }


def warnings(endpoint: Endpoint) -> list[str]:
    """Why what Sellfern signs might not verify though what we sign does: we sign by that secret."""
    return [
        f"the secret of endpoint {endpoint.id} {doubt.message}"
        for secret in endpoint.active(time())[:1]
        for doubt in doubts(secret.value, endpoint.scheme)
        if doubt.code != TINY  # `check` warns of it; Sellfern's own would verify all the same
    ]


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post a delivery.

    Raises:
        SendError: the URL is none, or nobody answers there.
    """
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            # A redirect would take a signed delivery to where nobody has sent it.
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            text = await response.text(errors="replace")
            return Answer(response.status, text[:_SHOWN_ANSWER])
    except TimeoutError as exc:
        expected = f"an answer within {TIMEOUT_SECONDS:g} seconds"
        raise SendError(f"--url: expected {expected}, got none from {url}") from exc
    except (InvalidURL, NonHttpUrlClientError) as exc:
        expected = "an http:// or https:// URL"
        raise SendError(f"--url: expected {expected}, got {url!r:.80}") from exc
    except (ClientError, OSError, ValueError) as exc:
        got = str(exc) or type(exc).__name__
        raise SendError(f"--url: expected an answer from {url}, got: {got}") from exc


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
        # Before the delivery: what is wrong here is told without one.
        reference = load_reference(settings.common)
        for warning in warnings(target):
            click.echo(f"warning: {warning}", err=True)
        answer = asyncio.run(post(url or _default_url(settings, target.id), body, headers))
    except SettingsError as exc:
        refuse(exc)
    except SendError as exc:
        fail(str(exc))
    if answer.is_success and not reference.is_available(event_type):
        # The ingress doesn't read the body, so its 202 says nothing of that.
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
