"""What Sellfern sends in the demo, and what must become of each event."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Final

from deploy.local.demo_handlers import FAILURES, FLAKY_PREFIX, STATUSES
from deploy.sellfern import shop
from shared.queue.keys import job_id
from shared.sellfern import signature
from shared.sellfern.reference import load_default

FEWEST_EVENTS: Final = 50
"""So that there is one of each kind, and orders to apply the others to."""

REDELIVERED: Final = 0.20
"""The share of the events that are sent twice."""

LATE: Final = 0.10
"""The share of the events that are held back, behind later ones."""

_SPAN: Final = timedelta(hours=2)
_LATE_BY: Final = 300  # deliveries, at the most
_SOON: Final = 8  # deliveries between an event and a redelivery that meets it on its way
_OPEN_ORDERS: Final = 12
_SAME_MOMENT: Final = 0.05  # the share of the events that happen together with the one before
_OTHER_BYTES: Final = 0.5  # the share of the redeliveries that are written otherwise
_TOLD: Final = frozenset(load_default().available_events())
"""What else happens to an order is told to nobody here: the Reference doesn't list it."""


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


SHARES: Final[Mapping[Kind, float]] = {
    Kind.FLAKY: 0.03,
    Kind.UNSIGNED: 0.005,
    Kind.FORGED: 0.01,
    Kind.ALTERED: 0.005,
    Kind.IMPOSTOR: 0.01,
    Kind.UNLISTED: 0.01,
    Kind.RUBBISH: 0.005,
    Kind.SHAPELESS: 0.005,
    Kind.STALE: 0.0075,
    Kind.EARLY: 0.0025,
    Kind.REJECTED: 0.01,
}
"""The share of each kind among the events, one at the least; the rest is good."""

ACCEPTED: Final = "accepted"
KNOWN: Final = "known"
"""What the ingress answers to a delivery that it takes: the first of its bytes, and any other."""

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


def plan(events: int, *, seed: int, now: datetime) -> Plan:
    """Make the plan of a demo; the same arguments make the same plan.

    Args:
        events: how many, redeliveries not counted.
        seed: which plan.
        now: the moment at which the last of the events happens; aware.

    Raises:
        ValueError: that's too few events.
    """
    if events < FEWEST_EVENTS:
        raise ValueError(f"expected {FEWEST_EVENTS} events or more, got {events}")
    random = Random(seed)
    organizations = _organizations(random)
    author = _Author(random, organizations)
    start = now - _SPAN
    drafts = [
        author.write(kind, start + _SPAN * (place + 1) / events)
        for place, kind in enumerate(_kinds(events, random))
    ]
    return Plan(
        seed,
        organizations,
        [draft.event for draft in drafts],
        _deliveries(drafts, {each.id: each for each in organizations}, random),
    )


def _organizations(random: Random) -> list[Organization]:
    return [
        Organization(f"org_{name}", name, f"whsec_{random.getrandbits(128):032x}", share)
        for name, share in (("amber", 0.5), ("birch", 0.3), ("cedar", 0.2))
    ]


def _kinds(events: int, random: Random) -> list[Kind]:
    """The kind of each event; the first are good, so that the others find orders to name."""
    special = [kind for kind, share in SHARES.items() for _ in range(max(1, round(events * share)))]
    rest = [Kind.GOOD] * (events - len(special))
    first, special = rest[: events // 10], special + rest[events // 10 :]
    random.shuffle(special)
    return first + special


@dataclass(frozen=True, slots=True)
class _Draft:
    """An event with its fields as they are to be written."""

    event: Event
    fields: Mapping[str, object]
    body: bytes


class _Author:
    """Writes events."""

    def __init__(self, random: Random, organizations: Sequence[Organization]) -> None:
        self._random = random
        self._organizations = organizations
        self._open: dict[tuple[str, bool], list[shop.Order]] = defaultdict(list)
        self._genuine: dict[str, list[Event]] = defaultdict(list)
        self._last: dict[str, datetime] = {}
        self._imitated: set[str] = set()
        self._orders = 0

    def write(self, kind: Kind, at: datetime) -> _Draft:
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        new = [each for each in self._organizations if not self._genuine[each.id]]
        organization = new[0] if new else self._one_of(self._organizations)
        if kind in (Kind.GOOD, Kind.FLAKY):
            return self._genuine_event(kind, organization, at)
        return self._odd_event(kind, organization, at)

    def _genuine_event(self, kind: Kind, organization: Organization, at: datetime) -> _Draft:
        chosen = self._next_order(organization, at, flaky=kind is Kind.FLAKY)
        if chosen.id in self._last and self._random.random() < _SAME_MOMENT:
            at = self._last[chosen.id]  # then the event's id decides
        self._last[chosen.id] = at
        event_type, data = _next_told(chosen)
        draft = self._draft(kind, organization, at, event_type, data)
        if chosen.coming is None:
            self._open[organization.id, kind is Kind.FLAKY].remove(chosen)
        self._genuine[organization.id].append(draft.event)
        return draft

    def _next_order(self, organization: Organization, at: datetime, *, flaky: bool) -> shop.Order:
        """An order that something more happens to."""
        orders = self._open[organization.id, flaky]
        if len(orders) < (1 if flaky else _OPEN_ORDERS):
            orders.append(self._new_order(at, flaky=flaky))
        return self._random.choice(orders)

    def _new_order(self, at: datetime, *, flaky: bool) -> shop.Order:
        """One of Sellfern's, with an id that fits on a line."""
        self._orders += 1
        new = shop.Order(self._random, f"{self._orders:04}", at.timestamp(), everything=False)
        new.id = f"{FLAKY_PREFIX if flaky else 'ord_'}{self._orders:04}"
        return new

    def _odd_event(self, kind: Kind, organization: Organization, at: datetime) -> _Draft:
        """An event that must change nothing, though it names an order that is there."""
        claimed, event_id = organization.id, ""
        order_id = self._random.choice(self._genuine[organization.id]).order_id
        data: dict[str, object] = {"order_id": order_id, "status": STATUSES[-1]}
        event_type = "order.status_changed"
        match kind:
            case Kind.IMPOSTOR:
                others = [each for each in self._organizations if each is not organization]
                target = self._victim(self._one_of(others))
                claimed, event_id = target.organization, target.id
                data["order_id"] = target.order_id
            case Kind.UNLISTED:
                event_type, data = "ticket.created", {"ticket_id": f"tck_{self._hex(24)}"}
            case Kind.SHAPELESS:
                data = {"order": order_id}
            case Kind.REJECTED:
                data["status"] = "teleported"
            case Kind.STALE:
                at -= timedelta(days=8)
            case Kind.EARLY:
                at += timedelta(hours=1) + _SPAN
            case _:
                pass
        return self._draft(
            kind, organization, at, event_type, data, claimed=claimed, event_id=event_id
        )

    def _draft(
        self,
        kind: Kind,
        organization: Organization,
        at: datetime,
        event_type: str,
        data: Mapping[str, object],
        *,
        claimed: str = "",
        event_id: str = "",
    ) -> _Draft:
        fields = {
            "id": event_id or f"evt_{self._hex(48)}",
            "type": event_type,
            "created_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "organization_id": claimed or organization.id,
            "data": data,
        }
        body = _json(fields)
        if kind is Kind.RUBBISH:
            body = self._rubbish(body)
        event = Event(
            id="" if kind is Kind.RUBBISH else str(fields["id"]),
            organization=organization.id,
            kind=kind,
            order_id=str(data.get("order_id", "")),
            at=at,
            type=event_type,
            status=None if data.get("status") is None else str(data["status"]),
            job=job_id(organization.id, body),
        )
        return _Draft(event, fields, body)

    def _rubbish(self, body: bytes) -> bytes:
        """Signed all right, but no envelope: cut off, or a list."""
        return self._random.choice([body[:-9], b"[" + body + b"]"])

    def _victim(self, organization: Organization) -> Event:
        """A genuine event that nobody has imitated yet."""
        while True:
            event = self._random.choice(self._genuine[organization.id])
            if event.id not in self._imitated:
                self._imitated.add(event.id)
                return event

    def _one_of(self, organizations: Sequence[Organization]) -> Organization:
        (chosen,) = self._random.choices(organizations, [each.share for each in organizations])
        return chosen

    def _hex(self, bits: int) -> str:
        return f"{self._random.getrandbits(bits):0{bits // 4}x}"


def _next_told(chosen: shop.Order) -> tuple[str, Mapping[str, object]]:
    """The next thing that happens to an order and is told; its type and data."""
    while (event_type := str(chosen.coming)) not in _TOLD:
        chosen.happen()
    return event_type, chosen.happen()


def _deliveries(
    drafts: Sequence[_Draft], organizations: Mapping[str, Organization], random: Random
) -> list[Delivery]:
    """Each event once and some again, some of them late."""
    late = set(random.sample(range(len(drafts)), round(len(drafts) * LATE)))
    again = set(random.sample(range(len(drafts)), round(len(drafts) * REDELIVERED)))
    placed: list[tuple[float, int, _Draft, bytes, bool]] = []
    for number, draft in enumerate(drafts):
        place = number + (random.uniform(1, _LATE_BY) if number in late else 0)
        placed.append((place, number, draft, draft.body, False))
        if number in again:
            body = _written_otherwise(draft) if random.random() < _OTHER_BYTES else draft.body
            gap = random.uniform(0, random.choice([_SOON, len(drafts)]))
            placed.append((place + gap, number, draft, body, True))
    placed.sort(key=lambda each: (each[0], each[4]))
    return [
        Delivery(
            number,
            draft.event,
            organizations[draft.event.organization].endpoint,
            _sent(draft, body),
            _headers(draft.event, body, organizations, random),
            is_again,
            body != draft.body,
        )
        for number, (_, _, draft, body, is_again) in enumerate(placed)
    ]


def _written_otherwise(draft: _Draft) -> bytes:
    """The same event in other bytes; what is no envelope stays as it is."""
    if draft.event.kind is Kind.RUBBISH:
        return draft.body
    return json.dumps(dict(reversed([*draft.fields.items()])), indent=1).encode()


def _sent(draft: _Draft, body: bytes) -> bytes:
    return body + b" " if draft.event.kind is Kind.ALTERED else body


def _headers(
    event: Event, body: bytes, organizations: Mapping[str, Organization], random: Random
) -> dict[str, str]:
    unsigned = {"Content-Type": "application/json", "X-Sellfern-Event": event.type}
    if event.kind is Kind.UNSIGNED:
        return unsigned
    signer = organizations[event.organization]
    if event.kind is Kind.FORGED:
        signer = random.choice([each for each in organizations.values() if each is not signer])
    return unsigned | signature.sign(
        signature.SELLFERN, body, signer.secret.encode(), now=0.0, message_id=""
    )


def _final(history: Iterable[Event]) -> Order:
    history = list(history)
    statuses = [event.status for event in history if event.status is not None]
    return Order(statuses[-1] if statuses else None, tuple(event.id for event in history))


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()
