"""Makes the plan of a demo: events of many kinds, late, twice, or in other bytes."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Final

from deploy.local.demo_handlers import FLAKY_PREFIX, STATUSES
from deploy.local.plan import Delivery, Event, Kind, Organization, Plan
from deploy.sellfern import Event as Told
from deploy.sellfern import shop
from shared.queue.job import job_id
from shared.sellfern import signature
from shared.sellfern.reference import load_default
from shared.sellfern.scheme import SELLFERN

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
# What else happens to an order is told to nobody here: the Reference doesn't list it.
_TOLD: Final = frozenset(load_default().available_events())

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
    """An event with the body of its first delivery."""

    event: Event
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
        # Sellfern writes milliseconds; what is finer would be lost, and with it the order.
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        # Each gets its first event early, or an odd one would find no order to name.
        new = [each for each in self._organizations if not self._genuine[each.id]]
        organization = new[0] if new else self._one_of(self._organizations)
        if kind in (Kind.GOOD, Kind.FLAKY):
            return self._genuine_event(kind, organization, at)
        return self._odd_event(kind, organization, at)

    def _genuine_event(self, kind: Kind, organization: Organization, at: datetime) -> _Draft:
        chosen = self._next_order(organization, at, flaky=kind is Kind.FLAKY)
        # Then only the event's id decides which is later.
        if chosen.id in self._last and self._random.random() < _SAME_MOMENT:
            at = self._last[chosen.id]
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
        # The handler knows by the id which orders to fail on: the event itself has no such field.
        new.id = f"{FLAKY_PREFIX if flaky else 'ord_'}{self._orders:04}"
        return new

    def _odd_event(self, kind: Kind, organization: Organization, at: datetime) -> _Draft:
        """An event that must change nothing, though it names an order that is there."""
        imitated: Event | None = None
        order_id = self._random.choice(self._genuine[organization.id]).order_id
        data: dict[str, object] = {"order_id": order_id, "status": STATUSES[-1]}
        event_type = "order.status_changed"
        match kind:
            case Kind.IMPOSTOR:
                others = [each for each in self._organizations if each is not organization]
                imitated = self._victim(self._one_of(others))
                # It bears the id of a genuine event: were it taken for that one's duplicate, or
                # marked it, the genuine one would be lost.
                data["order_id"] = imitated.order_id
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
        return self._draft(kind, organization, at, event_type, data, imitated=imitated)

    def _draft(
        self,
        kind: Kind,
        organization: Organization,
        at: datetime,
        event_type: str,
        data: Mapping[str, object],
        *,
        imitated: Event | None = None,
    ) -> _Draft:
        event_id = imitated.id if imitated else f"evt_{self._hex(48)}"
        claimed = imitated.organization if imitated else organization.id
        body = Told(event_id, event_type, at.timestamp(), claimed, data).encode()
        if kind is Kind.RUBBISH:
            # Signed all right, but no envelope: cut off, or a list.
            body = self._random.choice([body[:-9], b"[" + body + b"]"])
        event = Event(
            id="" if kind is Kind.RUBBISH else event_id,
            organization=organization.id,
            kind=kind,
            order_id=str(data.get("order_id", "")),
            at=at,
            type=event_type,
            status=None if data.get("status") is None else str(data["status"]),
            job=job_id(organization.id, body),
        )
        return _Draft(event, body)

    def _victim(self, organization: Organization) -> Event:
        """A genuine event that nobody has imitated yet."""
        while True:
            event = self._random.choice(self._genuine[organization.id])
            # Two impostors of one event might not be told apart in the account.
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
    # An event before its redelivery, where both have come to the same place.
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
    fields = json.loads(draft.body)
    return json.dumps(dict(reversed(fields.items())), indent=1).encode()


def _sent(draft: _Draft, body: bytes) -> bytes:
    # A byte behind the signed ones is the smallest change, and leaves the JSON as valid as it was.
    return body + b" " if draft.event.kind is Kind.ALTERED else body


def _headers(
    event: Event, body: bytes, organizations: Mapping[str, Organization], random: Random
) -> dict[str, str]:
    unsigned = {"Content-Type": "application/json", "X-Sellfern-Event": event.type}
    if event.kind is Kind.UNSIGNED:
        return unsigned
    signer = organizations[event.organization]
    if event.kind is Kind.FORGED:
        # A secret that is right elsewhere: who has one may not speak for another.
        signer = random.choice([each for each in organizations.values() if each is not signer])
    return unsigned | signature.sign(SELLFERN, body, signer.secret.encode(), now=0.0, message_id="")
