"""A shop that goes on while its organization is moved, and movers that die."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.writer import Accepted, PartitionedWriter, Queue, QueueWriter
from shared.redis.durability import Durability, Mode
from tests.integration.jobs import delivery
from tests.integration.several import ORGANIZATIONS
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject
from worker.operate.moving import Move, Patience, Progress

ORG = ORGANIZATIONS[0]
KEYS = ("a", "b", "c")
SHORT = Patience(lock=0.03)

_PATIENCE = 120.0
_ASKED_IN_TURN = 4
"""Calls of one look of a mover that waits."""


class Died(BaseException):
    """A mover is ended, wherever it is."""


@dataclass
class Life:
    """How often a mover has asked any Redis for something, and after how often it is to end.

    Who waits asks the same again and again, and the longer the machine is busy the more often: that
    counts once, or a mover that is to die later each time would never be through.
    """

    calls: int = 0
    most: int = 1 << 30
    _last: deque[object] = field(default_factory=lambda: deque(maxlen=_ASKED_IN_TURN))

    def count(self, asked: object = None) -> None:
        """One more is done."""
        if asked is None or asked not in self._last:
            self.calls += 1
            self._last.append(asked)
        self.check()

    def check(self) -> None:
        """End here, if it has been ended: who is dead asks for nothing any more."""
        if self.calls > self.most:
            raise Died

    def begin(self, most: int = 1 << 30) -> None:
        """Live until so many more are done, and one."""
        self.calls, self.most = 0, most
        self._last.clear()


class Mortal(Redis):
    """A client for whoever has one life; what was asked last has been done."""

    def __init__(self, redis: Redis, life: Life) -> None:
        super().__init__(connection_pool=redis.connection_pool)
        self._life = life

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self._life.check()
        answer = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self._life.count(args)
        return answer

    def pipeline(self, *args: Any, **options: Any) -> Any:
        pipe = super().pipeline(*args, **options)
        execute = pipe.execute

        async def counted(*args: Any, **options: Any) -> Any:
            self._life.check()
            answer = await execute(*args, **options)
            self._life.count()
            return answer

        pipe.execute = counted  # type: ignore[method-assign]
        return pipe


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
    before: Partition | None = None
    sent: Counter[str] = field(default_factory=Counter)
    ends: bool = False
    has_failed: bool = False

    def __post_init__(self) -> None:
        queues = [Queue(each, Durability(Mode.MEMORY)) for each in self.partitions]
        old, memory = self.before, Durability(Mode.MEMORY)
        left = QueueWriter(Queue(old, memory, is_left=True)) if old else None
        self.writer = PartitionedWriter([QueueWriter(each) for each in queues], left)
        self.all = [*self.partitions, *([old] if old else [])]
        self.places = [Workplace(each.redis, handlers(), names=each.names) for each in self.all]

    async def deliver(self, key: str, **data: Any) -> None:
        """Have the next event of a key accepted; it never isn't."""
        self.sent[key] += 1
        number = self.sent[key]
        signed = body(f"{key}_{number}", ORG, data={"order_id": key, "n": number, **data})
        assert await self.writer.accept(delivery(signed, ORG)) is Accepted.NEW

    async def send(self, key: str) -> None:
        while not self.ends:
            began = monotonic()
            await self.deliver(key)
            # Fewer on a busy machine: each move copies the marks of all, and would take longer.
            await asyncio.sleep(max(0.1, 20 * (monotonic() - began)))

    async def work(self, place: Workplace) -> None:
        while not (self.has_failed or (self.ends and await self.is_done())):
            claimed = await place.claim(8)
            await asyncio.gather(*(place.run(*each) for each in claimed))
            await asyncio.sleep(0 if claimed else 0.05)

    async def is_done(self) -> bool:
        return not any([await each.redis.zcard(each.names.accepted) for each in self.all])

    async def work_off(self, partition: int) -> None:
        """Handle what waits there."""
        place = self.places[partition]
        async with asyncio.timeout(_PATIENCE):
            while await place.redis.zcard(place.partition.names.accepted):
                for each in await place.claim(40):
                    await place.run(*each)

    @asynccontextmanager
    async def busy(self, patience: float = 300) -> AsyncIterator[None]:
        """Send, and handle, until the block ends and all is handled."""
        # Who only cancels those that work would wait for one that takes that for its handler's end.
        timer = asyncio.get_running_loop().call_later(patience, self._give_up)
        async with asyncio.timeout(patience), asyncio.TaskGroup() as tasks:
            for place in self.places:
                tasks.create_task(self.work(place))
            for key in KEYS:
                tasks.create_task(self.send(key))
            try:
                yield
            except BaseException:
                self._give_up()
                raise
            self.ends = True
        timer.cancel()

    def _give_up(self) -> None:
        self.ends = self.has_failed = True

    async def state(self, partition: Partition) -> dict[str, bytes]:
        start = partition.names.state(ORG, "")
        found = [name async for name in partition.redis.scan_iter(match=f"{start}*", count=1000)]
        values = await partition.redis.mget(found)
        texts = [name.decode().removeprefix(start) for name in found]
        return dict(zip(texts, values, strict=True))


async def traces(partition: Partition) -> dict[str, Any]:
    """Whatever in a partition bears the organization's name, but for where it is by now."""
    found, redis = dict[str, Any](), partition.redis
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


async def move(partitions: Partitions, to: int, **options: Any) -> Progress:
    return await Move(partitions, ORG, partitions.all[to], **options).run()
