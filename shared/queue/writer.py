"""Accepts deliveries into the queue, durably."""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

from redis.exceptions import NoScriptError

from shared.errors import Unavailable
from shared.observe import metrics
from shared.queue import job, scripts
from shared.queue.group_commit import GroupCommit
from shared.queue.job import Delivery
from shared.queue.partition import Partition, home
from shared.queue.partitions import MOST_HOPS
from shared.redis.connection import REDIS_ERRORS, translate
from shared.redis.durability import Durability, Mode, without_needless_wait
from shared.redis.wire import Argument, Command, Wire

_ENQUEUE = scripts.load("enqueue", allow_oom=False)
_FOLLOWING = scripts.load("enqueue", allow_oom=False, follows=True)

LANES: Final = 8
"""Batches that may be on their way at once: a connection each."""

_APART: Final = 0.003
"""Seconds between two of them where Redis is far. Near by a batch is back before, and batches of
half the size would cost more than the wait."""


_UNKNOWN: Final = "unknown command 'WAITAOF'"


class Accepted(enum.Enum):
    """How a delivery was accepted: both are answered 202."""

    NEW = "accepted"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """How many unfinished events there may be; 0 is no limit."""

    total: int = 0
    organization: int = 0


@dataclass(slots=True)
class BytesLimits:
    """How many bytes one organization may hold in Redis, as ``prelude/bytes.lua`` counts them.

    Attributes:
        organization: each one that has no limit of its own; 0 is no limit.
        at_most: each one, whatever its limit, while Redis is nearly full; ``None`` while it isn't.
    """

    organization: int = 0
    at_most: int | None = None


_ANSWERS: dict[bytes, Accepted | tuple[str, str]] = {
    b"new": Accepted.NEW,
    b"known": Accepted.KNOWN,
    b"name_taken": ("name_taken", "unaccepted bytes stand under this delivery's name"),
    b"backlog_full": ("backlog_full", "too many events wait already"),
    b"organization_backlog_full": (
        "organization_backlog_full",
        "too many events of this organization wait already",
    ),
    b"organization_bytes_full": (
        "organization_bytes_full",
        "this organization's events, dead letters and state fill its share of Redis",
    ),
}


class Moved(Unavailable):
    """The organization lives in another partition by now.

    Attributes:
        partition: its number; ``None``: all have left this queue, and this one is at home.
    """

    def __init__(self, partition: int | None) -> None:
        where = "at home" if partition is None else f"in partition {partition}"
        super().__init__("organization_moved", f"it lives {where} by now")
        self.partition = partition


class Queue:
    """The queue as its producer sees it.

    Args:
        partition: where it is.
        durability: what must hold before a batch counts as accepted.
        limits: how many unfinished events there may be.
        bytes_limits: how much one organization may hold; read for each batch, so they may change.
        lanes: batches that may be on their way at once: a connection each.
        is_left: whether organizations move from this single queue into partitions.
    """

    def __init__(
        self,
        partition: Partition,
        durability: Durability,
        limits: BacklogLimits | None = None,
        bytes_limits: BytesLimits | None = None,
        *,
        lanes: int = LANES,
        is_left: bool = False,
    ) -> None:
        self.lanes = lanes
        self._redis = partition.redis
        self._wire = Wire(partition.redis, width=lanes)
        self._enqueue = _FOLLOWING if is_left else partition.script(_ENQUEUE)
        self._job_prefix = partition.names.job_prefix
        self._durability = durability
        self._waits = wait_commands(durability)
        self._limits = limits or BacklogLimits()
        self._bytes_limits = bytes_limits or BytesLimits()

    async def fit(self) -> None:
        """Wait no more for what this Redis is too old to tell, and does anyway."""
        self._durability = await without_needless_wait(self._redis, self._durability)
        self._waits = wait_commands(self._durability)

    async def enqueue(self, deliveries: Sequence[Delivery]) -> list[Accepted | Unavailable]:
        """Enqueue a batch in one round trip; answers when it is durable.

        Where any of it has moved to another partition, that is the answer of those, and the others
        are enqueued in a second round trip.

        Raises:
            Unavailable: the whole batch is in doubt. Sending it again is harmless.
        """
        answers = await self._answers(deliveries)
        if b"again" in answers:
            again = [place for place, raw in enumerate(answers) if raw == b"again"]
            rest = await self.enqueue([deliveries[place] for place in again])
            told = dict(zip(again, rest, strict=True))
            return [told.get(place) or _answer(raw) for place, raw in enumerate(answers)]
        return [_answer(raw) for raw in answers]

    async def _answers(self, deliveries: Sequence[Delivery]) -> list[bytes]:
        arguments = self._limits_for(deliveries)
        for delivery in deliveries:
            arguments += (
                self._job_prefix + job.job_id(delivery.organization, delivery.body),
                job.encode(delivery),
                delivery.received_at,
                # What a job adds to its flow's virtual time: twice the weight, half the step.
                1 / delivery.weight,
            )
        try:
            answers: list[bytes] = await self._send(arguments)
        except REDIS_ERRORS as exc:
            unavailable = translate(exc)
            metrics.REDIS_ERRORS.labels("ingress", unavailable.code).inc()
            raise unavailable from exc
        return answers

    def _limits_for(self, deliveries: Sequence[Delivery]) -> list[Argument]:
        """The script's first arguments: all limits, and those of bytes that organizations have."""
        held = self._bytes_limits
        at_most = "" if held.at_most is None else held.at_most
        # Once an organization, however many of the batch are its own.
        own = {
            each.organization: each.max_bytes for each in deliveries if each.max_bytes is not None
        }
        arguments: list[Argument] = [
            *(self._limits.total, self._limits.organization, held.organization, at_most, len(own))
        ]
        for organization, most in own.items():
            arguments += (organization, most)
        return arguments

    async def _send(self, arguments: list[Argument]) -> Any:
        """The script, and what waits for its durability, at once."""
        if not self._waits:
            return await self._enqueue(self._wire, *arguments)
        try:
            return await self._send_and_wait((*self._enqueue.by_digest, *arguments))
        # Redis has been started anew, or somebody has flushed its scripts.
        except NoScriptError:
            return await self._send_and_wait((*self._enqueue.by_text, *arguments))

    async def _send_and_wait(self, script: Command) -> Any:
        replies = await self._wire.execute_commands(script, *self._waits)
        # All: the script may be done, and the wait for it refused.
        for reply in replies:
            if isinstance(reply, Exception):
                if self._durability.or_unknown and str(reply).startswith(_UNKNOWN):
                    return replies[0]
                raise reply
        try:
            check_reply(self._durability, replies[-1])
        except Unavailable:
            # A primary that is cut off from its replicas, and perhaps replaced, answers still.
            await self._wire.hang_up()
            raise
        return replies[0]


def wait_commands(durability: Durability) -> tuple[Command, ...]:
    """The commands behind a batch whose last one answers once it is durable, if any is needed.

    ``WAITAOF`` costs nothing beside ``appendfsync always``, where the reply itself comes after the
    sync, and makes any other setting of the append-only file safe, whenever it is changed.
    """
    needed = durability.needed_replicas
    if durability.waits_for_disk and needed:
        # A replica answers in the turn in which the batch arrives, before it syncs, and then only
        # once a second. Who has waited for its memory asks it a second time, after the sync.
        first = _milliseconds(durability.timeout / 4)
        rest = _milliseconds(durability.timeout * 3 / 4)
        return (("WAIT", needed, first), ("WAITAOF", 1, needed, rest))
    if durability.waits_for_disk:
        return (("WAITAOF", 1, 0, _milliseconds(durability.timeout)),)
    return (("WAIT", needed, _milliseconds(durability.timeout)),) if needed else ()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))  # 0 would wait for ever


def check_reply(durability: Durability, reply: Any) -> None:
    """Raise ``Unavailable`` unless the wait command's reply says durable."""
    needed = durability.needed_replicas
    if durability.mode is Mode.REPLICA and reply < needed:
        raise Unavailable("not_replicated", f"{reply} of {needed} replicas acknowledged in time")
    # The first number is the primary's own disk, the second its replicas', which don't stand in.
    if durability.mode is Mode.FSYNC and reply[0] < 1:
        raise Unavailable("not_synced", "the append-only file was not synced in time")
    if durability.mode is Mode.FSYNC and reply[1] < needed:
        message = f"{reply[1]} of {needed} replicas synced their append-only file in time"
        raise Unavailable("not_replicated", message)


def _answer(raw: bytes) -> Accepted | Unavailable:
    answer = _ANSWERS.get(raw)
    if answer is None:
        text = raw.removeprefix(b"moved:")
        return Moved(None if text == b"*" else int(text))
    return answer if isinstance(answer, Accepted) else Unavailable(*answer)


class QueueWriter:
    """Group commit over a queue: requests that arrive during a batch form the next one.

    Args:
        queue: where they go.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        # Of deliveries that are under way at once, none came first: their senders have no answer.
        self._commits: GroupCommit[Delivery, Accepted] = GroupCommit(
            self._enqueue, lanes=queue.lanes, apart=_APART
        )

    async def accept(self, delivery: Delivery) -> Accepted:
        """Accept one delivery; returns once it is durable.

        Raises:
            Unavailable: it is not, or that is in doubt.
        """
        return await self._commits.submit(delivery, delivery.organization, len(delivery.body))

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


@dataclass(slots=True)
class Waiting:
    """What waits for the answer of one of several primaries.

    One that hangs keeps what is sent to it until it has been given up. That may be a part only of
    what this process can hold, or there would be no room for what is for the others.

    Attributes:
        most: deliveries that may wait at once.
        most_bytes: bytes of their bodies.
        number: of those that wait.
        bytes: of theirs.
    """

    most: int
    most_bytes: int
    number: int = 0
    bytes: int = 0


_AWAITED: Final = ("redis_awaited", "this process waits for the Redis of this organization")
_UNSETTLED: Final = ("organization_moving", "this organization moves to another partition")
_FULL: Final = ("partition_full", "too many deliveries wait for the Redis of this organization")


class PartitionWriter(QueueWriter):
    """The writer of one of several partitions; refuses everything until `fit` has been called.

    While it fails, everything for it is refused at once but one delivery at a time, which finds
    out whether it works again. Else thousands of requests would hold their connections until a
    Redis that is frozen has been given up, and nobody else's would be accepted beside them.

    Args:
        queue: where they go.
        waiting: what waits for its primary, whichever that is now; of all that has the same.
    """

    def __init__(self, queue: Queue, waiting: Callable[[], Waiting]) -> None:
        super().__init__(queue)
        self.waiting = waiting
        self._failure: Unavailable | None = Unavailable(*_AWAITED)
        self._is_tried = True

    async def fit(self) -> None:
        """See what Redis this is, and begin; call it once that has been found good."""
        await super().fit()
        self._failure, self._is_tried = None, False

    async def accept(self, delivery: Delivery) -> Accepted:
        """Accept one delivery; returns once it is durable.

        Raises:
            Unavailable: it is not, or that is in doubt.
        """
        if self._failure is None:
            return await self._wait_for(delivery)
        if self._is_tried:
            raise _again(self._failure)
        self._is_tried = True
        try:
            return await self._wait_for(delivery)
        finally:
            self._is_tried = False

    async def _wait_for(self, delivery: Delivery) -> Accepted:
        waiting, size = self.waiting(), len(delivery.body)
        if waiting.number >= waiting.most or waiting.bytes + size > waiting.most_bytes:
            raise Unavailable(*_FULL)
        waiting.number += 1
        waiting.bytes += size
        try:
            return await super().accept(delivery)
        finally:
            waiting.number -= 1
            waiting.bytes -= size

    async def _enqueue(self, deliveries: list[Delivery]) -> Sequence[Accepted | Unavailable]:
        # What has gathered behind a batch that failed would wait as long as that once more.
        if self._failure is not None and not self._is_tried:
            raise _again(self._failure)
        try:
            results = await super()._enqueue(deliveries)
        except Unavailable as exc:
            self._failure = exc
            raise
        self._failure = None
        return results


def _again(failure: Unavailable) -> Unavailable:
    # One that is raised over and over would keep a trace of each.
    return Unavailable(failure.code, failure.message)


class PartitionedWriter:
    """A writer for each partition, of which an organization has one: its home, or where it went to.

    What a partition tells of one that has gone is remembered: its next deliveries go there at once.
    Who has had none yet is found at home only, unless somebody has had this `learn` before.

    Args:
        writers: of each, in order.
        before: of a single queue from which organizations move into these: the first to be asked
            of each that isn't known to have done so.
    """

    def __init__(self, writers: Sequence[QueueWriter], before: QueueWriter | None = None) -> None:
        self._writers = writers
        self._before = before
        self._has_left = set[str]()
        # By their home, each of which is asked by itself.
        self._moved: list[dict[str, int]] = [{} for _ in writers]

    def place_of(self, organization: str) -> int:
        """The number of the partition in which it is thought to live."""
        number = home(organization, len(self._writers))
        return self._moved[number].get(organization, number)

    def learn(self, partition: int, gone: Mapping[bytes, bytes]) -> None:
        """Take note of where those live that have left their home, for when that is away.

        Args:
            partition: the home's number.
            gone: what stands there under ``Names.moved``; of others, whom nobody looks up there, it
                may be out of date.
        """
        told = ((raw.decode(errors="replace"), to) for raw, to in gone.items() if to.isdigit())
        self._moved[partition] = {
            name: int(to) for name, to in told if int(to) < len(self._writers)
        }

    async def accept(self, delivery: Delivery) -> Accepted:
        """Accept one delivery; returns once it is durable.

        Raises:
            Unavailable: it is not, or that is in doubt.
        """
        if self._before is not None and delivery.organization not in self._has_left:
            try:
                return await self._before.accept(delivery)
            except Moved as exc:
                self._leave(delivery.organization, exc.partition)
        for _ in range(MOST_HOPS + 1):
            writer = self._writers[self.place_of(delivery.organization)]
            try:
                return await writer.accept(delivery)
            except Moved as exc:
                self._note(delivery.organization, exc.partition)
        # Its senders try again, and by then it has arrived where it is going.
        raise Unavailable(*_UNSETTLED)

    def _leave(self, organization: str, partition: int | None) -> None:
        """Never ask there again: for this one, or, once all have left it, for anybody."""
        self._has_left.add(organization)
        if partition is None:
            self._before = None
        else:
            self._note(organization, partition)

    def _note(self, organization: str, partition: int | None) -> None:
        if partition is None or partition >= len(self._writers):
            raise Unavailable(*_UNSETTLED)
        number = home(organization, len(self._writers))
        self._moved[number][organization] = partition
        if partition == number:
            del self._moved[number][organization]
