"""Facts about what is said of where an event is, and what it waits for."""

import time
from typing import Any, Final

import msgspec
import pytest
from redis.asyncio import Redis

from shared.endpoints.endpoint import Rate
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.told import sign_of
from tests.integration.by_hand import LATER, Hand
from tests.integration.console.site import Site, browsing
from tests.integration.in_turns import KEY, ask
from tests.integration.jobs import delivery, enqueued
from tests.integration.test_told import NOW, live
from tests.integration.workplace import body
from worker.at_work import AtWork, Doing
from worker.operate import lookup, organizations
from worker.operate.lookup import FoundEvent
from worker.operate.timeline import timeline
from worker.pipeline.transitions import Profile, Settlement, Transitions

NOBODY: Final = "no worker is alive"


@pytest.fixture
def hand(redis: Redis) -> Hand:
    return Hand(redis, has_turns=True)


async def found(redis: Redis, job: str) -> FoundEvent:
    event = await lookup.find(Partition.only(redis), job)
    assert event is not None
    return event


async def text(redis: Redis, job: str) -> str:
    return (await found(redis, job)).place.text


async def test_what_could_run_and_nobody_is_there_to_do_it(redis: Redis, hand: Hand) -> None:
    first, second = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    assert await text(redis, second) == f"in line, 1 ahead of it; {NOBODY}"
    (claim,) = await hand.claim(1)
    await hand.transitions.settle([Settlement(claim, "retry", (LATER, None))])
    assert (await text(redis, first)).endswith(f"; {NOBODY}")
    await live(redis, "w1", NOW)
    assert await text(redis, second) == "in line, 0 ahead of it"
    await organizations.pause(Partition.only(redis), "org_a", "for Ada")
    assert await text(redis, second) == (
        "in line, 0 ahead of it; its organization is paused (for Ada)"
    )
    # What is due later is kept by that as well.
    assert (await text(redis, first)).startswith("due in 59m")
    assert (await text(redis, first)).endswith("; its organization is paused (for Ada)")


async def test_what_is_due_and_whose_lease_is_over_is_not_said_to_run_or_to_be_due(
    redis: Redis, hand: Hand
) -> None:
    await live(redis, "w1", NOW)
    (job,) = await enqueued(redis, delivery(b"1"))
    await hand.claim(1)
    assert (await found(redis, job)).place.word == "running"
    assert (await text(redis, job)).startswith("held by a worker, whose lease lasts ")
    await redis.zadd(keys.QUEUE, {job: time.time() * 1000 - 90_000})
    lost = (await found(redis, job)).place
    assert (lost.state, lost.word) == ("lost", "its worker is lost")
    assert lost.text == (
        "its worker was not heard of any more, its lease is over; another one takes it"
    )
    await redis.hdel(keys.CLAIMS, job)
    due = (await found(redis, job)).place
    assert (due.word, due.text) == ("due", "due for 1m 30s")


async def test_the_clock_is_redis_s_own(
    redis: Redis, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks may have another one."""
    (job,) = await enqueued(redis, delivery(b"1"))
    (claim,) = await hand.claim(1)
    await hand.transitions.settle([Settlement(claim, "retry", (LATER, None))])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert (await text(redis, job)).startswith("due in 59m")


async def test_when_it_was_accepted_is_when_it_came_in(redis: Redis) -> None:
    """Not its place in the order, behind one of an ingress whose clock was ahead."""
    now = round(time.time() * 1000)
    await enqueued(redis, delivery(b"1", received_at=now + 3_600_000))
    (job,) = await enqueued(redis, delivery(b"2", received_at=now))
    assert (await found(redis, job)).received_at == now / 1000


async def test_why_it_is_parked_is_the_cap_the_rate_or_a_slow_beginning(
    redis: Redis, hand: Hand
) -> None:
    await live(redis, "w1", NOW)
    await hand.cap(1)
    _, second = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    await hand.claim()
    assert await text(redis, second) == "parked: its organization has no free slot (1 of 1 taken)"
    await hand.transitions.publish([Profile("org_a", 5, rate=Rate.parse("1/m"))])
    _, other = await enqueued(redis, delivery(b"3"), delivery(b"4"))
    assert len(await hand.claim()) == 1
    told = await text(redis, other)
    assert told.startswith("parked: its organization's rate, the next start is due in ")
    await organizations.pause(Partition.only(redis), "org_b", "for Ada")
    both = await enqueued(redis, *(delivery(each, organization="org_b") for each in (b"5", b"6")))
    await hand.claim()
    await organizations.resume(Partition.only(redis), "org_b", 0.5)
    await hand.claim()
    slow = both[1]
    assert (await text(redis, slow)).startswith(
        "parked: its organization begins slowly, since its events have waited, the next start is"
    )


async def test_what_is_deferred_is_said_to_wait_for_what_it_waits_for(
    redis: Redis, hand: Hand
) -> None:
    (job,) = await enqueued(redis, delivery(b"1"))
    (claim,) = await hand.claim(1)
    await ask(hand, claim, latest=True, quiet=60_000)
    gathered = (await found(redis, job)).place
    assert gathered.word == "waits for others of its kind"
    assert ", with the newest of its kind" in gathered.text
    # Once it has run, it waits for that no more.
    told = ("f", 5, "w1", "shop.book", "KeyError: 'sku'", "")
    await redis.zadd(keys.QUEUE, {job: 1})
    claim = await hand.claim_only(job)
    await ask(hand, claim, latest=True, quiet=60_000)
    await hand.transitions.settle([Settlement(claim, "retry", (LATER, None, False, told))])
    assert (await found(redis, job)).place.word == "waits for its next attempt"
    assert "of its kind" not in await text(redis, job)
    (other,) = await enqueued(redis, delivery(b"2"))
    (claim,) = await hand.claim(1)
    await hand.transitions.settle([Settlement(claim, "wait", ("no handler", None))])
    assert (await found(redis, other)).place.word == "waits for a handler"
    (third,) = await enqueued(redis, delivery(b"3"))
    (claim,) = await hand.claim(1)
    await hand.transitions.settle([Settlement(claim, "retry", (LATER, None, False, told))])
    assert (await found(redis, third)).place.word == "waits for its next attempt"


async def test_who_waits_for_a_turn_is_told_who_has_it(redis: Redis, hand: Hand) -> None:
    await live(redis, "w1", NOW)
    first, *others = await enqueued(redis, delivery(b"1"), delivery(b"2"), delivery(b"3"))
    for claim in await hand.claim():
        await ask(hand, claim)
    for ahead, job in enumerate(others, 1):
        assert await text(redis, job) == (
            f"waits for its turn of key:{KEY}, {ahead} ahead of it; {first} has it"
        )


async def test_a_suspect_is_told_what_it_waits_for(redis: Redis, hand: Hand) -> None:
    await live(redis, "w1", NOW)
    (job,) = await enqueued(redis, delivery(b"1"))
    for _ in range(2):
        await hand.claim(1)
        await hand.come_due(job)
    await hand.promote()
    assert await text(redis, job) == (
        "in line, 0 ahead of it; "
        "for a worker that holds nothing else, since 2 claims of it were lost"
    )


async def test_which_handler_has_it_since_when_is_told_while_it_takes_long(
    redis: Redis, hand: Hand
) -> None:
    await live(redis, "w1", NOW)
    here = Transitions(Partition.only(redis))
    await here.note_names(["w1", "shop.book"])
    (job,) = await enqueued(redis, delivery(b"1"))
    claimed = await here.claim("w1", most=1, lease=30, holding=0)
    ((claim, _),) = claimed.jobs
    assert claim.token.startswith(sign_of("w1"))

    async def at_work(state: str) -> None:
        doing = Doing(job, time.time() - 65, "shop.book", state=state)
        told = msgspec.json.encode(AtWork(time.time(), [doing]))
        await redis.hset(keys.WORKERS_NOW, mapping={"w1": told})

    for state, how in (
        ("running", "; its lease"),
        ("cancelled", ", though it was cancelled; its lease"),
        ("blocking", ", and keeps its worker's loop; its lease"),
    ):
        await at_work(state)
        event = await found(redis, job)
        told = event.place.text
        assert told.startswith(f"its handler shop.book has run for 1m 5s{how} lasts ")
        (running,) = [each for each in timeline(event) if each.happened == "running"]
        assert running.by == "w1"
    attempt = ("f", 5, "w1", "shop.book", "it took too long", "")
    await here.settle([Settlement(claim, "retry", (LATER, None, False, attempt))])
    await at_work("stuck")
    goes_on = "; its handler shop.book goes on in w1 for 1m 5s, though it was cancelled"
    assert (await text(redis, job)).endswith(goes_on)
    await redis.zadd(keys.WORKERS_SEEN, {"w1": 1})  # it went without a word, and is not at it
    assert (await text(redis, job)).endswith(f"; {NOBODY}")
    await live(redis, "w1", NOW)
    # Who may not read what workers are at, by an earlier file of users, is told all else.
    await redis.delete(keys.WORKERS_NOW)
    await redis.set(keys.WORKERS_NOW, "x")
    assert (await text(redis, job)).startswith("due in 59m")


async def test_what_has_lost_its_payload_or_its_letter_is_told_so(redis: Redis) -> None:
    (job,) = await enqueued(redis, delivery(body("evt_1")))
    await redis.delete(keys.payload(job))
    lost = await found(redis, job)
    assert (lost.state, timeline(lost)[-1].happened) == ("harmed", "waits")
    assert lost.place.text.startswith("its payload is gone: ")
    await redis.set(keys.event("org_a", "evt_2"), "dead:org_a:gone")
    (dead,) = await lookup.search(Partition.only(redis), "evt_2", ["org_a"])
    assert dead.place.text.startswith("its mark names what is gone: ")
    async with browsing(redis) as site:
        for path in (f"/event?job={job}", "/events?q=evt_2"):
            shown = (await site.get(path)).text
            assert "<dt>Body</dt><dd>gone" in shown
            assert "finished" not in shown


async def seen(site: Site, redis: Redis, job: str) -> None:
    """Look at it everywhere."""
    for path in (f"/event?job={job}", "/events", f"/events?q={job}", "/organizations/org_a"):
        assert (await site.get(path)).status == 200, path
    await found(redis, job)


async def test_whatever_somebodys_hand_has_left_is_no_reason_to_show_nothing(redis: Redis) -> None:
    signed = body("evt_1")
    (job,) = await enqueued(redis, delivery(signed))
    harm: list[tuple[str, str, Any]] = [
        *(("hset", keys.CLAIMS, each) for each in ("", "rubbish", ":1:x:0:", "::::", ":9" * 9)),
        *(("hset", keys.THROTTLED, each) for each in ("x", "\N{SUPERSCRIPT TWO}")),
        *(("hset", keys.UNHANDLED, each) for each in ("x", "9" * 400)),
        *(("hset", keys.SUSPECTS, each) for each in ("x", "0:0:x", "::::")),
        *(("hset", keys.TURNS, each) for each in ("x", msgspec.msgpack.encode([1, 2, 3, 4, 5, 6]))),
        *(("zadd", keys.QUEUE, each) for each in (9e15, "inf", "-inf")),
        *(("zadd", keys.ACCEPTED, each) for each in (9e15, "inf", 0, -5)),
        ("set", keys.SLOTS, "x"),
        ("zadd", keys.WORKERS_SEEN, "inf"),
    ]
    async with browsing(redis) as site:
        for command, name, value in harm:
            match command:
                case "hset":
                    await redis.hset(name, job, value)
                case "zadd":
                    await redis.zadd(name, {job: value})
                case _:
                    await redis.set(name, value)
            await seen(site, redis, job)
            if command == "hset":
                await redis.hdel(name, job)
        for said in ("org_a", "next:org_a", "ramp:org_a"):
            await redis.hset(keys.RATES, said, "x")
        await seen(site, redis, job)
        foreign = "org_a:stock"
        for at in (10**17, -5, 0):
            await redis.set(keys.payload(foreign), jobs.encode(delivery(signed, received_at=at)))
            await redis.zadd(keys.QUEUE, {foreign: 1})
            await seen(site, redis, foreign)
