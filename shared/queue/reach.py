"""The partitions as far as they answer: who asks all of them goes on without those that don't.

Of a single queue nothing can be left out: its error is raised as it is. So is the last one where
no partition answers.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec

from shared.errors import Unavailable
from shared.queue.job import organization_of
from shared.queue.partition import Partition
from shared.queue.partitions import MOST_HOPS, Partitions, check_place
from shared.redis.connection import REDIS_ERRORS, end, translate

Answer = TypeVar("Answer")

_AWAY: Final = frozenset({"redis_no_primary", "redis_timeout", "redis_unreachable"})
"""What another partition of the same server would be told as well, after as long."""


_COMES_FROM: Final = re.compile(rb"in:(\d{1,9}):")
"""Of an organization that is expected, as ``open.lua`` has it."""


class Missing(msgspec.Struct, frozen=True):
    """A partition that is left out.

    Attributes:
        partition: its number.
        of: how many there are.
        code: a stable name of the cause.
        cause: the same for people.
        doing: what it can't be: ``read`` or ``written``.
    """

    partition: int
    of: int
    code: str
    cause: str
    doing: str = "read"


def sentences(missing: Iterable[Missing]) -> list[str]:
    """Which ones can't be read or written, and why: one sentence for all that fail alike."""
    alike: dict[tuple[int, str, str], list[str]] = {}
    for each in missing:
        alike.setdefault((each.of, each.doing, each.cause), []).append(str(each.partition))
    return [
        f"{'partitions' if numbers[1:] else 'partition'} {', '.join(numbers)} of {of} "
        f"can't be {doing}: {cause}"
        for (of, doing, cause), numbers in alike.items()
    ]


class Reach:
    """All partitions, of which one that has failed isn't asked again.

    Args:
        partitions: all of them.
        missing: those that are known to fail, so that nobody waits for them.
    """

    def __init__(self, partitions: Partitions, missing: Iterable[Missing] = ()) -> None:
        self.partitions = partitions
        self._missing = {each.partition: each for each in missing}
        self._left_out = set[int]()
        self._places: dict[str, Partition] = {}

    @property
    def missing(self) -> list[Missing]:
        """Those without which something was answered or done, in order.

        Not one that fails, and that nobody has asked for.
        """
        return [self._missing[number] for number in sorted(self._left_out)]

    def __contains__(self, partition: Partition) -> bool:
        return partition.number not in self._missing

    async def living(self, organization: str) -> Partition:
        """The one in which an organization lives now, or the first on the way that doesn't answer.

        Raises: what the client does where no partition is left.
        """
        if organization not in self._places:
            home = self.partitions.of(organization)
            self._places[organization] = await self.followed(organization, home)
        return self._places[organization]

    async def having(self, organization: str | None) -> tuple[Partition, ...]:
        """Where what is an organization's may be: of jobs that belong to none, ``?``, in any.

        Raises: as above.
        """
        is_any = organization in {None, "?"}
        return self.partitions.all if is_any else (await self.living(str(organization)),)

    async def holding(self, organization: str) -> tuple[Partition, ...]:
        """Where it lives now and, while that is still copied, what it comes from.

        Raises: as above.
        """
        there = await self.living(organization)
        if len(self.partitions) > 1 and there in self:
            with self.noting(there):
                command = ("HGET", there.names.moving, organization)
                raw = await there.redis.execute_command(*command)
                found = _COMES_FROM.match(raw or b"")
                if found and int(found[1]) < len(self.partitions):
                    return there, self.partitions.all[int(found[1])]
        return (there,)

    async def name_now(self, job: str) -> str:
        """What a job is called by now: with its organization's move its id has another tag.

        Raises: as above.
        """
        there = self.partitions.bearing(job)
        if there is None or not (owner := organization_of(job, there.names.job_prefix)):
            return job
        here = await self.followed(owner, there)
        return job if here is there else here.names.from_mark(there.names.in_mark(job))

    async def followed(self, organization: str, here: Partition) -> Partition:
        """Where one lives now that has lived here.

        Raises: as above.
        """
        for _ in range(MOST_HOPS):
            found: dict[str, Partition] = {}
            if here in self:
                with self.noting(here):
                    found = await self.partitions.moved({organization: here})
            if not found:
                break
            here = found[organization]
        return here

    async def gather(
        self,
        question: Callable[[Partition], Awaitable[Answer]],
        among: Iterable[Partition] | None = None,
        doing: str = "read",
    ) -> list[tuple[Partition, Answer]]:
        """Ask each; the answers, in order.

        Servers are asked at once, and each of its partitions one after the other: so a server that
        is away is waited for once, and none gets more questions at a time than by one partition.

        Args:
            question: what is asked.
            among: of these, not of all.
            doing: in vain where one doesn't answer: ``read`` or ``written``.

        Raises: what the question does; what the client does where no partition is left.
        """
        answers: dict[int, Answer] = {}
        asked = [*(self.partitions if among is None else among)]

        async def ask_in_turn(server: list[Partition]) -> None:
            for partition in server:
                with self.noting(partition, doing):
                    if partition in self:
                        answers[partition.number] = await question(partition)

        servers = Partitions(tuple(asked)).by_primary()
        if len(servers) <= 1:  # as mostly; no task is needed
            for server in servers:
                await ask_in_turn(server)
        else:
            tasks = [asyncio.create_task(ask_in_turn(server)) for server in servers]
            try:
                await asyncio.gather(*tasks)
            finally:
                await end(tasks)
        return [(each, answers[each.number]) for each in asked if each.number in answers]

    @contextmanager
    def noting(self, partition: Partition, doing: str = "read") -> Iterator[None]:
        """Go on behind the block where the partition fails in it, and leave it out from then on.

        Args:
            partition: that is asked in the block.
            doing: in vain where it fails: ``read`` or ``written``.

        Raises: what the client does where no partition is left.
        """
        try:
            yield
        except (*REDIS_ERRORS, Unavailable) as exc:
            self.leave_out(partition, translate(exc), doing)
            if len(self._missing) == len(self.partitions):
                raise
        finally:
            if partition not in self:
                self._left_out.add(partition.number)

    def check_some(self, asked: Iterable[Partition]) -> None:
        """Check that not all of these have failed, or an empty answer would pass for the truth.

        Args:
            asked: without which nothing is known of what somebody wants to know.

        Raises:
            Unavailable: of the first one.
        """
        causes = [self._missing.get(each.number) for each in asked]
        if causes and all(causes) and (first := causes[0]) is not None:
            raise Unavailable(first.code, first.cause)

    def leave_out(self, partition: Partition, cause: Unavailable, doing: str = "read") -> None:
        """Ask it no more; nor the others of its server where that is what is away."""
        number = len(self.partitions)
        for each in self.partitions:
            is_away = cause.code in _AWAY and each.redis is partition.redis
            if each.number == partition.number or is_away:
                told = Missing(each.number, number, cause.code, cause.message, doing)
                self._missing.setdefault(each.number, told)


async def reached(partitions: Partitions) -> Reach:
    """The partitions, once it is known that they are those that the other programs have.

    A server that doesn't answer that isn't asked anything else.

    Raises:
        Unavailable: they are not (``redis_layout``), or none answers.
    """
    reach, servers = Reach(partitions), partitions.by_primary()
    looks = [check_place(partitions, number, begins=False) for number in range(len(servers))]
    found = await asyncio.gather(*looks)
    causes = [
        (server[0], Unavailable(problem.code, problem.message))
        for server, problems in zip(servers, found, strict=True)
        for problem in problems
    ]
    for partition, cause in causes:
        if cause.code == "redis_layout":
            raise cause
        reach.leave_out(partition, cause)
    if all(found):
        raise causes[0][1]
    return reach
