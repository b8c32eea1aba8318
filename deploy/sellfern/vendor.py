"""Sellfern itself, as far as webhooks go: who has keys, what is registered, what happens."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from deploy.sellfern.api_key import ApiKeys, Quota
from deploy.sellfern.delivery import Deliverer, Deliveries, Delivery
from deploy.sellfern.endpoint import Endpoints
from deploy.sellfern.event import Clock, Event
from deploy.sellfern.fault import Faults
from deploy.sellfern.idempotency import Idempotency
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.shop import Shop
from shared.errors import SettingsError
from shared.sellfern.reference import load_default

EVENTS = tuple(load_default().events)
"""The names of all events, the legacy ones among them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A management request as it came.

    Attributes:
        method: of HTTP.
        path: as it was asked for.
        idempotency_key: that it bore, if it did.
        outcome: the status of the answer, or the kind of the fault that hit it.
    """

    method: str
    path: str
    idempotency_key: str | None
    outcome: str


class Sellfern:
    """The simulated vendor.

    Args:
        api_keys: who may manage what.
        settings: the knobs.
        clock: tells the time.
    """

    def __init__(self, api_keys: ApiKeys, settings: SimulatorSettings, clock: Clock) -> None:
        self.url = ""
        """The base URL, once it listens."""
        self.api_keys = api_keys
        self.settings = settings
        self.clock = clock
        self.endpoints = Endpoints(clock, same_url=settings.same_url)
        self.deliveries = Deliveries(settings.kept)
        self.idempotency = Idempotency(clock)
        self.quota = Quota(settings.rate_limit, clock)
        # Faults are drawn apart, so that requests don't change which events happen.
        draws = Random(settings.seed)  # noqa: S311  # shares, not keys
        self.faults = Faults(draws.random, settings.faults)
        self.requests: deque[Seen] = deque(maxlen=settings.kept)
        """The latest management requests, the oldest first."""
        self.events = 0
        """How many have happened."""
        self.complete = asyncio.Event()
        """Set once as many events as ``settings.events`` have happened."""
        self.closing = asyncio.Event()
        """Set once it is about to end."""
        self._shops = {name: Shop(name, settings.seed) for name in api_keys.organizations}
        self._chance = Random(settings.seed)  # noqa: S311  # whose event is next
        self._deliverer: Deliverer | None = None

    @property
    def deliverer(self) -> Deliverer:
        """What delivers; there is one while the simulator is open."""
        if self._deliverer is None:
            raise RuntimeError("the simulator is not open")
        return self._deliverer

    @deliverer.setter
    def deliverer(self, deliverer: Deliverer) -> None:
        self._deliverer = deliverer

    def turn(self, settings: SimulatorSettings) -> None:
        """Go on with other knobs; those of the start only, such as ``seed``, change nothing."""
        self.settings = self.deliverer.settings = settings

    async def publish(
        self,
        event_type: str,
        organization: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> tuple[Event, list[Delivery]]:
        """Let an event happen and begin to deliver it.

        Args:
            event_type: such as ``order.updated``.
            organization: whose; it may be left out where only one has a key.
            data: of the event; by default something consistent.

        Raises:
            SettingsError: there is no such event or organization.
        """
        if event_type not in EVENTS:
            raise SettingsError("type", f"one of {', '.join(EVENTS)}", repr(event_type)[:80])
        # Each organization has a shop of its own, so that what one sells doesn't change what
        # happens in another's.
        shop = self._shops[self._organization(organization)]
        return await self._publish(shop.event(event_type, self.clock(), data))

    async def deliver(
        self,
        event_type: str = "order.updated",
        *,
        organization: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> list[Delivery]:
        """Let an event happen and wait for the end of its deliveries, good or bad.

        Raises:
            SettingsError: there is no such event or organization.
        """
        _, deliveries = await self.publish(event_type, organization, data)
        for delivery in deliveries:
            await delivery.ended.wait()
        return deliveries

    async def happen(self) -> bool:
        """Let something happen that somebody wants to know; false if nobody wants anything."""
        wanted = {name: self.endpoints.wanted(name) for name in self._shops}
        # What nobody has subscribed to isn't made: most of it would be thrown away.
        waiting = [name for name, types in wanted.items() if types]
        if not waiting or self.complete.is_set():
            return False
        chosen = self._chance.choice(waiting)
        await self._publish(self._shops[chosen].next_event(self.clock(), wanted[chosen]))
        return True

    async def test(self, organization: str, endpoint_id: str) -> Delivery:
        """Make a test delivery to an endpoint of an organization, of an event that it takes.

        Raises:
            Refused: it has no such endpoint.
        """
        endpoint = self.endpoints.get(organization, endpoint_id)
        event = self._shops[organization].event(endpoint.events[0], self.clock())
        # A handler can tell it from what really happened.
        marked = replace(event, data={**event.data, "test": True})
        return await self.deliverer.test(endpoint, marked)

    async def settled(self) -> None:
        """Wait until no delivery is pending."""
        # Those of now: waiting for those that come meanwhile as well might never end.
        for delivery in self.deliveries.pending:
            await delivery.ended.wait()

    async def _publish(self, event: Event) -> tuple[Event, list[Delivery]]:
        self.events += 1
        if self.settings.events is not None and self.events >= self.settings.events:
            self.complete.set()
        return event, await self.deliverer.publish(event)

    def _organization(self, name: str | None) -> str:
        known = list(self._shops)
        if name is None and len(known) == 1:
            return known[0]
        if name is None or name not in self._shops:
            raise SettingsError("organization", f"one of {', '.join(known)}", repr(name)[:80])
        return name
