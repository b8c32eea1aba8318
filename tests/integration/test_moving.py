"""Facts about moving an organization: all that is its own, by one mover, under no lease."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue.keys import Names
from shared.queue.partition import Partition
from tests.integration.moves import ORG, Died, Life, Mortal, Shop, move, traces
from tests.integration.several import over
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.grouping import CAUSE_FIELDS, cause_of
from worker.operate.belongings import Belongings, Copies
from worker.operate.moving import Move, Patience, Progress
from worker.operate.upkeep import recount
from worker.operate.ways import MoveError
from worker.pipeline.transitions import Settled

HOUR = 3_600_000
LETTER = ("rejected", "order.updated", "KeyError: 'sku'", "")
"""Why one died."""


def jobs_of(partition: Partition) -> list[str]:
    return [f"{partition.names.job_prefix}{ORG}:{number:032x}" for number in range(6)]


def everything(partition: Partition, now: int, shift: float) -> dict[str, Any]:
    """Something under each name that may hold something of an organization: what there is of it."""
    names = partition.names
    zero, one, two, three, four, five = jobs_of(partition)
    foreign = f"{ORG}:a-stock-producers"  # which bears no tag, wherever it is
    turn = f"{names.turn}{ORG}:key:k"
    kind = f"{turn}\nhandler"
    cause = cause_of(*LETTER)

    def in_turn(*, waits: bool) -> bytes:
        return msgspec.msgpack.encode([turn, "", kind, waits, 0, False])

    return {
        **{
            names.payload(job): f"payload {job[-1]}"
            for job in (one, two, three, four, five, foreign)
        },
        names.arq_retry + one: "2",
        names.accepted: {
            job: 1000.5 + n for n, job in enumerate([*jobs_of(partition), foreign]) if n
        },
        names.queue: {two: now + HOUR},
        names.parked(ORG): {
            one: 5 + shift,
            four: 6 + shift,
            five: 7.25 + shift,
            foreign: 9 + shift,
        },
        names.held_back: {ORG},
        names.claims: {
            one: f":1:0:{5 + shift:g}:evt_1",
            two: f"{'a' * 40}:2:1:{5 + shift:g}:evt_2",
        },
        names.running: {ORG: "1"},
        names.waiting: {ORG: "6"},
        names.buried: {ORG: "1"},
        names.in_turn: {ORG: "1"},
        names.throttled: {one: "3"},
        names.failures: {one: "\x81\x00"},
        names.unhandled: {one: "123"},
        names.suspects: {one: "1:0:1:0:0:0"},
        names.turns: {four: in_turn(waits=False), three: in_turn(waits=True)},
        turn: {four: 0.0, three: 1003.5},
        names.latest: {kind: three},
        names.superseded + four: ["evt_8", "evt_9"],
        names.organizations: {
            ORG: "1:2",
            f"pause:{ORG}": "by hand",
            f"breaker:{ORG}": f"trying:{two}",
            f"hold:{ORG}": f"{now + HOUR}:its system",
            f"trouble:{ORG}": f"0:{now}:{now}:0:0:3:f:shop.handle\nKeyError: 'id'",
        },
        names.due: {f"hold:{ORG}": now + HOUR},
        names.breakers: {ORG: now + HOUR},
        names.rates: {ORG: "100:100", f"next:{ORG}": "1", f"ramp:{ORG}": f"{now}:10:1"},
        names.dead(ORG): {zero: 77.0},
        names.dead_letter(zero): {
            **dict(zip(CAUSE_FIELDS, LETTER, strict=True)),
            "organization": ORG,
            "payload": "x",
            "held": "3",
            "died_at": "77",
            "group": cause.key,
        },
        names.dead_group(ORG, cause.key): {zero: 77.0},
        names.dead_groups(LETTER[0]): {f"{ORG}:{cause.key}": 1.0},
        names.dead_labels(ORG): {cause.key: msgspec.msgpack.encode([77, *LETTER[:2], *cause[1:]])},
        names.dead_kind(":".join(LETTER[:2])): {zero: 77.0},
        names.event(ORG, "evt_1"): f"pending:{names.in_mark(one)}",
        names.event(ORG, "evt:{0}"): f"dead:{names.in_mark(zero)}",
        names.event(ORG, "evt_done"): "done:x",
        names.event(ORG, "evt_6"): f"pending:{names.in_mark(foreign)}",
        names.revivals(ORG, "evt_2"): "4:99",
        names.state(ORG, "a:b"): "1",
        names.state(ORG, "kept"): "2",
    }


async def write(redis: Redis, things: dict[str, Any]) -> None:
    for name, value in things.items():
        if isinstance(value, str):
            await redis.set(name, value)
        elif isinstance(value, list):
            await redis.rpush(name, *value)
        elif isinstance(value, set):
            await redis.sadd(name, *value)
        elif isinstance(next(iter(value.values())), str | bytes):
            await redis.hset(name, mapping=value)
        else:
            await redis.zadd(name, value)


async def read(redis: Redis, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        kind = await redis.type(name)
        if kind == b"string":
            found[name] = (await redis.get(name)).decode()
        elif kind == b"list":
            found[name] = [each.decode() for each in await redis.lrange(name, 0, -1)]
        elif kind == b"set":
            found[name] = {each.decode() for each in await redis.smembers(name)}
        elif kind == b"hash":
            raw = await redis.hgetall(name)
            found[name] = {field.decode(): value for field, value in raw.items()}
        else:
            found[name] = {
                member.decode(): score
                for member, score in await redis.zrange(name, 0, -1, withscores=True)
            }
    return found


def as_read(things: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            field: each.encode() if isinstance(each, str) else each for field, each in value.items()
        }
        if isinstance(value, dict)
        else value
        for name, value in things.items()
    }


async def test_whatever_is_of_an_organization_is_moved_as_it_stands(redis: Redis) -> None:
    partitions = over(redis)
    here, there = partitions.all[:2]
    now = round(time.time() * 1000)
    things = everything(here, now, 0)
    await write(redis, things)
    twos = [jobs_of(each)[2] for each in (here, there)]
    await redis.hset(here.names.redelivered, twos[0], "2:100:400")
    await redis.hset(here.names.flows, mapping={"*": 6, ORG: 9.5, f"retry:{ORG}": 8})
    await redis.hset(here.names.flows, f"order:{ORG}", "1007")
    await redis.hset(here.names.bytes, mapping={f"{ORG}:marks": 30, f"{ORG}:state": 40})
    await redis.hset(there.names.flows, "*", "40")
    for name in ("evt_done", "evt_1"):
        await redis.pexpire(here.names.event(ORG, name), HOUR)
    await redis.pexpire(here.names.revivals(ORG, "evt_2"), HOUR)
    await redis.pexpire(here.names.state(ORG, "a:b"), HOUR)
    # Each name that the table has is there, but for where a worker notes what it has just claimed.
    its_own = {each.name for each in fields(Names) if each.metadata and each.metadata["of"]}
    seen = {
        each
        for each in its_own
        for name in await traces(here)
        if name.startswith(getattr(here.names, each))
    }
    assert its_own - seen == {"moved", "moving", "undecided"}

    progress = await move(partitions, 1)
    assert (progress.events, progress.letters) == (6, 1)
    assert await traces(here) == {}
    expected = as_read(everything(there, now, 40 + 1 - 5))
    # But for what came again: that becomes a part of what else has happened.
    again = msgspec.msgpack.encode([[["e", 400, 2, 300, 0, 0, 0]], [], ""])
    expected[there.names.failures][twos[1]] = again
    assert await read(redis, expected) == expected
    held = await redis.hgetall(there.names.bytes)
    assert held[f"{ORG}:marks".encode()] == b"30"
    assert held[f"{ORG}:state".encode()] == b"40"
    for name in (there.names.event(ORG, "evt_done"), there.names.state(ORG, "a:b")):
        assert 0 < await redis.pttl(name) <= HOUR
    assert await redis.pttl(there.names.state(ORG, "kept")) == -1
    flows = await redis.hgetall(there.names.flows)
    assert float(flows[ORG.encode()]) > 9.5 + 36
    assert await redis.hgetall(here.names.moved) == {ORG.encode(): b"1"}
    # It goes on, and all of it as well at home.
    assert (await move(partitions, 0)).events == 6
    assert await traces(there) == {}
    assert await redis.hgetall(here.names.moved) == {}


async def test_there_is_one_mover_at_a_time_and_one_way(redis: Redis) -> None:
    shop, life = Shop(over(redis)), Life(most=1000)
    here, there, other = shop.partitions.all[:3]
    await shop.deliver("a")
    ghost = Move(over(Mortal(redis, life)), ORG, there, Patience(lock=600))

    def die_once_it_has_halted(progress: Progress) -> None:
        if progress.step == "copying events":
            life.begin(-1)

    ghost.told = die_once_it_has_halted
    with pytest.raises(Died):
        await ghost.run()
    ghost.told = lambda _: None
    assert await redis.hget(here.names.moved, ORG) == b"1"
    with pytest.raises(MoveError, match="on its way to partition 1"):
        await move(shop.partitions, 2)
    waits = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.step == "waiting for another mover":
            waits.set()

    moving = asyncio.create_task(move(shop.partitions, 1, told=note))
    async with asyncio.timeout(60):
        await waits.wait()
        await redis.hset(here.names.moving, f"lock:{ORG}", "abcd:1")  # it has been dead for long
        await moving
    assert await traces(here) == {}
    # It comes to again, though another has gone on in its place, and changes nothing.
    counters = {each.names.counters.encode() for each in (here, there)}
    names = [name for name in await redis.keys() if name not in counters]
    before = [await redis.dump(name) for name in names]
    life.begin()
    for step in (ghost._depart, ghost._carry, ghost._clear):
        with pytest.raises(MoveError, match="taken org_0 over"):
            await step()
    assert [await redis.dump(name) for name in names] == before
    await move(shop.partitions, 2)
    assert await traces(there) == {}
    assert await redis.hgetall(here.names.moved) == {ORG.encode(): b"2"}
    assert await shop.state(other) == {}


async def test_handlers_that_take_too_long_keep_it_where_it_is(redis: Redis) -> None:
    shop = Shop(over(redis))
    here = shop.partitions.all[0]
    await shop.deliver("a")
    (held,) = await shop.places[0].claim()
    short = Patience(drain=0.05, all_in_all=0.01)
    with pytest.raises(MoveError, match=r"1 of its events are handled for longer than 0\.05 s"):
        await move(shop.partitions, 1, patience=short)
    await shop.deliver("b")
    (other,) = await shop.places[0].claim()  # nobody waits for a mover that has given up
    await asyncio.gather(*(shop.places[0].run(*each) for each in (held, other)))
    assert (await move(shop.partitions, 1, patience=Patience(drain=30))).events == 0
    assert await shop.state(shop.partitions.all[1]) == {"a": b"1", "b": b"1"}
    assert await traces(here) == {}


async def test_what_is_delivered_there_before_it_has_come_counts_with_its_attempts(
    redis: Redis,
) -> None:
    handlers = Handlers()

    @handlers.on("*")
    async def fail(event: Event[Any], _: Organization) -> None:
        raise ValueError(event.id)

    partitions = over(redis)
    here, there = (Workplace(redis, handlers, names=each.names) for each in partitions.all[:2])
    sent = body("evt_1", ORG)
    await here.accept(sent, organization=ORG)
    assert await here.handle_next() is Settled.RETRIED
    await there.accept(sent, organization=ORG)
    await move(partitions, 1)
    said = await redis.hgetall(there.partition.names.bytes)
    await recount(there.partition, retention=60)
    assert await redis.hgetall(there.partition.names.bytes) == said
    assert await redis.hlen(there.partition.names.failures) == 1


async def test_what_a_mark_tells_anew_while_others_are_copied_is_there_at_the_end(
    redis: Redis,
) -> None:
    """As of an event that is delivered again once it is done."""
    source, target = over(redis).all[:2]
    name = source.names.event(ORG, "evt_1")
    copies = Copies(Belongings(source, ORG), Belongings(target, ORG))
    await copies.watch()
    for told in ("done:job", "done:job\n\x93 again", "done:job\n\x93 once more"):
        await redis.set(name, told, px=HOUR)
        assert [number async for number in copies.add()] == [1]
    assert [some async for some in copies.left() if some] == []
    await copies.close()
    assert await redis.get(target.names.event(ORG, "evt_1")) == told.encode()
    assert copies.number == 1
