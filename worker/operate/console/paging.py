"""One page of dead letters at a time, the newest first, however many there are."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final, NamedTuple, Self, TypeAlias

from shared.queue.partition import Partition
from shared.queue.reach import Reach
from worker.operate import dead_letters
from worker.operate.console.wording import from_reference, to_reference
from worker.operate.dead_letters import DeadLetter, Filter

SIZE: Final = 50
"""Dead letters on a page."""

MOST_LOOKED_AT: Final = 1000
"""Records that one page may cost where few of them match the filter."""

LONGEST: Final = 0.1
"""Seconds after which such a page ends early, too: many organizations are many to ask."""

_AT_ONCE: Final = 200


class Place(NamedTuple):
    """Where a dead letter stands: pages go from the greatest place to the least.

    Attributes:
        died_at: epoch milliseconds.
        organization: whose it is.
        job: its id.
    """

    died_at: int
    organization: str
    job: str

    def written(self) -> str:
        """The place as a text for an address."""
        return f"{self.died_at}~{self.organization}~{to_reference(self.job)}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place in such a text; ``None`` where it is none."""
        died_at, _, rest = text.partition("~")
        organization, _, job = rest.partition("~")
        if not died_at.isascii() or not died_at.isdigit() or len(died_at) > 15 or not job:  # noqa: PLR2004  # more digits than a time can have
            return None
        return cls(int(died_at), organization, from_reference(job))


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows.

    Attributes:
        letters: without their payloads.
        after: where the next page begins; ``None`` on the last one.
        looked_at: how many records were read for it.
        is_full: whether there was room for no more.
    """

    letters: Sequence[DeadLetter]
    after: Place | None
    looked_at: int
    is_full: bool


async def read_page(reach: Reach, wanted: Filter, after: Place | None) -> Page:
    """The dead letters that match, from behind a place on.

    It reads by rank and by time, so the last page of many costs what the first does. Reason and
    type stand only in the records: where few match, the page ends early and says where to go on.
    """
    holders = await _holders(reach, wanted)
    letters: list[DeadLetter] = []
    looked_at, until = 0, monotonic() + LONGEST
    while looked_at < MOST_LOOKED_AT and monotonic() < until:
        # One more than is shown tells whether there is another page.
        number = _AT_ONCE if wanted.reason or wanted.type else SIZE - len(letters) + 1
        places = await _places_in_all(reach, holders, wanted, after, number)
        if not places:
            return Page(letters, None, looked_at, is_full=False)
        found = await _records(reach, places)
        for place, holder in places:
            letter = found.get((holder, place.job))
            matches = letter is not None and wanted.matches(letter)
            if matches and len(letters) == SIZE:
                return Page(letters, after, looked_at, is_full=True)
            if letter is not None and matches:
                letters.append(letter)
            looked_at += 1
            after = place
    return Page(letters, after, looked_at, is_full=False)


_Located: TypeAlias = tuple[Place, int]
"""A place, and the number of the partition that has it."""


async def _holders(reach: Reach, wanted: Filter) -> dict[int, list[str]]:
    """Whose dead letters may be meant, by partition."""
    found = await reach.gather(
        lambda partition: dead_letters.organizations(partition, wanted),
        await reach.having(wanted.organization),
    )
    return {partition.number: names for partition, names in found}


async def _places_in_all(
    reach: Reach,
    holders: Mapping[int, Sequence[str]],
    wanted: Filter,
    after: Place | None,
    number: int,
) -> list[_Located]:
    """The next places over all partitions."""

    async def places_in(partition: Partition) -> list[Place]:
        return await _places(partition, holders[partition.number], wanted, after, number)

    among = [reach.partitions.all[each] for each in holders]
    found = await reach.gather(places_in, among)
    return next_of_all({partition.number: places for partition, places in found}, number)


def next_of_all(lists: Mapping[int, Sequence[Place]], most: int) -> list[_Located]:
    """The next so many of lists by partition, each from the greatest place to the least.

    No place says in which partition it is: so whoever comes with one goes on in all of them.
    """
    located = ([(place, number) for place in places] for number, places in lists.items())
    return list(islice(heapq.merge(*located, reverse=True), most))


async def _records(reach: Reach, places: Sequence[_Located]) -> dict[tuple[int, str], DeadLetter]:
    async def read_in(partition: Partition) -> list[DeadLetter]:
        jobs = [place.job for place, number in places if number == partition.number]
        return await dead_letters.read(partition, jobs, with_payload=False)

    among = [reach.partitions.all[number] for number in {number for _, number in places}]
    found = await reach.gather(read_in, among)
    return {(partition.number, each.job): each for partition, some in found for each in some}


async def number_of(reach: Reach, wanted: Filter) -> int | None:
    """How many there are; ``None`` where only reading all of them would tell."""
    if wanted.reason or wanted.type:
        return None

    async def number_in(partition: Partition) -> int:
        async with partition.redis.pipeline(transaction=False) as pipe:
            for organization in await dead_letters.organizations(partition, wanted):
                pipe.zcount(
                    partition.names.dead(organization), _least(wanted), _below(wanted.died_before)
                )
            return sum(map(int, await pipe.execute()))

    among = await reach.having(wanted.organization)
    return sum(number for _, number in await reach.gather(number_in, among))


def _least(wanted: Filter) -> str | int:
    return "-inf" if wanted.died_after is None else wanted.died_after


def _below(limit: int | None) -> str:
    return "+inf" if limit is None else f"({limit}"


async def _next(
    partition: Partition,
    wanted: Filter,
    starts: Mapping[str, str],
    ranks: Mapping[str, int],
    number: int,
) -> list[Place]:
    """The next so many of each organization, in order, no older than the filter says.

    Args:
        partition: where they are.
        wanted: says how old they may be.
        starts: for each organization, the greatest time at which they may have died.
        ranks: of the next one among its organization's, where that is known.
        number: how many.
    """
    least = _least(wanted)
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name, start in starts.items():
            span: tuple[str | int, ...] = (start, least, "BYSCORE", "REV", "LIMIT", 0, number)
            if (rank := ranks.get(name)) is not None:
                span = (rank, rank + number - 1, "REV")
            pipe.execute_command("ZRANGE", partition.names.dead(name), *span, "WITHSCORES")
        answers = await pipe.execute()
    places = [
        Place(round(float(died_at)), name, job.decode(errors="surrogateescape"))
        for name, answer in zip(starts, answers, strict=True)
        for job, died_at in zip(answer[::2], answer[1::2], strict=True)
    ]
    if wanted.died_after is not None:  # what was read by rank may be older
        places = [place for place in places if place.died_at >= wanted.died_after]
    return sorted(places, reverse=True)


async def _places(
    partition: Partition,
    organizations: Sequence[str],
    wanted: Filter,
    after: Place | None,
    number: int,
) -> list[Place]:
    """The next places over all these organizations.

    The next so many can only be in as many organizations: those whose own next ones come first.
    """
    starts = {name: _start(name, wanted, after) for name in organizations}
    ranks = {}
    if after and after.organization in starts:
        ranks[after.organization] = await _rank_behind(partition, after)
    if len(organizations) > 1:
        firsts = await _next(partition, wanted, starts, ranks, 1)
        leading = {place.organization for place in firsts[:number]}
        starts = {name: start for name, start in starts.items() if name in leading}
    return (await _next(partition, wanted, starts, ranks, number))[:number]


def _start(organization: str, wanted: Filter, after: Place | None) -> str:
    """The greatest time at which an organization's next ones may have died."""
    if after is None:
        return _below(wanted.died_before)
    # Among those of one millisecond the organizations come in order.
    return str(after.died_at) if organization < after.organization else f"({after.died_at}"


async def _rank_behind(partition: Partition, after: Place) -> int:
    """How many of its organization's dead letters come before the next one behind a place.

    The one that stood there may be gone by now: then its place is found among those that died in
    the same millisecond.
    """
    name, job = partition.names.dead(after.organization), after.job.encode(errors="surrogateescape")
    rank = await partition.redis.execute_command("ZREVRANK", name, job)
    if rank is not None:
        return int(rank) + 1
    low = int(await partition.redis.execute_command("ZCOUNT", name, f"({after.died_at}", "+inf"))
    high = int(await partition.redis.execute_command("ZCOUNT", name, after.died_at, "+inf"))
    while low < high:
        middle = (low + high) // 2
        found = await partition.redis.execute_command("ZRANGE", name, middle, middle, "REV")
        if found and found[0] > job:
            low = middle + 1
        else:
            high = middle
    return low
