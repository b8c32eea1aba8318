"""The dead letters that a request means, a page at a time: the newest first, of however many."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final, NamedTuple, Self, TypeAlias

from aiohttp import web

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from worker.operate import dead_letters
from worker.operate.console.wording import from_reference, to_reference
from worker.operate.dead_letters import DeadLetter, raw_name
from worker.operate.dead_lists import Filter, Source, owner_of, sources
from worker.operate.failure_groups import ID_PATTERN

FIELDS: Final = ("organization", "reason", "type", "group", "older", "younger")
"""What a filter may have, as addresses and forms name it."""

SIZE: Final = 30
"""Dead letters on a page."""

MOST_LOOKED_AT: Final = 1000
"""Records that one page may cost where few of them match the filter."""

LONGEST: Final = 0.1
"""Seconds after which such a page ends early, too: many organizations are many to ask."""

_AT_ONCE: Final = 200
_LONGEST_TEXT: Final = 256


def filled_in(values: Mapping[str, object], fields: Iterable[str] = FIELDS) -> dict[str, str]:
    """The fields of the filter that somebody has filled in."""
    texts = {name: str(values.get(name, "")).strip()[:_LONGEST_TEXT] for name in fields}
    return {name: text for name, text in texts.items() if text}


def filter_of(given: Mapping[str, str]) -> Filter:
    """Which ones are meant.

    Raises:
        HTTPBadRequest: a field can't be; its text is what was expected.
    """
    organization, group, reason = (given.get(name) for name in ("organization", "group", "reason"))
    pattern = keys.ORGANIZATION_PATTERN
    if organization not in {None, "?"} and not pattern.fullmatch(str(organization)):
        raise web.HTTPBadRequest(text="Organization: expected up to 64 letters, digits, _ or -.")
    if reason is not None and reason not in dead_letters.REASONS:
        expected = ", ".join(dead_letters.REASONS)
        raise web.HTTPBadRequest(text=f"Reason: expected one of {expected}.")
    if group is not None and not ID_PATTERN.fullmatch(group):
        raise web.HTTPBadRequest(text="Group: expected the id of one, as its page shows it.")
    return Filter(
        organization=organization,
        reason=reason,
        type=given.get("type"),
        group=group,
        died_before=_ago("Died before", given.get("older")),
        died_after=_ago("Died within", given.get("younger")),
    )


def _ago(name: str, age: str | None) -> int | None:
    if age is None:
        return None
    try:
        return dead_letters.ago(age)
    except ValueError:
        raise web.HTTPBadRequest(
            text=f"{name}: expected a duration such as 30m, 2h or 7d."
        ) from None


class Place(NamedTuple):
    """Where a dead letter stands: pages go from the greatest place to the least.

    Attributes:
        died_at: epoch milliseconds.
        job: its id, as Redis has it: among those that died at once, it puts them in order.
    """

    died_at: int
    job: bytes

    def written(self) -> str:
        """The place as a text for an address."""
        return f"{self.died_at}~{to_reference(self.job.decode(errors='surrogateescape'))}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place in such a text; ``None`` where it is none."""
        died_at, _, job = text.partition("~")
        if not died_at.isascii() or not died_at.isdigit() or len(died_at) > 15 or not job:  # noqa: PLR2004  # more digits than a time can have
            return None
        return cls(int(died_at), raw_name(from_reference(job)))


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

    It reads lists by rank and by time, so the last page of many costs what the first does. Of a
    list in which only the records tell what matches, where few do, the page ends early and says
    where to go on.
    """
    among = await reach.having(owner_of(wanted))
    found_in = await reach.gather(lambda partition: sources(partition, wanted), among)
    lists = {partition.number: found for partition, found in found_in}
    is_mixed = any(each.is_mixed for found in lists.values() for each in found)
    letters: list[DeadLetter] = []
    looked_at, until = 0, monotonic() + LONGEST
    while looked_at < MOST_LOOKED_AT and monotonic() < until:
        # One more than is shown tells whether there is another page.
        number = _AT_ONCE if is_mixed else SIZE - len(letters) + 1
        places = await _places_in_all(reach, lists, wanted, after, number)
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


async def _places_in_all(
    reach: Reach,
    lists: Mapping[int, Sequence[Source]],
    wanted: Filter,
    after: Place | None,
    number: int,
) -> list[_Located]:
    """The next places over all partitions."""

    async def places_in(partition: Partition) -> list[Place]:
        names = [each.name for each in lists[partition.number]]
        return await _places(partition, names, wanted, after, number)

    among = [reach.partitions.all[each] for each in lists]
    found = await reach.gather(places_in, among)
    return next_of_all({partition.number: places for partition, places in found}, number)


def next_of_all(lists: Mapping[int, Sequence[Place]], most: int) -> list[_Located]:
    """The next so many of lists by partition, each from the greatest place to the least.

    No place says in which partition it is: so whoever comes with one goes on in all of them.
    """
    located = ([(place, number) for place in places] for number, places in lists.items())
    return list(islice(heapq.merge(*located, reverse=True), most))


async def _records(reach: Reach, places: Sequence[_Located]) -> dict[tuple[int, bytes], DeadLetter]:
    async def read_in(partition: Partition) -> list[DeadLetter]:
        jobs = [
            place.job.decode(errors="surrogateescape")
            for place, number in places
            if number == partition.number
        ]
        return await dead_letters.read(partition, jobs, with_payload=False)

    among = [reach.partitions.all[number] for number in {number for _, number in places}]
    found = await reach.gather(read_in, among)
    return {
        (partition.number, raw_name(each.job)): each for partition, some in found for each in some
    }


async def _places(
    partition: Partition, names: Sequence[str], wanted: Filter, after: Place | None, number: int
) -> list[Place]:
    """The next places over all these lists.

    The next so many can only be in as many lists: those whose own next ones come first.
    """
    passed: Mapping[str, int] = {}
    if after is not None:
        if wanted.is_within(after.died_at):
            passed = await _passed(partition, names, after)
        wanted = wanted.until(after.died_at + 1)
    if len(names) > 1:
        firsts = await _next(partition, names, wanted, passed, 1)
        names = list(dict.fromkeys(name for _, name in firsts[:number]))
    found = await _next(partition, names, wanted, passed, number)
    return [place for place, _ in found[:number]]


async def _next(
    partition: Partition,
    names: Sequence[str],
    wanted: Filter,
    passed: Mapping[str, int],
    number: int,
) -> list[tuple[Place, str]]:
    """The next so many of each list, in order, of those that the filter says.

    Args:
        partition: where they are.
        names: of the lists.
        wanted: says how old they may be.
        passed: how many of the youngest of each list were passed before, where somebody goes on.
        number: how many.
    """
    least, greatest = wanted.span
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name in names:
            # Not by rank: whatever dies or goes between two questions would shift all ranks.
            span = (greatest, least, "BYSCORE", "REV", "LIMIT", passed.get(name, 0), number)
            pipe.execute_command("ZRANGE", name, *span, "WITHSCORES")
        answers = await pipe.execute()
    places = [
        (Place(round(float(died_at)), job), name)
        for name, answer in zip(names, answers, strict=True)
        for job, died_at in zip(answer[::2], answer[1::2], strict=True)
    ]
    return sorted(places, reverse=True)


async def _passed(partition: Partition, names: Sequence[str], after: Place) -> dict[str, int]:
    """How many of each list died in the millisecond of a place, and come before what is behind it.

    The place may stand in none, or its job may have died again: then it is where that would be.
    """
    async with partition.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcount(name, after.died_at, after.died_at)
        numbers = await pipe.execute()
    told = zip(names, numbers, strict=True)
    return {name: await _passed_in(partition, name, after, most) for name, most in told if most}


async def _passed_in(partition: Partition, name: str, after: Place, most: int) -> int:
    least = 0
    while least < most:
        middle = (least + most) // 2
        span = (after.died_at, after.died_at, "BYSCORE", "REV", "LIMIT", middle, 1)
        found = await partition.redis.execute_command("ZRANGE", name, *span)
        if found and found[0] >= after.job:
            least = middle + 1
        else:
            most = middle
    return least
