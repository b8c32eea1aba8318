"""All partitions together: where each is, and in which one an organization lives."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.errors import Problem
from shared.queue.keys import UNTAGGED
from shared.queue.partition import TAGS, Partition, home
from shared.redis.cluster import Slot, SlotPool
from shared.redis.connection import (
    REDIS_ERRORS,
    SOCKET_TIMEOUT,
    open_redis,
    server_of,
    slot_of,
    slots_of,
    translate,
)
from shared.settings.config import CommonSettings
from shared.settings.redis_url import RedisUrl

MOST_HOPS: Final = 4
"""From one partition to the next, on the way to an organization that has been moved."""

_NUMBERS: Final = {tag: number for number, tag in enumerate(TAGS)}


@dataclass(frozen=True, slots=True)
class Partitions:
    """Every partition, by its number; of a Redis that isn't divided, the only one.

    Attributes:
        all: in order.
    """

    all: tuple[Partition, ...]

    @classmethod
    def only(cls, redis: Redis) -> Self:
        """The single queue of a Redis that isn't divided."""
        return cls((Partition.only(redis),))

    def __len__(self) -> int:
        return len(self.all)

    def __iter__(self) -> Iterator[Partition]:
        return iter(self.all)

    def of(self, organization: str) -> Partition:
        """The home of an organization, in which it lives unless it has been moved."""
        return self.all[home(organization, len(self.all))]

    async def living(self, organization: str) -> Partition:
        """The one in which an organization lives now; raises what the client does."""
        here = self.of(organization)
        for _ in range(MOST_HOPS):
            found = await self.moved({organization: here})
            if not found:
                break
            here = found[organization]
        return here

    async def moved(self, places: Mapping[str, Partition]) -> dict[str, Partition]:
        """Where those have gone to that have gone from there; raises what the client does."""
        if len(self.all) == 1:
            return {}
        here: dict[int, list[str]] = {}
        for name, partition in places.items():
            here.setdefault(partition.number, []).append(name)
        found: dict[str, Partition] = {}
        for number, names in here.items():
            partition = self.all[number]
            told = await partition.redis.execute_command("HMGET", partition.names.moved, *names)
            moved = zip(names, told, strict=True)
            found |= {name: self.all[int(to)] for name, to in moved if to is not None}
        return found

    def by_primary(self) -> list[list[Partition]]:
        """Those that share a client, together."""
        found: dict[int, list[Partition]] = {}
        for partition in self.all:
            found.setdefault(id(partition.redis), []).append(partition)
        return list(found.values())

    @property
    def in_cluster(self) -> bool:
        """Whether any node of a cluster may have any of them."""
        return isinstance(self.all[0].redis.connection_pool, SlotPool)

    def bearing(self, job: str) -> Partition | None:
        """The one whose tag a job's id bears; ``None`` where one that bears none may be in any."""
        if len(self.all) == 1:
            return self.all[0]
        tag, brace, _ = job.removeprefix("{").partition("}")
        number = _NUMBERS.get(tag, len(self.all)) if brace and job[:1] == "{" else len(self.all)
        return self.all[number] if number < len(self.all) else None


@asynccontextmanager
async def opened(
    openings: Sequence[AbstractAsyncContextManager[Redis]], number: int, *, is_divided: bool = False
) -> AsyncIterator[Partitions]:
    """Those of some independent primaries, or of a cluster, while the clients are open.

    Args:
        openings: of a client each; the partitions are dealt between them in turn.
        number: of partitions, 1 to 256.
        is_divided: whether names bear a tag though there is a single one, and a single client.

    Raises: what the openings do.
    """
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opening) for opening in openings]
        if number == len(clients) == 1 and not is_divided:
            yield Partitions.only(clients[0])
        else:
            dealt = (Partition.at(each, clients[each % len(clients)]) for each in range(number))
            yield Partitions(tuple(dealt))


def open_partitions(
    common: CommonSettings, *, connections: int = 4, socket_timeout: float = SOCKET_TIMEOUT
) -> AbstractAsyncContextManager[Partitions]:
    """Open those that the settings tell of; nothing is sent until the first command.

    Args:
        common: where they are, and how many.
        connections: to each primary at most, or in a cluster for each partition; who finds none
            free waits for one.
        socket_timeout: seconds to connect, and to wait for a reply.

    Raises:
        SettingsError: a certificate that a URL names is not there, or is none.
    """
    openings = [
        open_redis(url, connections=connections, socket_timeout=socket_timeout, slot=slot)
        for url, slot in places(common)
    ]
    return opened(openings, common.partitions, is_divided=common.in_cluster)


def places(common: CommonSettings) -> list[tuple[RedisUrl, Slot | None]]:
    """What each client connects to: a primary or, in a cluster, whoever has a partition's slot.

    Raises:
        SettingsError: a certificate that the URL of a cluster names is not there, or is none.
    """
    if not common.in_cluster:
        return [(url, None) for url in common.redis_urls]
    slots = slots_of(common.redis_url)
    return [(common.redis_url, slot_of(slots, tag)) for tag in TAGS[: common.partitions]]


async def check_layout(
    partitions: Partitions, *, begins: bool = True, drains: bool = False
) -> list[Problem]:
    """What keeps these from being the partitions that other programs have; the first one decides.

    With another number of them, or with the primaries in another order, an organization would live
    elsewhere, and what waits there for it would never be handled. So each primary knows its place,
    and in a cluster, whose nodes have none, each partition the number. One that is away is no
    problem, while there is another one.

    Args:
        partitions: these.
        begins: whether this may be the first one.
        drains: whether it handles what waits, rather than that it accepts more.
    """
    primaries = range(len(partitions.by_primary()))
    looks = [
        check_place(partitions, primary, begins=begins, drains=drains) for primary in primaries
    ]
    found = await asyncio.gather(*looks)
    problems = [problem for each in found for problem in each]
    wrong = [problem for problem in problems if problem.code == "redis_layout"]
    # Where all say the same, once is enough.
    return list(dict.fromkeys(wrong or (problems if all(found) else [])))


async def check_place(
    partitions: Partitions, primary: int, *, begins: bool = True, drains: bool = False
) -> list[Problem]:
    """The same of one primary.

    Args:
        partitions: of all.
        primary: which one, from 0.
        begins: whether this may be the first look at it.
        drains: as above. What an ingress has accepted undivided, after others had divided the
            queue, a worker of a single one handles.
    """
    if partitions.in_cluster:
        return await _check_number(partitions, partitions.all[primary], begins=begins)
    number, primaries = len(partitions), partitions.by_primary()
    first = Partition.at(0, primaries[primary][0].redis)
    # Of one by itself it is the number alone.
    place = f"{number}:{primary + 1}/{len(primaries)}" if len(primaries) > 1 else str(number)
    try:
        found = await first.redis.get(first.names.layout)
        if found is not None and number == 1 and drains:
            found = None if await first.redis.zcard(UNTAGGED.accepted) else found
        if found is None and number > 1:
            if waiting := await first.redis.zcard(UNTAGGED.accepted):
                return [Problem("redis_layout", _undivided(waiting, number))]
            found = await _begun(first, place, begins=begins)
    except REDIS_ERRORS as exc:
        unavailable = translate(exc)
        # Whose users know the names of a single queue only has no partitions.
        if number == 1 and unavailable.code == "redis_permission":
            return []
        return [Problem(unavailable.code, unavailable.message)]
    return _compared(found, place)


async def _check_number(
    partitions: Partitions, partition: Partition, *, begins: bool
) -> list[Problem]:
    """The same of a partition in a cluster.

    Of one that nobody has begun the first one tells: what another number of them would put there
    nobody would find.
    """
    number, first = str(len(partitions)), partitions.all[0]
    try:
        found = await partition.redis.get(partition.names.layout)
        if found is None:
            found = await _begun(first, number, begins=begins)
            if not _compared(found, number):
                found = await _begun(partition, number, begins=begins)
    except REDIS_ERRORS as exc:
        unavailable = translate(exc)
        return [Problem(unavailable.code, unavailable.message)]
    return _compared(found, number)


async def _begun(partition: Partition, place: str, *, begins: bool) -> bytes | None:
    """What it knows of its place, once this may have been the first to say so."""
    redis, layout = partition.redis, partition.names.layout
    if begins:
        await redis.set(layout, place, nx=True)
    found: bytes | None = await redis.get(layout)
    return found


def _compared(found: bytes | None, place: str) -> list[Problem]:
    if found is None or found.decode() == place:
        return []
    return [Problem("redis_layout", _wrong_place(found.decode(), place))]


async def undivided(partition: Partition) -> int:
    """How many events wait in a partition's Redis under the names of a single queue.

    An ingress that was still there with the old setting may accept some after the division: the
    workers of the partitions never see them. Where nobody may ask there are none, nor in a cluster,
    where a single queue bears a tag as well.

    Raises: what the client does, but for a refusal.
    """
    # It would ask the node of one slot for what another one has, and put in doubt where that is.
    if isinstance(partition.redis.connection_pool, SlotPool):
        return 0
    try:
        waiting: int = await partition.redis.zcard(UNTAGGED.accepted)
    except ResponseError:
        return 0
    return waiting


async def warn_of_undivided(partitions: Partitions) -> list[str]:
    """Where any wait so, and what to do about it; one that doesn't answer is left out."""
    if len(partitions) == 1:
        return []
    found = []
    for there in partitions.by_primary():
        with suppress(*REDIS_ERRORS):
            if waiting := await undivided(there[0]):
                found.append(_undivided_at(server_of(there[0].redis), waiting))
    return found


def _undivided_at(server: str, waiting: int) -> str:
    events = "1 event waits" if waiting == 1 else f"{waiting:,} events wait"
    return (
        f"{events} undivided at {server}, accepted by an ingress with PARTITIONS=1: "
        "run a worker with PARTITIONS=1 against it until none is left"
    )


def _undivided(waiting: int, number: int) -> str:
    until = f"until the {waiting} events that wait here undivided are handled"
    return f"PARTITIONS: expected 1 {until}, got {number}"


def _wrong_place(expected: str, got: str) -> str:
    (number, _, where), (own, _, there) = expected.partition(":"), got.partition(":")
    if number != own:
        return f"PARTITIONS: expected {number}, as many as this Redis was begun with, got {own}"
    places = f"{where or '1/1'} in the list, as this Redis was begun with, got {there or '1/1'}"
    return f"REDIS_URL: expected place {places}"
