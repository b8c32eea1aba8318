"""Endpoints: what a request wants one to be, checked, and those that are registered."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from deploy.sellfern.answer import invalid, not_found
from deploy.sellfern.event import Clock, timestamp
from shared.settings.secret import Secret

LONGEST_URL: Final = 2048
MOST_EVENTS: Final = 100

_FIELDS: Final = ("url", "events", "enabled")
_URL: Final = f"an absolute http or https URL of at most {LONGEST_URL} characters"
_EVENTS: Final = f"1 to {MOST_EVENTS} different names of events"

Issues = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Draft:
    """An endpoint's fields; None is one that the request doesn't name."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    enabled: bool | None = None


def read_draft(body: bytes, known: Collection[str], *, complete: bool) -> Draft:
    """Read the body of a create or a change.

    Args:
        body: of the request.
        known: the names of events.
        complete: whether ``url`` and ``events`` must be there; otherwise one field must.

    Raises:
        Refused: it is not as documented; the details name every place.
    """
    fields = _fields(body)
    # All issues at once: who mends one at a time would ask as many times.
    issues: Issues = [(name, "no such field") for name in fields if name not in _FIELDS]
    if "url" in fields and not _is_url(fields["url"]):
        issues.append(("url", f"expected {_URL}"))
    if "events" in fields:
        issues += _about_events(fields["events"], known)
    if "enabled" in fields and not isinstance(fields["enabled"], bool):
        issues.append(("enabled", "expected true or false"))
    issues += _missing(fields, complete=complete)
    if issues:
        raise invalid("the endpoint is not as documented", *issues)
    return msgspec.convert(fields, Draft)


def _fields(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("the body is not a JSON object", ("", "expected a JSON object")) from None


def _missing(fields: dict[str, object], *, complete: bool) -> Issues:
    if complete:
        return [(name, "required") for name in ("url", "events") if name not in fields]
    if not fields:
        return [("", f"expected one of {', '.join(_FIELDS)}")]
    return []


def _is_url(value: object) -> bool:
    if not isinstance(value, str) or len(value) > LONGEST_URL:
        return False
    if not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        # It is parsed only when it is asked for, and raises then.
        _ = parts.port
    except ValueError:
        return False
    plain = parts.username is None and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain


def _about_events(value: object, known: Collection[str]) -> Issues:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_EVENTS:
        return [("events", f"expected {_EVENTS}")]
    issues: Issues = []
    for index, name in enumerate(value):
        if not isinstance(name, str) or name not in known:
            issues.append((f"events[{index}]", "no such event"))
        elif name in value[:index]:
            issues.append((f"events[{index}]", "there already"))
    return issues


MOST: Final = 100
"""Endpoints that one organization may have."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registered endpoint.

    Attributes:
        id: a UUID.
        organization: whose it is.
        url: where its deliveries go.
        events: the names of the events that it gets.
        enabled: whether it gets any.
        secret: what its deliveries are signed with.
        created_at: seconds since the epoch.
        updated_at: seconds since the epoch.
    """

    id: str
    organization: str
    url: str
    events: tuple[str, ...]
    enabled: bool
    secret: Secret
    created_at: float
    updated_at: float

    def shown(self) -> dict[str, Any]:
        """The endpoint as the management API shows it: without its secret."""
        return {
            "id": self.id,
            "url": self.url,
            "events": list(self.events),
            "enabled": self.enabled,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
        }

    def takes(self, event_type: str) -> bool:
        """Whether an event goes to it."""
        return self.enabled and event_type in self.events


class Endpoints:
    """All endpoints.

    Args:
        clock: tells the time.
        same_url: whether an organization may register one URL twice.
    """

    def __init__(self, clock: Clock, *, same_url: bool = False) -> None:
        self._clock = clock
        self._same_url = same_url
        self._endpoints: dict[str, Endpoint] = {}

    def of(self, organization: str) -> list[Endpoint]:
        """An organization's endpoints, the oldest first."""
        return [each for each in self._endpoints.values() if each.organization == organization]

    def find(self, endpoint_id: str) -> Endpoint | None:
        """An endpoint as it is now, whosoever it is."""
        return self._endpoints.get(endpoint_id)

    def get(self, organization: str, endpoint_id: str) -> Endpoint:
        """One of an organization's endpoints.

        Raises:
            Refused: it has no such endpoint; that another has one makes no difference.
        """
        endpoint = self._endpoints.get(endpoint_id)
        # Another organization's looks like none at all.
        if endpoint is None or endpoint.organization != organization:
            raise not_found()
        return endpoint

    def create(
        self,
        organization: str,
        url: str,
        events: tuple[str, ...],
        *,
        enabled: bool = True,
        secret: str | None = None,
    ) -> Endpoint:
        """Register an endpoint; its secret is made up unless it is given.

        Raises:
            Refused: the organization has this URL already, or too many.
        """
        if len(self.of(organization)) >= MOST:
            raise invalid("too many endpoints", ("", f"expected at most {MOST} endpoints"))
        self._check_url(organization, url, own_id="")
        own, now = Secret(secret or f"whsec_{secrets.token_hex(24)}"), self._clock()
        endpoint = Endpoint(str(uuid4()), organization, url, events, enabled, own, now, now)
        self._endpoints[endpoint.id] = endpoint
        return endpoint

    def change(self, endpoint: Endpoint, draft: Draft) -> Endpoint:
        """Replace the fields that a draft names.

        Raises:
            Refused: the organization has this URL already.
        """
        if draft.url is not None:
            self._check_url(endpoint.organization, draft.url, own_id=endpoint.id)
        named = {name: value for name in _FIELDS if (value := getattr(draft, name)) is not None}
        changed = replace(endpoint, **named, updated_at=self._clock())
        # Exchanged, not changed: a delivery under way goes on with the one that it has.
        self._endpoints[endpoint.id] = changed
        return changed

    def remove(self, endpoint: Endpoint) -> None:
        """Forget an endpoint and its secret."""
        del self._endpoints[endpoint.id]

    def wanted(self, organization: str) -> frozenset[str]:
        """The events that some enabled endpoint of an organization gets."""
        enabled = [each for each in self.of(organization) if each.enabled]
        return frozenset(name for each in enabled for name in each.events)

    def _check_url(self, organization: str, url: str, *, own_id: str) -> None:
        """Nothing published allows one URL twice, so the simulator doesn't either."""
        if self._same_url:
            return
        if any(each.url == url and each.id != own_id for each in self.of(organization)):
            raise invalid("this URL is registered already", ("url", "expected another URL"))
