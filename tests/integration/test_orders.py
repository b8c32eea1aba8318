"""Facts about the projection of orders that comes with the project."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.workplace import Workplace, body, now
from worker.handlers import handlers, orders
from worker.pipeline.transitions import Settled

START = now() - timedelta(hours=1)
LIFE = [
    ("order.created", None),
    ("order.status_changed", "paid"),
    ("order.updated", None),
    ("order.status_changed", "packed"),
    ("order.status_changed", "sent"),
]


def life(order: str) -> list[bytes]:
    """The events of an order, in the order in which they happened."""
    return [
        body(
            f"evt_{order}_{number}",
            type=event_type,
            created_at=START + timedelta(minutes=number),
            data={"order_id": order, "total": 5} | ({"status": status} if status else {}),
        )
        for number, (event_type, status) in enumerate(LIFE)
    ]


async def projected(redis: Redis, order: str) -> Any:
    raw = await redis.get(keys.state("org_a", f"orders/{order}"))
    return msgspec.json.decode(raw) if raw else None


@pytest.mark.parametrize("seed", range(5))
async def test_an_order_looks_the_same_whatever_order_its_events_come_in(
    redis: Redis, seed: int
) -> None:
    place = Workplace(redis, handlers)
    events = life("1") + life("1")[:2]
    random.Random(seed).shuffle(events)
    for signed in events:
        assert await place.handle(signed) in (Settled.DONE, Settled.DUPLICATE)

    order = await projected(redis, "1")
    assert order["status"] == "sent"
    assert [entry["event_id"] for entry in order["timeline"]] == [f"evt_1_{n}" for n in range(5)]
    assert order["last_change"] == order["timeline"][-1]["at"]


async def test_an_order_without_a_status_has_none(redis: Redis) -> None:
    place = Workplace(redis, handlers)
    await place.handle(life("1")[0])
    assert (await projected(redis, "1"))["status"] is None


async def test_an_orders_timeline_and_its_life_are_bounded(redis: Redis) -> None:
    place = Workplace(redis, handlers)
    for number in range(orders.LONGEST_TIMELINE + 5):
        at = START + timedelta(seconds=number)
        status = {"status": "paid"} if number == 0 else {}
        signed = body(f"evt_{number:03}", created_at=at, data={"order_id": "1", **status})
        assert await place.handle(signed) is Settled.DONE
    order = await projected(redis, "1")
    assert len(order["timeline"]) == orders.LONGEST_TIMELINE
    assert order["timeline"][-1]["event_id"] == f"evt_{orders.LONGEST_TIMELINE + 4:03}"
    assert order["status"] == "paid"
    left = await redis.ttl(keys.state("org_a", "orders/1"))
    assert orders.KEPT.total_seconds() - 60 < left <= orders.KEPT.total_seconds()


async def test_an_order_event_without_an_order_is_malformed(redis: Redis) -> None:
    place = Workplace(redis, handlers)
    assert await place.handle(body("evt_1", data={"status": "paid"})) is Settled.DEAD
