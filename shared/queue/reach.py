"""The partitions as far as they answer: who asks all of them goes on without those that don't.

Of a single queue nothing can be left out: its error is raised as it is. So is the last one where
no partition answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import msgspec
from redis import exceptions

from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.redis.connection import REDIS_ERRORS, end, translate

Answer = TypeVar("Answer")

_AWAY: Final = (exceptions.ConnectionError, exceptions.TimeoutError, OSError, TimeoutError)
"""What is said of a server rather than of what it was asked."""


class Missing(msgspec.Struct, frozen=True):
    """A partition that is left out.

    Attributes:
        partition: its number.
        code: a stable name of the cause.
        message: which one it is, and why, for people.
    """

    partition: int
    code: str
    message: str


class Reach:
    """All partitions, of which one that has failed isn't asked again.

    Args:
        partitions: all of them.
        missing: those that are known to fail, so that nobody waits for them.
    """

    def __init__(self, partitions: Partitions, missing: Iterable[Missing] = ()) -> None:
        self.partitions = partitions
        self._missing = {each.partition: each for each in missing}

    @property
    def missing(self) -> list[Missing]:
        """Those that were left out, in order."""
        return [self._missing[number] for number in sorted(self._missing)]

    def __contains__(self, partition: Partition) -> bool:
        return partition.number not in self._missing

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
                if partition in self:
                    with self.noting(partition, doing):
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
        except REDIS_ERRORS as exc:
            cause, number = translate(exc), len(self.partitions)
            for each in self.partitions:
                is_away = isinstance(exc, _AWAY) and each.redis is partition.redis
                if each.number == partition.number or is_away:
                    about = f"partition {each.number} of {number} can't be {doing}"
                    told = Missing(each.number, cause.code, f"{about}: {cause.message}")
                    self._missing.setdefault(each.number, told)
            if len(self._missing) == number:
                raise
