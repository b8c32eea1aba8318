"""Facts about moving an organization: under load, and whenever its mover dies, nothing is amiss."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from statistics import median
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.writer import Accepted, PartitionedWriter, Queue, QueueWriter
from shared.redis.durability import Durability, Mode
from tests.integration.jobs import delivery
from tests.integration.several import ORGANIZATIONS, over
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject
from worker.operate.moving import Move, MoveError, Patience, Progress

ORG = ORGANIZATIONS[0]
KEYS = ("a", "b", "c")
SHORT = Patience(lock=0.03)


class Died(BaseException):
    """A mover is ended, wherever it is."""


class Mortal(Redis):
    """Ends whoever asks it once more than it may be asked; what was asked last has been done."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(connection_pool=redis.connection_pool)
        self.calls, self.most = 0, 1 << 30

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self._check()
        answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self._count()
        return answer

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe = super().pipeline(*args, **options)
        execute = pipe.execute

        async def counted(*args: Any, **options: Any) -> Any:
            self._check()
            answer = await execute(*args, **options)
            self._count()
            return answer

        pipe.execute = counted  # type: ignore[method-assign]
        return pipe

    def _count(self) -> None:
        self.calls += 1
        self._check()

    def _check(self) -> None:
        if self.calls > self.most:
            raise Died


def handlers() -> Handlers:
    """One whose events are applied once each, and in their order for each key."""
    found = Handlers()

    @found.on("order.updated", key="order_id")
    async def apply(event: Event[dict[str, Any]], organization: Organization) -> Reject | None:
        if event.data.get("bad"):
            return Reject("a test")
        applied = await organization.state.get(event.data["order_id"], 0)
        if event.data["n"] != applied + 1:
            await organization.state.increment("amiss")
        await organization.state.put(event.data["order_id"], applied + 1)
        return None

    return found


@dataclass
class Shop:
    """Senders and workers of all partitions, as long as a test lasts."""

    partitions: Partitions
    sent: Counter[str] = field(default_factory=Counter)
    ends: bool = False

    def __post_init__(self) -> None:
        queues = [Queue(each, Durability(Mode.MEMORY)) for each in self.partitions]
        self.writer = PartitionedWriter([QueueWriter(each) for each in queues])
        self.places = [
            Workplace(each.redis, handlers(), names=each.names) for each in self.partitions
        ]

    async def deliver(self, key: str, **data: Any) -> None:
        """Have the next event of a key accepted; it never isn't."""
        self.sent[key] += 1
        number = self.sent[key]
        signed = body(f"{key}_{number}", ORG, data={"order_id": key, "n": number, **data})
        assert await self.writer.accept(delivery(signed, ORG)) is Accepted.NEW

    async def send(self, key: str) -> None:
        while not self.ends:
            await self.deliver(key)
            await asyncio.sleep(0.05)

    async def work(self, place: Workplace) -> None:
        while not (self.ends and await self.is_done()):
            claimed = await place.claim(8)
            await asyncio.gather(*(place.run(*each) for each in claimed))
            await asyncio.sleep(0 if claimed else 0.02)

    async def is_done(self) -> bool:
        names = [each.names.accepted for each in self.partitions]
        return not any([await self.places[0].redis.zcard(name) for name in names])

    async def work_off(self, partition: int) -> None:
        """Handle what waits there."""
        place = self.places[partition]
        while await place.redis.zcard(place.partition.names.accepted):
            for each in await place.claim(40):
                await place.run(*each)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Send, and handle, until the block ends and all is handled."""
        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            for place in self.places:
                tasks.create_task(self.work(place))
            for key in KEYS:
                tasks.create_task(self.send(key))
            yield
            self.ends = True

    async def state(self, partition: Partition) -> dict[str, bytes]:
        start = partition.names.state(ORG, "")
        found = [name async for name in partition.redis.scan_iter(match=f"{start}*", count=1000)]
        values = await partition.redis.mget(found)
        texts = [name.decode().removeprefix(start) for name in found]
        return dict(zip(texts, values, strict=True))


async def traces(redis: Redis, partition: Partition) -> dict[str, Any]:
    """Whatever in a partition bears the organization's name, but for where it is by now."""
    found: dict[str, Any] = {}
    async for raw in redis.scan_iter(match=f"*{partition.names.job_prefix}*", count=1000):
        name, kind = raw.decode(), await redis.type(raw)
        held: Any = ()
        if kind == b"hash":
            held = [*(await redis.hgetall(raw)).items()]
        elif kind in {b"zset", b"set"}:
            held = await (redis.zrange(raw, 0, -1) if kind == b"zset" else redis.smembers(raw))
        its_own = [each for each in held if ORG.encode() in repr(each).encode()]
        if name != partition.names.moved and (ORG in name or its_own):
            found[name] = its_own
    return found


async def move(redis: Redis, to: int, **options: Any) -> Progress:
    partitions = over(redis)
    return await Move(partitions, ORG, partitions.all[to], **options).run()


async def test_a_mover_may_die_after_any_of_its_calls_while_events_come_in(redis: Redis) -> None:
    shop, mortal = Shop(over(redis)), Mortal(redis)
    for _ in range(300):
        await shop.deliver("done")
    for _ in range(20):
        await shop.deliver("bad", bad=True)
    await shop.work_off(0)
    to, held = 0, list[float]()
    async with shop.busy():
        for most in count():
            mortal.calls, mortal.most, to = 0, most, (to + 1) % 4
            try:
                await move(mortal, to, patience=SHORT)
                break
            except Died:
                mortal.most = 1 << 30
            held.append((await move(mortal, to, patience=SHORT)).held)
            last = shop.partitions.all[to - 1]
            assert await traces(redis, last) == {}
    assert most > 30
    assert median(held) < 1
    bad = shop.sent.pop("bad")
    expected = {key: str(number).encode() for key, number in shop.sent.items()}
    assert await shop.state(shop.partitions.all[to]) == expected
    there = shop.partitions.all[to]
    assert await redis.zcard(there.names.dead(ORG)) == bad


HOUR = 3_600_000


def jobs_of(partition: Partition) -> list[str]:
    return [f"{partition.names.job_prefix}{ORG}:{number:032x}" for number in range(6)]


def everything(partition: Partition, now: int, shift: float) -> dict[str, Any]:
    """Something under each name that may hold something of an organization: what there is of it."""
    names = partition.names
    zero, one, two, three, four, five = jobs_of(partition)
    turn = f"{names.turn}{ORG}:key:k"
    kind = f"{turn}\nhandler"

    def in_turn(*, waits: bool) -> bytes:
        return msgspec.msgpack.encode([turn, "", kind, waits, 0, False])

    return {
        **{names.payload(job): f"payload {job[-1]}" for job in (one, two, three, four, five)},
        names.arq_retry + one: "2",
        names.accepted: {job: 1000.5 + n for n, job in enumerate(jobs_of(partition)) if n},
        names.queue: {two: now + HOUR},
        names.parked(ORG): {one: 5 + shift, four: 6 + shift, five: 7.25 + shift},
        names.held_back: {ORG},
        names.claims: {
            one: f":1:0:{5 + shift:g}:evt_1",
            two: f"{'a' * 40}:2:1:{5 + shift:g}:evt_2",
        },
        names.running: {ORG: "1"},
        names.waiting: {ORG: "5"},
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
        },
        names.due: {f"hold:{ORG}": now + HOUR},
        names.breakers: {ORG: now + HOUR},
        names.rates: {ORG: "100:100", f"next:{ORG}": "1", f"ramp:{ORG}": f"{now}:10:1"},
        names.dead(ORG): {zero: 77.0},
        names.dead_letter(zero): {"organization": ORG, "payload": "x", "error": "", "held": "3"},
        names.event(ORG, "evt_1"): f"pending:{names.in_mark(one)}",
        names.event(ORG, "evt:{0}"): f"dead:{names.in_mark(zero)}",
        names.event(ORG, "evt_done"): "done:x",
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
    await redis.hset(here.names.flows, mapping={"*": 6, ORG: 9.5, f"retry:{ORG}": 8})
    await redis.hset(here.names.flows, f"order:{ORG}", "1006")
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
        for name in await traces(redis, here)
        if name.startswith(getattr(here.names, each))
    }
    assert its_own - seen == {"moved", "moving", "undecided"}

    progress = await move(redis, 1)
    assert (progress.events, progress.letters) == (5, 1)
    assert await traces(redis, here) == {}
    expected = as_read(everything(there, now, 40 + 1 - 5))
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
    assert (await move(redis, 0)).events == 5
    assert await traces(redis, there) == {}
    assert await redis.hgetall(here.names.moved) == {}


async def test_there_is_one_mover_at_a_time_and_one_way(redis: Redis) -> None:
    shop, mortal = Shop(over(redis)), Mortal(redis)
    here, there, other = shop.partitions.all[:3]
    await shop.deliver("a")
    ghost = Move(over(mortal), ORG, there, Patience(lock=0.4))
    mortal.most = 18
    with pytest.raises(Died):
        await ghost.run()
    assert await redis.hget(here.names.moving, ORG) == b"out:1:0"
    with pytest.raises(MoveError, match="on its way to partition 1"):
        await move(redis, 2)
    steps: list[str] = []
    await move(redis, 1, told=lambda progress: steps.append(progress.step))
    assert steps[0] == "waiting for another mover"
    assert await traces(redis, here) == {}
    # It comes to again, though another has gone on in its place, and changes nothing.
    before = {name: await redis.dump(name) for name in await redis.keys()}
    mortal.most = 1 << 30
    for step in (ghost._depart, ghost._carry, ghost._clear):
        with pytest.raises(MoveError, match="taken org_0 over"):
            await step()
    assert {name: await redis.dump(name) for name in await redis.keys()} == before
    await move(redis, 2)
    assert await traces(redis, there) == {}
    assert await redis.hgetall(here.names.moved) == {ORG.encode(): b"2"}
    assert await shop.state(other) == {}


async def test_handlers_that_take_too_long_keep_it_where_it_is(redis: Redis) -> None:
    shop = Shop(over(redis))
    here = shop.partitions.all[0]
    await shop.deliver("a")
    (held,) = await shop.places[0].claim()
    short = Patience(drain=0.05, all_in_all=0.01)
    with pytest.raises(MoveError, match=r"1 of its events are handled for longer than 0\.05 s"):
        await move(redis, 1, patience=short)
    await shop.deliver("b")
    (other,) = await shop.places[0].claim()  # nobody waits for a mover that has given up
    await asyncio.gather(*(shop.places[0].run(*each) for each in (held, other)))
    assert (await move(redis, 1, patience=short)).events == 0
    assert await shop.state(shop.partitions.all[1]) == {"a": b"1", "b": b"1"}
    assert await traces(redis, here) == {}
