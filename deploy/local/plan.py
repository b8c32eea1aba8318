"""The plan of a demo: what Sellfern sends, and what must become of each event."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Final

from deploy.local.demo_handlers import FAILURES, FLAKY_PREFIX
from shared.sellfern import signature


class Kind(StrEnum):
    """What is special about an event."""

    GOOD = "good"
    FLAKY = "its handler fails twice"
    UNSIGNED = "no signature"
    FORGED = "wrong secret"
    ALTERED = "altered afterwards"
    IMPOSTOR = "claiming another organization"
    UNLISTED = "not in the API Reference"
    RUBBISH = "no envelope"
    SHAPELESS = "wrong data"
    STALE = "eight days old"
    EARLY = "from the future"
    REJECTED = "no status of an order"


ACCEPTED: Final = "accepted"
KNOWN: Final = "known"
"""What the ingress answers to a delivery that it takes: the first of its bytes, and any other."""


def accepted(counts: Mapping[str, int]) -> int:
    """How many of the answers that were counted took the delivery in, new or known."""
    return counts.get(ACCEPTED, 0) + counts.get(KNOWN, 0)


REFUSED: Final[Mapping[Kind, str]] = {
    Kind.UNSIGNED: signature.MISSING,
    Kind.FORGED: signature.INVALID,
    Kind.ALTERED: signature.INVALID,
}
"""The kinds that the ingress refuses, with the code of its answer."""

DEAD: Final[Mapping[Kind, str]] = {
    Kind.IMPOSTOR: "organization_mismatch",
    Kind.UNLISTED: "unavailable_event",
    Kind.RUBBISH: "malformed",
    Kind.SHAPELESS: "malformed",
    Kind.STALE: "stale",
    Kind.EARLY: "stale",
    Kind.REJECTED: "rejected",
}
"""The kinds that end as dead letters, with the reason."""


@dataclass(frozen=True, slots=True)
class Organization:
    """One of Sellfern's customers.

    Attributes:
        id: as in the envelope.
        endpoint: the last part of its URL.
        secret: of that endpoint.
        share: of the traffic.
    """

    id: str
    endpoint: str
    secret: str
    share: float


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        id: Sellfern's; empty for a body that is no envelope.
        organization: the id of the one whose endpoint it is sent to.
        kind: what is special about it.
        order_id: the order that it would change.
        at: when it happened.
        type: such as ``order.updated``.
        status: the new status of the order, if it has one.
        job: of its first bytes, which name it where it has no id.
    """

    id: str
    organization: str
    kind: Kind
    order_id: str
    at: datetime
    type: str
    status: str | None
    job: str

    @property
    def name(self) -> str:
        """What it is known by in its organization."""
        # An event without an id is only known by its bytes, as a worker knows it.
        return self.id or self.job

    @property
    def is_applied(self) -> bool:
        """Whether it must change its order, once."""
        return self.kind not in REFUSED and self.kind not in DEAD


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request.

    Attributes:
        number: its place in the plan, from 0.
        event: what is sent.
        endpoint: the last part of the URL.
        body: the bytes.
        headers: with the signature, right or wrong.
        is_again: whether the event has been sent before.
        has_other_bytes: whether the body differs from the event's first.
    """

    number: int
    event: Event
    endpoint: str
    body: bytes
    headers: Mapping[str, str]
    is_again: bool
    has_other_bytes: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What must be known of an order in the end, whatever order its events came in.

    Attributes:
        status: the last.
        timeline: the ids of its events, in the order in which they happened.
    """

    status: str | None
    timeline: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """All of it.

    Attributes:
        seed: which plan it is.
        organizations: the customers.
        events: in the order in which they happened.
        deliveries: in the order in which they are sent.
    """

    seed: int
    organizations: Sequence[Organization]
    events: Sequence[Event]
    deliveries: Sequence[Delivery]

    @cached_property
    def orders(self) -> Mapping[tuple[str, str], Order]:
        """What must be known in the end, by organization and order."""
        histories: dict[tuple[str, str], list[Event]] = defaultdict(list)
        # The worker decides so as well: by the moment, and by the id where two have the same.
        for event in sorted(self.events, key=lambda each: (each.at, each.id)):
            if event.is_applied:
                histories[event.organization, event.order_id].append(event)
        return {order: _final(history) for order, history in histories.items()}

    @cached_property
    def numbers(self) -> Mapping[tuple[str, str], Sequence[int]]:
        """The deliveries of each event, by organization and event."""
        numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
        for delivery in self.deliveries:
            numbers[delivery.event.organization, delivery.event.name].append(delivery.number)
        return numbers

    @cached_property
    def most_shuffled(self) -> tuple[str, str]:
        """An order worth a look: sent out of order, more than once, to a handler that fails."""

        def disorder(name: tuple[str, str]) -> int:
            sent = [self.numbers[name[0], event] for event in self.orders[name].timeline]
            firsts = [numbers[0] for numbers in sent]
            # Two tries more to look at.
            flaky = FAILURES if name[1].startswith(FLAKY_PREFIX) else 0
            return flaky + sum(map(len, sent)) + sum(a > b for a, b in pairwise(firsts))

        return max(self.orders, key=disorder)

    @cached_property
    def kinds(self) -> Mapping[Kind, int]:
        """How many events there are of each kind."""
        return Counter(event.kind for event in self.events)

    @cached_property
    def out_of_order(self) -> int:
        """How many events are sent after a later one of the same order."""
        latest: dict[tuple[str, str], datetime] = {}
        late = 0
        for delivery in self.deliveries:
            event = delivery.event
            if event.is_applied and not delivery.is_again:
                order = (event.organization, event.order_id)
                late += event.at < latest.get(order, event.at)
                latest[order] = max(event.at, latest.get(order, event.at))
        return late


def _final(history: Sequence[Event]) -> Order:
    statuses = [event.status for event in history if event.status is not None]
    return Order(statuses[-1] if statuses else None, tuple(event.id for event in history))
