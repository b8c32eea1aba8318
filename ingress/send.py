"""A delivery as Sellfern would send it: made, signed and posted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time
from uuid import uuid4

import msgspec
from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    InvalidURL,
    NonHttpUrlClientError,
)

from shared.endpoints import Endpoint, Endpoints, nearest
from shared.errors import SellfernError
from shared.secret_doubts import TINY, doubts
from shared.sellfern import signature

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
        "created_at": created_at or _now(),
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
    found = [
        doubt.message
        for secret in endpoint.active(time())[:1]
        for doubt in doubts(secret.value, endpoint.scheme)
        if doubt.code != TINY  # `check` warns of it; Sellfern's own would verify all the same
    ]
    return [f"the secret of endpoint {endpoint.id} {message}" for message in found]


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Post a delivery.

    Raises:
        SendError: the URL is none, or nobody answers there.
    """
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=TIMEOUT_SECONDS)) as session,
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
