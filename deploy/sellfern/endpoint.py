"""The endpoints that are registered, each of one organization."""

import secrets
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

from deploy.sellfern.answer import invalid, not_found
from deploy.sellfern.clock import Clock, timestamp
from deploy.sellfern.draft import Draft
from shared.settings.config import Secret

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
        now = self._clock()
        endpoint = Endpoint(
            str(uuid4()),
            organization,
            url,
            tuple(events),
            enabled,
            Secret(secret or f"whsec_{secrets.token_hex(24)}"),
            now,
            now,
        )
        self._endpoints[endpoint.id] = endpoint
        return endpoint

    def change(self, endpoint: Endpoint, draft: Draft) -> Endpoint:
        """Replace the fields that a draft names.

        Raises:
            Refused: the organization has this URL already.
        """
        if draft.url is not None:
            self._check_url(endpoint.organization, draft.url, own_id=endpoint.id)
        changed = replace(
            endpoint,
            url=endpoint.url if draft.url is None else draft.url,
            events=endpoint.events if draft.events is None else draft.events,
            enabled=endpoint.enabled if draft.enabled is None else draft.enabled,
            updated_at=self._clock(),
        )
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
