"""The primaries that hold the partitions: each is written to, and looked at, beside the others."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self

from redis.asyncio import Redis

from ingress.http.receive import Writer
from ingress.organization_bytes import OrganizationBytes
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import CurrentEndpoints
from shared.errors import Problem
from shared.program.awaiting import MENDS_ITSELF, AwaitedPrimary
from shared.queue import hashes
from shared.queue.partition import BEFORE, Partition
from shared.queue.partitions import Partitions, check_place
from shared.queue.writer import (
    LANES,
    BacklogLimits,
    PartitionedWriter,
    PartitionWriter,
    Queue,
    QueueWriter,
    Waiting,
)
from shared.redis.connection import REDIS_ERRORS, end, open_redis, server_of
from shared.redis.durability import Durability, check_durability, check_replicas
from shared.settings.config import CommonSettings
from shared.settings.redis_url import RedisUrl

_LOOK_SECONDS: Final = 0.5
"""How long a look at several waits for all of them, once one is well."""

_LEARN_SECONDS: Final = 5.0
"""How often each home is asked who has moved from there."""

_OTHERS: Final = 4
"""Connections to each beside the writers': readiness, gauges, its memory."""

_NAMED: Final = 8
"""How many partitions a message names at the most."""

_TIMEOUT: Final = Problem("redis_timeout", "Redis did not answer in time")


def lanes(common: CommonSettings) -> int:
    """How many batches of one partition may be on their way at once.

    What has several partitions has as many batches under way beside each other; how many a node of
    a cluster has changes.
    """
    if common.in_cluster:
        return LANES // 2
    return max(2, LANES // common.partitions_each)


def connections(common: CommonSettings) -> int:
    """How many there may be of each client."""
    return lanes(common) * common.partitions_each + _OTHERS


def where(common: CommonSettings, *clients: int) -> str:
    """What is reached by one of several clients, or by some of the same cluster, for people.

    Args:
        common: where they are; a primary has its place in ``REDIS_URL``.
        clients: from 0.
    """
    if common.clients == 1:
        return str(common.redis_url)
    numbers = [number for number in range(common.partitions) if number % common.clients in clients]
    more = ", …" if len(numbers) > _NAMED else ""
    listed = ", ".join(map(str, numbers[:_NAMED])) + more
    return f"{common.url_of(clients[0])} (partitions {listed} of {common.partitions})"


def before_named(url: RedisUrl) -> str:
    """What the Redis of a single queue is called that organizations leave."""
    return f"{url} (REDIS_URL_BEFORE)"


@dataclass(slots=True)
class Primary:
    """One of them; in a cluster, whoever has one partition now.

    Attributes:
        number: its place in ``REDIS_URL``, or the partition's number, from 0.
        named: what it is called.
        partitions: those of all primaries.
        redis: its client.
        durability: what must hold before it counts as having an event.
        held: how much of it organizations may hold.
        writers: those of its partitions.
        problems: what was wrong with it at the last look.
        unfit: what keeps it from being written to, since the first look.
    """

    number: int
    named: str
    partitions: Partitions
    redis: Redis
    durability: Durability
    held: OrganizationBytes
    writers: list[QueueWriter] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unfit: list[Problem] = field(default_factory=list)
    _looking: "asyncio.Task[list[Problem]] | None" = None

    async def first_look(self) -> list[Problem]:
        """What keeps it from keeping accepted events; where nothing does, it may be written to."""
        problems = await check_durability(self.redis, self.durability)
        problems = problems or await check_replicas(self.redis, self.durability)
        if self.number != BEFORE:
            problems = problems or await check_place(self.partitions, self.number)
        if not problems:
            for writer in self.writers:
                await writer.fit()
        self.problems = self.unfit = problems
        return problems

    def look(self) -> "asyncio.Task[list[Problem]]":
        """Begin to look, unless a look is under way."""
        if self._looking is None:
            self._looking = asyncio.create_task(check_durability(self.redis, self.durability))
        return self._looking

    def note(self) -> None:
        """Take what the look has found by now."""
        if self._looking is not None:
            self.problems = [_TIMEOUT]
            if self._looking.done():
                looked, self._looking = self._looking, None
                # It may keep what it is given, and yet be the wrong one.
                self.problems = looked.result() or self.unfit

    async def close(self) -> None:
        """End the look that is under way."""
        if self._looking is not None:
            await end([self._looking])


class Primaries:
    """All of them; a single one is the Redis of a queue that isn't divided, or of all partitions.

    Args:
        settings: how the ingress is set.
        partitions: those that they hold together.
        endpoints: knows whose are served now.
        before: the Redis of a single queue from which organizations move into these, while they do.
    """

    def __init__(
        self,
        settings: IngressSettings,
        partitions: Partitions,
        endpoints: CurrentEndpoints,
        before: Redis | None = None,
    ) -> None:
        common = settings.common
        self._partitions = partitions
        self.all = [
            Primary(
                number,
                where(common, number),
                partitions,
                partitions.all[number].redis,
                settings.durability_at(common.url_of(number)),
                OrganizationBytes(settings.organization_bytes, endpoints),
            )
            for number in range(common.clients)
        ]
        self._common = common
        self._writers = [*self._made(settings)]
        self._before = None if before is None else self._left(settings, before, endpoints)
        old = self._before.writers[0] if self._before else None
        self._partitioned = PartitionedWriter(self._writers, old)

    @property
    def writer(self) -> Writer:
        """Where deliveries go."""
        writers = self._writers
        return writers[0] if len(writers) == 1 else self._partitioned

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, settings: IngressSettings, partitions: Partitions, endpoints: CurrentEndpoints
    ) -> AsyncIterator[Self]:
        """All of them, as above; what the writers hold is sent before the block has ended."""
        async with AsyncExitStack() as stack:
            before, url = None, settings.common.redis_url_before
            if url is not None:
                opening = open_redis(url, connections=lanes(settings.common) + _OTHERS)
                before = await stack.enter_async_context(opening)
            primaries = cls(settings, partitions, endpoints, before)
            for primary in primaries._every:
                stack.push_async_callback(primary.close)
                for writer in primary.writers:
                    stack.push_async_callback(writer.drain)
            yield primaries

    @property
    def _every(self) -> list[Primary]:
        """All that are written to."""
        return [*self.all, self._before] if self._before else self.all

    def limit_of(self, organization: str) -> int:
        """What an organization may hold, bytes; 0: no limit."""
        number = self._partitioned.place_of(organization)
        return self.all[number % len(self.all)].held.limit_of(organization)

    async def first_look(self) -> list[Problem]:
        """What keeps this process from beginning; where nothing does, it may.

        One that works is enough, but for what somebody has to mend. Those that are there have to
        agree on how many partitions there are, and where.
        """
        await asyncio.gather(*(primary.first_look() for primary in self._every))
        await self._learn()
        problems = self._problems()
        works = not all(each.problems for each in self._every)
        return [] if works and not any(map(_keeps_all, problems)) else problems

    def are_right(self, partition: Partition) -> bool:
        """Whether its primary has shown that it is the one that it has to be."""
        return not self.all[partition.number % len(self.all)].unfit

    async def problems(self) -> list[Problem]:
        """What keeps the ingress from being ready: nothing, while one of them works."""
        looks = [primary.look() for primary in self._every]
        await asyncio.wait(looks, timeout=_LOOK_SECONDS)
        self._note()
        if all(each.problems for each in self._every):  # whoever is slow may be well
            await asyncio.wait(looks)
            self._note()
        return self._problems() if all(each.problems for each in self._every) else []

    def notes(self) -> list[Problem]:
        """What is wrong with some, though this process is ready."""
        return self._problems() if len(self._every) > 1 else []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Ask each for its memory, and who has moved; write to one that is away once it isn't."""
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(AwaitedPrimary(each.first_look, named=each.named).found())
            for each in self._every
            if each.unfit
        ]
        tasks.append(asyncio.create_task(self._learn_again()))
        try:
            async with AsyncExitStack() as stack:
                for primary in self._every:
                    await stack.enter_async_context(primary.held.watching(primary.redis))
                yield
        finally:
            await end(tasks)

    def _made(self, settings: IngressSettings) -> Iterator[QueueWriter]:
        limits, several = settings.limits, len(self.all) > 1
        most = _halves(settings) if several else (limits.connections, limits.bytes_in_flight)
        waiting: dict[str, Waiting] = defaultdict(partial(Waiting, *most))

        def waiting_for(redis: Redis) -> Callable[[], Waiting]:
            if settings.common.in_cluster:  # another node may have it in a moment
                return lambda: waiting[server_of(redis)]
            found = waiting[str(id(redis))]
            return lambda: found

        for partition in self._partitions:
            number = partition.number % len(self.all)
            primary = self.all[number]
            queue = Queue(
                *(partition, primary.durability, settings.backlog, primary.held.limits),
                lanes=lanes(settings.common),
            )
            is_alone = len(self._partitions) == 1
            writer = (
                QueueWriter(queue)
                if is_alone
                else PartitionWriter(queue, waiting_for(partition.redis))
            )
            primary.writers.append(writer)
            yield writer

    def _left(
        self, settings: IngressSettings, redis: Redis, endpoints: CurrentEndpoints
    ) -> Primary | None:
        """The Redis of a single queue that organizations leave."""
        common, url = settings.common, settings.common.redis_url_before
        if url is None:
            return None
        held = OrganizationBytes(settings.organization_bytes, endpoints)
        left = Primary(
            *(BEFORE, before_named(url), self._partitions, redis),
            *(settings.durability_at(url), held),
        )
        # It isn't one of several that have a part each.
        part, times = settings.backlog, common.partitions
        whole = BacklogLimits(part.total * times, part.organization * times)
        queue = Queue(
            *(Partition.only(redis), left.durability, whole, held.limits),
            lanes=lanes(common),
            is_left=True,
        )
        waiting = Waiting(*_halves(settings))
        left.writers.append(PartitionWriter(queue, lambda: waiting))
        return left

    async def _learn_again(self) -> None:
        while True:
            await asyncio.sleep(_LEARN_SECONDS)
            await self._learn()

    async def _learn(self) -> None:
        """Find out where those live that have left their home, before that is away."""
        if len(self._partitions) > 1:
            there = filter(self.are_right, self._partitions)
            await asyncio.gather(*map(self._learn_from, there))

    async def _learn_from(self, partition: Partition) -> None:
        with suppress(*REDIS_ERRORS):
            gone = await hashes.whole(partition.redis, partition.names.moved)
            self._partitioned.learn(partition.number, gone)

    def _note(self) -> None:
        for primary in self._every:
            primary.note()

    def _problems(self) -> list[Problem]:
        if len(self._every) == 1:
            return self.all[0].problems
        # Nodes of a cluster that have the same one, once.
        whose: dict[tuple[RedisUrl, Problem], list[int]] = {}
        for primary in self.all:
            url = self._common.url_of(primary.number)
            for problem in primary.problems:
                whose.setdefault((url, problem), []).append(primary.number)
        found = [
            Problem(each.code, f"{where(self._common, *clients)}: {each.message}")
            for (_, each), clients in whose.items()
        ]
        if self._before is not None:
            named = self._before.named
            found += [
                Problem(each.code, f"{named}: {each.message}") for each in self._before.problems
            ]
        return found


def _halves(settings: IngressSettings) -> tuple[int, int]:
    """How many connections, and bytes, may wait for one of several.

    Those of one Redis that hangs leave as many connections for the others; and of the bytes a half
    of those that complete bodies always find room in.
    """
    return settings.limits.connections // 2, settings.limits.bytes_in_flight // 4


def _keeps_all(problem: Problem) -> bool:
    """Whether it keeps the whole process from beginning, whichever primary has it."""
    return problem.code == "redis_layout" or not MENDS_ITSELF.get(problem.code, False)
