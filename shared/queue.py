"""Accepts deliveries into the queue, durably."""

import enum
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared import job, keys, metrics, scripts
from shared.connection import REDIS_ERRORS, translate
from shared.durability import Durability, without_needless_wait
from shared.errors import Unavailable
from shared.group_commit import GroupCommit
from shared.job import Delivery
from shared.wire import Wire

__all__ = ["Accepted", "BacklogLimits", "Delivery", "Queue", "QueueWriter", "open_queue"]

_ENQUEUE = scripts.load("enqueue", allow_oom=False)


class Accepted(enum.Enum):
    """How a delivery was accepted: both are answered 202."""

    NEW = "accepted"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """How many unfinished events there may be; 0 is no limit."""

    total: int = 0
    organization: int = 0


_ANSWERS: dict[bytes, Accepted | tuple[str, str]] = {
    b"new": Accepted.NEW,
    b"known": Accepted.KNOWN,
    b"name_taken": ("name_taken", "unaccepted bytes stand under this delivery's name"),
    b"backlog_full": ("backlog_full", "too many events wait already"),
    b"organization_backlog_full": (
        "organization_backlog_full",
        "too many events of this organization wait already",
    ),
}


class Queue:
    """The queue as its producer sees it.

    Args:
        redis: where it is.
        durability: what must hold before a batch counts as accepted.
        limits: how many unfinished events there may be.
    """

    def __init__(
        self, redis: Redis, durability: Durability, limits: BacklogLimits | None = None
    ) -> None:
        self._redis = redis
        self._wire = Wire(redis)
        self._durability = durability
        self._limits = limits or BacklogLimits()

    async def fit(self) -> None:
        """Wait no more for what this Redis is too old to tell, and does anyway."""
        self._durability = await without_needless_wait(self._redis, self._durability)

    async def enqueue(self, deliveries: Sequence[Delivery]) -> list[Accepted | Unavailable]:
        """Enqueue a batch in one round trip; answers when it is durable.

        Raises:
            Unavailable: the whole batch is in doubt. Sending it again is harmless.
        """
        arguments: list[bytes | str | int | float] = [self._limits.total, self._limits.organization]
        for delivery in deliveries:
            arguments += (
                keys.job_id(delivery.organization, delivery.body),
                job.encode(delivery),
                delivery.received_at,
                1 / delivery.weight,
            )
        try:
            answers = await self._send(arguments)
        except REDIS_ERRORS as exc:
            unavailable = translate(exc)
            metrics.REDIS_ERRORS.labels("ingress", unavailable.code).inc()
            raise unavailable from exc
        return [_answer(raw) for raw in answers]

    async def _send(self, arguments: list[bytes | str | int | float]) -> Any:
        """The script, and what waits for its durability, at once."""
        wait = self._durability.wait_command()
        if wait is None:
            return await _ENQUEUE(self._wire, *arguments)
        try:
            return await self._send_and_wait("EVALSHA", _ENQUEUE.digest, arguments, wait)
        except NoScriptError:
            return await self._send_and_wait("EVAL", _ENQUEUE.text, arguments, wait)

    async def _send_and_wait(
        self,
        command: str,
        script: str,
        arguments: list[bytes | str | int | float],
        wait: tuple[str | int, ...],
    ) -> Any:
        answers, acknowledged = await self._wire.execute_commands(
            (command, script, 0, *arguments), wait
        )
        for reply in (answers, acknowledged):
            if isinstance(reply, Exception):
                raise reply
        self._durability.check_reply(acknowledged)
        return answers


def _answer(raw: bytes) -> Accepted | Unavailable:
    answer = _ANSWERS[raw]
    return answer if isinstance(answer, Accepted) else Unavailable(*answer)


class QueueWriter:
    """Group commit over a queue: requests that arrive during a batch form the next one.

    Args:
        queue: where they go.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._commits: GroupCommit[Delivery, Accepted] = GroupCommit(
            self._enqueue,
            weigh=lambda delivery: len(delivery.body),
            flow=lambda delivery: delivery.organization,
        )

    async def accept(self, delivery: Delivery) -> Accepted:
        """Accept one delivery; returns once it is durable.

        Raises:
            Unavailable: it is not, or that is in doubt.
        """
        return await self._commits.submit(delivery)

    async def fit(self) -> None:
        """See what Redis this is; call it once that is there, and before the first delivery."""
        await self._queue.fit()

    async def drain(self) -> None:
        """Wait for the batches on their way."""
        await self._commits.drain()

    async def _enqueue(self, deliveries: list[Delivery]) -> Sequence[Accepted | Unavailable]:
        started = perf_counter()
        results = await self._queue.enqueue(deliveries)
        metrics.INGRESS_DURABLE.observe(perf_counter() - started)
        metrics.INGRESS_BATCH.observe(len(deliveries))
        return results


@asynccontextmanager
async def open_queue(
    redis: Redis, durability: Durability, limits: BacklogLimits | None = None
) -> AsyncIterator[QueueWriter]:
    """A writer that sends what it holds before it closes; Redis may not be there yet."""
    writer = QueueWriter(Queue(redis, durability, limits))
    try:
        yield writer
    finally:
        await writer.drain()
