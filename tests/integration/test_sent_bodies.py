"""Facts about bodies as real senders write them, from acceptance to the commit, on a real Redis."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from shared.sellfern import envelope as envelopes
from shared.sellfern.envelope import mended
from tests.integration.jobs import NOTHING, account, mark_of
from tests.integration.workplace import Workplace, body, now
from worker import Event, Handlers, Id, Organization
from worker.handlers import handlers as own_handlers
from worker.operate import revival
from worker.pipeline.transitions import Settled


class Order(msgspec.Struct):
    order_id: Id
    name: str = ""


class Seen:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.handlers = Handlers()
        self.handlers.on("*", organization=123)(self.handle)

    async def handle(self, event: Event[Order], organization: Organization) -> None:
        """Remember it."""
        assert organization.id == event.organization_id
        self.events.append(event)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def place(redis: Redis, seen: Seen) -> Workplace:
    return Workplace(redis, seen.handlers)


def numbered(event_id: Any = 7, organization: Any = 123, order: Any = 9, **data: Any) -> bytes:
    """A body whose ids are whole numbers, unless they are told otherwise."""
    created_at = data.pop("created_at", now())
    data = {"order_id": order, **data}
    return body(event_id, organization, data=data, created_at=created_at)


async def test_ids_that_are_whole_numbers_are_text_from_there_on(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    assert await place.handle(numbered(), organization="123") is Settled.DONE
    (event,) = seen.events
    assert (event.id, event.organization_id, event.data) == ("7", "123", Order("9"))
    assert event.idempotency_key == "123:7"
    assert await mark_of(redis, "7", "123") is not None
    assert await account(redis) == NOTHING


async def test_two_bodies_that_differ_only_in_how_they_write_an_id_are_one_event(
    place: Workplace, seen: Seen
) -> None:
    assert await place.handle(numbered(), organization="123") is Settled.DONE
    for other in (numbered("7"), numbered(organization="123"), numbered(order="9")):
        assert await place.handle(other, organization="123") is Settled.DUPLICATE
    assert place.lines.events().count("event_conflicting") == 3
    assert len(seen.events) == 1


async def test_the_own_handlers_take_an_order_by_number_and_by_text_for_the_same(
    redis: Redis,
) -> None:
    place = Workplace(redis, own_handlers)
    for order in (1234567890, "1234567890"):
        signed = body(data={"order_id": order, "status": "paid"})
        assert await place.handle(signed) is Settled.DONE
    (name,) = await redis.keys("sellfern:state:*")
    assert name == keys.state("org_a", "orders/1234567890").encode()


@pytest.mark.parametrize("broken", [rb"Ren\ud83d", b"Ren\xe9"])
@pytest.mark.parametrize("field", ["name", "unread"])
async def test_broken_text_reaches_the_handler_as_lost_and_raw_stays_what_was_signed(
    place: Workplace, seen: Seen, field: str, broken: bytes
) -> None:
    signed = numbered(**{field: "@"}).replace(b"@", broken)
    assert await place.handle(signed, organization="123") is Settled.DONE
    (event,) = seen.events
    assert event.data == Order("9", "Ren\ufffd" if field == "name" else "")
    assert event.raw == signed


async def test_a_byte_order_mark_is_passed_over(place: Workplace, seen: Seen) -> None:
    signed = b"\xef\xbb\xbf" + numbered()
    assert await place.handle(signed, organization="123") is Settled.DONE
    assert seen.events[0].raw == signed


async def test_an_event_id_that_lost_something_is_malformed_and_takes_nobodys_mark(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    for half in (rb"\ud83d", rb"\ud83e"):
        signed = numbered("evt_@").replace(b"@", half)
        assert await place.handle(signed, organization="123") is Settled.DEAD
    assert seen.events == []
    assert await redis.keys("sellfern:event:*") == []
    for line in place.lines.of("event_dead"):
        assert "half a surrogate pair" in line["error"]


async def test_a_letter_that_died_of_broken_text_lives_once_it_is_replayed(
    redis: Redis, place: Workplace, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = numbered(unread="@").replace(b"@", rb"Ren\ud83d")
    with monkeypatch.context() as before:  # as it was before there was any mending
        before.setattr(envelopes, "mended", lambda text: text)
        assert await place.handle(signed, organization="123") is Settled.DEAD
    assert mended(signed) != signed
    assert await revival.replay_one(Partition.only(redis), job_id("123", signed)) == "queued"
    assert await place.handle_next() is Settled.DONE
    assert len(seen.events) == 1
    assert await account(redis) == NOTHING


async def test_what_was_ahead_of_a_slow_clock_is_handled_once_its_moment_has_passed(
    redis: Redis, place: Workplace, seen: Seen
) -> None:
    """Our clock was an hour slow when it came; Redis tells the right time."""
    slow = round((now() - timedelta(hours=1)).timestamp() * 1000)
    assert await place.handle(numbered(), organization="123", received_at=slow) is Settled.DONE
    assert len(seen.events) == 1


async def test_what_is_ahead_of_now_is_stale_whenever_it_was_received(place: Workplace) -> None:
    signed = numbered(created_at=now() + timedelta(minutes=6))
    assert await place.handle(signed, organization="123") is Settled.DEAD
    (line,) = place.lines.of("event_dead")
    assert line["reason"] == "stale"
