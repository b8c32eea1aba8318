"""What happens in an organization's shop: orders from their creation to their end, as events."""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from random import Random
from typing import Any, Final

from deploy.sellfern.event import Event, timestamp

Data = dict[str, Any]
Step = tuple[str, Callable[[], Data]]
"""The type of an event, and what makes its data once it happens."""

STATUSES: Final = ("paid", "processing", "shipped", "completed")
"""What an order becomes, one after the other, once it is ``pending``."""

_PRODUCTS: Final = (
    ("SKU-1001", "Wool scarf", 3490),
    ("SKU-1002", "Linen shirt", 5900),
    ("SKU-1003", "Canvas bag", 2450),
    ("SKU-1004", "Ceramic mug", 1290),
    ("SKU-1005", "Oak cutting board", 4400),
    ("SKU-1006", "Table lamp", 7990),
    ("SKU-1007", "Notebook, ruled", 850),
)
_CHANNELS: Final = ("webshop", "marketplace", "pos")
_CARRIERS: Final = ("DHL", "UPS", "GLS", "PostNL")
_SUBJECTS: Final = ("Where is my parcel?", "The colour is wrong", "I need an invoice")
_OFTEN: Final = 0.3  # of the orders are changed, and of the orders get a ticket


def new_id(random: Random, prefix: str) -> str:
    """Draw an id such as ``ord_…``."""
    return f"{prefix}_{random.getrandbits(96):024x}"


class Order:
    """An order: what it is now, and what will still happen to it.

    Args:
        random: everything is drawn from it.
        number: that people know the order by.
        now: seconds since the epoch.
        everything: whether also happens what happens to some orders only.
    """

    def __init__(self, random: Random, number: str, now: float, *, everything: bool) -> None:
        self._random = random
        self.id = new_id(random, "ord")
        self.status = "pending"
        self._number = number
        self._customer_id = new_id(random, "cus")
        self._channel = random.choice(_CHANNELS)
        self._placed_at = timestamp(now)
        self._items = [self._item(*each) for each in random.sample(_PRODUCTS, random.randint(1, 3))]
        self._note = ""
        self._fulfillment: Data = {"fulfillment_id": new_id(random, "ful")}
        self._ticket: Data = {"ticket_id": new_id(random, "tic"), "messages": 0}
        self._steps = deque(self._plan(everything=everything))

    @property
    def coming(self) -> str | None:
        """The type of what happens next, if anything does."""
        return self._steps[0][0] if self._steps else None

    def happen(self) -> Data:
        """Let the next thing happen; its data."""
        return self._steps.popleft()[1]()

    def change(self) -> Data:
        """Let somebody edit the order, which may happen at any time; the event's data."""
        if self._random.random() < 0.5:  # noqa: PLR2004  # one kind of edit or the other
            self._note = f"Leave it at locker {self._random.randint(1, 40)}"
            return self._data(changed=["note"])
        self._items[0]["quantity"] += 1
        return self._data(changed=["items"])

    def _plan(self, *, everything: bool) -> list[Step]:
        changed = everything or self._random.random() < _OFTEN
        ticket = everything or self._random.random() < _OFTEN
        paid, processing, shipped, completed = map(self._status, STATUSES)
        return [
            ("order.created", self._data),
            *([("order.updated", self.change)] if changed else []),
            paid,
            processing,
            ("expense.created", self._expense),
            ("order.fulfillment.shipped", self._ship),
            shipped,
            *([("ticket.created", self._ask)] if ticket else []),
            ("order.fulfillment.delivered", self._deliver),
            *([("ticket.updated", self._resolve)] if ticket else []),
            completed,
        ]

    def _status(self, status: str) -> Step:
        def become() -> Data:
            previous, self.status = self.status, status
            return self._data(previous_status=previous)

        return ("order.status_changed", become)

    def _data(self, **more: object) -> Data:
        cents = sum(item["quantity"] * item["unit_price"]["cents"] for item in self._items)
        return {
            "order_id": self.id,
            "number": self._number,
            "status": self.status,
            "customer_id": self._customer_id,
            "channel": self._channel,
            # Copies: an event tells what was, also after a later change.
            "items": [dict(item) for item in self._items],
            "total": {"cents": cents, "currency": "EUR"},
            "note": self._note,
            "placed_at": self._placed_at,
            **more,
        }

    def _item(self, sku: str, title: str, cents: int) -> Data:
        return {
            "item_id": new_id(self._random, "itm"),
            "sku": sku,
            "title": title,
            "quantity": self._random.randint(1, 4),
            "unit_price": {"cents": cents, "currency": "EUR"},
        }

    def _expense(self) -> Data:
        return {
            "expense_id": new_id(self._random, "exp"),
            "order_id": self.id,
            "fulfillment_id": self._fulfillment["fulfillment_id"],
            "category": "shipping",
            "amount": {"cents": self._random.randint(390, 1290), "currency": "EUR"},
        }

    def _ship(self) -> Data:
        carrier = self._random.choice(_CARRIERS)
        self._fulfillment |= {
            "order_id": self.id,
            "carrier": carrier,
            "tracking_number": f"{carrier[:2].upper()}{self._random.randrange(10**10):010d}",
            "items": [{"sku": each["sku"], "quantity": each["quantity"]} for each in self._items],
            "status": "shipped",
        }
        return dict(self._fulfillment)

    def _deliver(self) -> Data:
        self._fulfillment |= {"status": "delivered"}
        return dict(self._fulfillment)

    def _ask(self) -> Data:
        subject = self._random.choice(_SUBJECTS)
        self._ticket |= {
            "order_id": self.id,
            "customer_id": self._customer_id,
            "subject": subject,
            "status": "open",
            "messages": 1,
        }
        return dict(self._ticket)

    def _resolve(self) -> Data:
        self._ticket |= {"status": "resolved", "messages": 2}
        return dict(self._ticket)


MOST_OPEN: Final = 40
"""Orders of one shop that are under way at once."""

_NEW: Final = 0.1  # of the steps begin an order, while there is room
_FIRST_NUMBER: Final = 1001
_LONGEST_SEARCH: Final = 1000  # steps; every life has each type of event far more often


class Shop:
    """One organization's shop.

    The same seed and the same questions give the same events. Ids are consistent over an order's
    life: what is shipped was ordered, what is delivered was shipped, a ticket's order exists.

    Args:
        organization: whose shop it is.
        seed: of everything that is drawn.
    """

    def __init__(self, organization: str, seed: int) -> None:
        self._organization = organization
        # Seeded by a text, so that two organizations' ids differ under one seed.
        self._random = Random(f"{seed}/{organization}")  # noqa: S311  # examples, not keys
        self._open: list[Order] = []
        self._number = _FIRST_NUMBER

    def next_event(self, now: float, wanted: Collection[str]) -> Event:
        """The next thing that happens and is wanted; what isn't wanted happens unseen.

        Args:
            now: seconds since the epoch.
            wanted: types of events; at least one.
        """
        for _ in range(_LONGEST_SEARCH):
            order = self._choose(now)
            event_type = str(order.coming)
            data = self._happen(order)
            if event_type in wanted:
                return self.event(event_type, now, data)
        # No order's life has any of those types: then it happens outside of one.
        return self.event(min(wanted), now)

    def event(self, event_type: str, now: float, data: Mapping[str, Any] | None = None) -> Event:
        """An event of this type, of an order that it can happen to.

        Args:
            event_type: such as ``order.updated``; one that no life has gets an order's data.
            now: seconds since the epoch.
            data: taken as it is, if given.
        """
        if data is None:
            data = self._make_happen(event_type, now)
        return Event(new_id(self._random, "evt"), event_type, now, self._organization, data)

    def _choose(self, now: float) -> Order:
        room = len(self._open) < MOST_OPEN
        if not self._open or (room and self._random.random() < _NEW):
            self._open.append(self._new_order(now))
            return self._open[-1]
        return self._random.choice(self._open)

    def _happen(self, order: Order) -> Mapping[str, Any]:
        data = order.happen()
        if order.coming is None:
            self._open.remove(order)
        return data

    def _make_happen(self, event_type: str, now: float) -> Mapping[str, Any]:
        # One that is about to do this by itself: its past fits.
        for order in self._open:
            if order.coming == event_type:
                return self._happen(order)
        if event_type == "order.updated" and self._open:
            return self._random.choice(self._open).change()
        return self._hurry(self._new_order(now, everything=True), event_type)

    def _hurry(self, order: Order, event_type: str) -> Mapping[str, Any]:
        """Let a new order live unseen until the event; it stays open if there is room."""
        while order.coming != event_type:
            if order.coming is None:  # no life has this event
                return order.change()
            order.happen()
        data = order.happen()
        # Else a caller that asks again and again would fill the memory.
        if order.coming and len(self._open) < MOST_OPEN:
            self._open.append(order)
        return data

    def _new_order(self, now: float, *, everything: bool = False) -> Order:
        number, self._number = self._number, self._number + 1
        return Order(self._random, str(number), now, everything=everything)
