"""Facts about the handlers of the demo, on a real Redis."""

import msgspec
from redis.asyncio import Redis

from deploy.local.demo_handlers import FLAKY_PREFIX, handlers
from shared.queue import keys
from tests.integration.jobs import counters
from tests.integration.workplace import Workplace, body
from worker.pipeline.transitions import Settled


async def state(redis: Redis, key: str) -> object:
    raw = await redis.get(keys.state("org_a", key))
    return msgspec.json.decode(raw) if raw else None


async def test_an_event_of_a_flaky_order_is_applied_once_by_its_third_attempt(
    redis: Redis,
) -> None:
    place = Workplace(redis, handlers)
    order = f"{FLAKY_PREFIX}1"
    signed = body("evt_1", type="order.created", data={"order_id": order, "status": "pending"})
    assert await place.handle(signed) is Settled.RETRIED
    assert await state(redis, f"orders/{order}") is None
    assert await place.handle_next() is Settled.RETRIED
    assert await place.handle_next() is Settled.DONE
    assert await state(redis, "applied/evt_1") == 1
    assert await state(redis, "attempts/evt_1") == 3
    projection = await state(redis, f"orders/{order}")
    assert isinstance(projection, dict)
    assert projection["status"] == "pending"


async def test_an_event_of_another_order_is_applied_at_once(redis: Redis) -> None:
    place = Workplace(redis, handlers)
    signed = body("evt_1", data={"order_id": "ord_1", "status": "paid"})
    assert await place.handle(signed) is Settled.DONE
    assert await place.handle(signed) is Settled.DUPLICATE
    assert await state(redis, "applied/evt_1") == 1
    assert await state(redis, "attempts/evt_1") is None


async def test_what_is_no_status_is_rejected_and_changes_nothing(redis: Redis) -> None:
    place = Workplace(redis, handlers)
    signed = body("evt_1", data={"order_id": "ord_1", "status": "teleported"})
    assert await place.handle(signed) is Settled.DEAD
    assert (await counters(redis))["dead:rejected"] == 1
    assert await state(redis, "orders/ord_1") is None
    assert await state(redis, "applied/evt_1") is None
