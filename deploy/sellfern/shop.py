"""What happens in an organization's shop: one event after the other, over many orders."""

from collections.abc import Collection, Mapping
from random import Random
from typing import Any, Final

from deploy.sellfern.event import Event
from deploy.sellfern.order import Order, new_id

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
        if order.coming and len(self._open) < MOST_OPEN:
            self._open.append(order)
        return data

    def _new_order(self, now: float, *, everything: bool = False) -> Order:
        number, self._number = self._number, self._number + 1
        return Order(self._random, str(number), now, everything=everything)
