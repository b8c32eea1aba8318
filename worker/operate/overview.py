"""What is in the system right now, read without scanning anything."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

import msgspec
from msgspec import structs

from shared.display import roughly
from shared.queue import depths, hashes, held_bytes, keys
from shared.queue.held_bytes import HeldBytes, RedisMemory
from shared.queue.marker import SHOWN_SECONDS, Incident, incident, unwatched
from shared.queue.partition import Partition
from shared.queue.reach import Missing
from shared.queue.rules import Breaker, Hold, Profile, number
from worker.operate import workers
from worker.operate.organizations import MOVES, Paused, Trouble
from worker.operate.workers import LostWorker, WorkerOverview

_DEAD_PREFIX = "dead:"
_SAID_RATE = "rate of "
_HOLDING_MOST: Final = 10
"""Organizations that are named for what they hold in Redis alone."""


class OrganizationOverview(msgspec.Struct, frozen=True):
    """One organization's share.

    Attributes:
        organization: its id; ``?`` gathers jobs that belong to none.
        waiting: accepted events that are not finished.
        running: of these, those that have a slot: leased by a worker or, in order, the one that
            keeps it until its next attempt.
        dead: dead letters.
        paused: why its events wait; ``None`` while they don't.
        breaker: ``open`` while its events wait since its handlers kept failing, ``trying`` while
            one of them is let through; ``None`` otherwise.
        breaker_seconds: until an open breaker lets one through.
        failures: of its handlers, in a row, that the breaker has counted.
        throttled: why its own system has its events wait; ``None`` while it doesn't.
        throttled_seconds: until they go on.
        in_turn: of those that wait, for their turn.
        rate: how many of its handlers may start a second, by its rate; ``None`` without one.
        is_slow: whether it begins slowly since its events have waited.
        cap: on its handlers at once, where one is set.
        weight: its share under contention.
        paused_by: who has paused it; ``None`` where nobody said.
        paused_since: when, seconds since the epoch; the same.
        trouble: how its handlers fail; ``None`` where they haven't lately.
        held: what it has in Redis, bytes by kind: ``waiting``, ``dead``, ``marks``, ``state``.
    """

    organization: str
    waiting: int
    running: int
    dead: int
    paused: str | None
    breaker: str | None
    breaker_seconds: float | None
    failures: int
    cap: int | None
    weight: float
    held: HeldBytes = {}
    throttled: str | None = None
    throttled_seconds: float | None = None
    in_turn: int = 0
    rate: float | None = None
    is_slow: bool = False
    paused_by: str | None = None
    paused_since: float | None = None
    trouble: Trouble | None = None

    def pause_told(self, now: float) -> str:
        """Why it is paused, by whom and since when; ``now``: seconds since the epoch."""
        return Paused(self.paused, self.paused_by, self.paused_since).sentence(now)

    @property
    def is_held(self) -> bool:
        """Whether its events wait as a whole, whenever they are due."""
        return self.paused is not None or self.throttled is not None or bool(self.breaker)

    @property
    def hold_word(self) -> str:
        """What it is that they wait for a while: ``throttled``, or ``moving`` with all of it."""
        return "moving" if self.throttled == MOVES else "throttled"

    @property
    def hold_told(self) -> str:
        """Why, and for how long, for people."""
        left = f"for {roughly(self.throttled_seconds or 0.0)}"
        if self.throttled == MOVES:
            return f"to another partition, {left} at the most"
        return f"{self.throttled}, {left} still"

    def keeps_slot(self, now: float) -> bool:
        """Whether, in order, an event has its only slot until its next attempt; ``now``: the same.

        Then no handler runs.
        """
        trouble, is_taken = self.trouble, self.cap == 1 == self.running
        if not is_taken or trouble is None or trouble.kind == "w":
            return False
        return (trouble.next_at or 0.0) > now

    def failing(self, now: float) -> str:
        """How its handlers fail, if they do, for people; ``now``: seconds since the epoch."""
        told = self.trouble.sentence(now, is_held=self.is_held) if self.trouble else ""
        keeps = self.keeps_slot(now) and not self.is_held
        return f"{told}, and keeps the only slot until then" if keeps else told

    def next_try(self, now: float) -> str:
        """When one of its events is tried again, for people; ``now``: the same."""
        if self.paused is not None:
            return "none while it is paused"
        if self.throttled_seconds is not None:
            moves = self.throttled == MOVES
            then = "at the most, once it has moved" if moves else "once its own system takes calls"
            return f"in {roughly(self.throttled_seconds)}{' ' if moves else ', '}{then}"
        if self.breaker_seconds is not None:
            return f"one event in {roughly(self.breaker_seconds)}"
        if self.breaker:  # it has let one through
            return "one event is tried now"
        told = self.trouble.next_try(now) if self.trouble else ""
        return told.removeprefix("next try ") or "as soon as a slot is free"

    @property
    def bytes_held(self) -> int:
        """All that it has in Redis."""
        return sum(self.held.values())


class Overview(msgspec.Struct, frozen=True):
    """The whole system.

    Attributes:
        at: Redis's time, seconds since the epoch; of several partitions the observer's.
        waiting: accepted events that are not finished.
        ready: of these, in line for a worker.
        running: of these, leased by a worker.
        deferred: of these, not due yet.
        parked: of these, held back by their organization's cap, pause, breaker or own system.
        in_turn: of these, waiting for their turn.
        unhandled: of the deferred ones, those that wait for a worker that can handle them.
        dead: dead letters.
        oldest_seconds: age of the oldest unfinished event; ``None`` without one.
        counters: what has happened since the beginning, by name.
        dead_by_reason: what was buried since the beginning, by reason.
        organizations: each one's share.
        workers: those alive.
        memory: of Redis.
        more_organizations: how many have a share that isn't among these.
        fullest: where there are several Redis, the memory of that which has least left.
        missing: of several partitions, those that none of this tells of; without them, nothing.
        undivided: events that wait beside the partitions, where no worker of these looks.
        incidents: what has happened to Redis lately; unset where nothing has.
        unwatched_since: when a program looked at it for the last time, where that is a while ago.
        lost: workers that went without a word within the last hour; unset where none did.
    """

    at: float
    waiting: int
    ready: int
    running: int
    deferred: int
    parked: int
    dead: int
    oldest_seconds: float | None
    counters: dict[str, int]
    dead_by_reason: dict[str, int]
    organizations: list[OrganizationOverview]
    workers: list[WorkerOverview]
    unhandled: int = 0
    in_turn: int = 0
    memory: RedisMemory = RedisMemory()
    more_organizations: int = 0
    # Unset for a single queue, of which the JSON says what it always said.
    fullest: RedisMemory | msgspec.UnsetType = msgspec.UNSET
    missing: list[Missing] | msgspec.UnsetType = msgspec.UNSET
    undivided: int | msgspec.UnsetType = msgspec.UNSET
    incidents: list[Incident] | msgspec.UnsetType = msgspec.UNSET
    unwatched_since: float | msgspec.UnsetType = msgspec.UNSET
    lost: list[LostWorker] | msgspec.UnsetType = msgspec.UNSET

    @property
    def left_out(self) -> list[Missing]:
        """The partitions that none of this tells of."""
        return self.missing or []

    def of_the_worst(self, most: int) -> Self:
        """The same with no more organizations than so many, those with most waiting first."""
        worst = worst_first(self.organizations)
        left_out = self.more_organizations + len(worst[most:])
        return structs.replace(self, organizations=worst[:most], more_organizations=left_out)


def worst_first(organizations: Iterable[OrganizationOverview]) -> list[OrganizationOverview]:
    """By how much waits, then by how much is dead, then by what they hold in Redis."""
    return sorted(
        organizations,
        key=lambda each: (-each.waiting, -each.dead, -each.bytes_held, each.organization),
    )


async def read_overview(partition: Partition) -> Overview:
    """Read it in one round trip; a hash of thousands some at a time, for others need Redis too."""
    names = partition.names
    whole = (
        *(names.organizations, names.rates, names.bytes),
        *(names.counters, names.waiting, names.running, names.in_turn, names.buried),
    )
    # No transaction, for which all others would wait: a picture may be a moment old.
    async with partition.redis.pipeline(transaction=False) as pipe:
        depths.ask(pipe, names)
        for name in whole:
            hashes.begin(pipe, name)
        pipe.zrange(names.workers_seen, 0, -1, withscores=True)
        pipe.hgetall(names.workers)
        pipe.hlen(names.unhandled)
        pipe.info("memory")
        pipe.hmget(names.marker, ["incident", "at"])
        pipe.hgetall(names.workers_now)
        pipe.hgetall(names.workers_lost)
        answers = await pipe.execute(raise_on_error=False)
    *answers, doing, lost = _readable(answers)
    *begun, seen, told, unhandled, memory, (happened, looked_at) = answers[depths.QUESTIONS :]
    profiles, rates, held, *counts = [
        await hashes.whole(partition.redis, *each) for each in zip(whole, begun, strict=True)
    ]
    counters, *by_organization = map(depths.numbers, counts)
    events = _Events(*by_organization)
    totals = (sum(each.values()) for each in (events.running, events.in_turn))
    now, its = depths.told(answers[: depths.QUESTIONS], *totals), RedisMemory.of(memory)
    # While it is full, no program can leave a sign that it has looked.
    last = None if its.is_full else unwatched(looked_at, now.at)
    return Overview(
        at=now.at,
        waiting=now.waiting,
        ready=now.queued,
        running=now.leased,
        deferred=now.deferred,
        parked=now.parked,
        dead=sum(events.dead.values()),
        oldest_seconds=now.oldest_seconds,
        counters={k: v for k, v in counters.items() if not k.startswith(_DEAD_PREFIX)},
        dead_by_reason={
            k.removeprefix(_DEAD_PREFIX): v
            for k, v in counters.items()
            if k.startswith(_DEAD_PREFIX)
        },
        organizations=_organizations(
            {**profiles, **_rates(rates)},
            events,
            held_bytes.by_organization(held),
            now.at,
        ),
        workers=workers.alive(seen, told, doing, now.at),
        unhandled=unhandled,
        in_turn=now.in_turn,
        memory=its,
        incidents=_lately(incident(happened), now.at),
        unwatched_since=last or msgspec.UNSET,
        lost=workers.lost(seen, told, doing, lost, now.at) or msgspec.UNSET,
    )


def _readable(answers: list[Any]) -> Iterator[Any]:
    """The answers; nothing for the last two where this user may not read them, of an earlier file.

    Raises: what another one was.
    """
    for place, answer in enumerate(answers, 1 - len(answers)):
        if isinstance(answer, Exception) and place < -1:
            raise answer
        yield {} if isinstance(answer, Exception) else answer


def _lately(happened: Incident | None, now: float) -> list[Incident] | msgspec.UnsetType:
    """What has happened to Redis, for as long as operators are shown it."""
    is_shown = happened is not None and happened.told_at > now - SHOWN_SECONDS
    return [happened] if happened is not None and is_shown else msgspec.UNSET


def _rates(rates: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What ``prelude/rates.lua`` has of organizations, under names that profiles don't have."""
    return {
        (_SAID_RATE.encode() + name if b":" not in name else name): raw
        for name, raw in rates.items()
    }


class _Events(NamedTuple):
    """How many events organizations have, by where they are."""

    waiting: Mapping[str, int]
    running: Mapping[str, int]
    in_turn: Mapping[str, int]
    dead: Mapping[str, int]


def _organizations(
    profiles: Mapping[bytes, bytes],
    events: _Events,
    held: Mapping[str, HeldBytes],
    now: float,
) -> list[OrganizationOverview]:
    """Those with events or dead letters, those whose events wait, those that hold most."""
    known = {
        name.decode(errors="replace"): raw.decode(errors="replace")
        for name, raw in profiles.items()
    }
    found = []
    most = held_bytes.largest(held, _HOLDING_MOST)
    for name in sorted({*events.waiting, *events.running, *events.dead, *_held(known, now), *most}):
        breaker = Breaker.read(known.get(keys.BREAKER + name))
        hold = Hold.read(known.get(keys.HOLD + name))
        profile = Profile.read(known.get(name))
        interval = number(known.get(f"{_SAID_RATE}{name}", "").partition(":")[0])
        paused = Paused.read(known.get(keys.PAUSE + name))
        trouble = Trouble.read(known.get(keys.TROUBLE + name, ""))
        is_held = hold.is_on(now)
        found.append(
            OrganizationOverview(
                organization=name,
                waiting=events.waiting.get(name, 0),
                running=events.running.get(name, 0),
                in_turn=events.in_turn.get(name, 0),
                rate=round(1000 / interval, 3) if interval else None,
                is_slow=f"ramp:{name}" in known,
                dead=events.dead.get(name, 0),
                paused=paused.why,
                paused_by=paused.by,
                paused_since=paused.since,
                trouble=trouble if trouble and trouble.is_told(now) else None,
                breaker=None if breaker.state == "closed" else breaker.state,
                breaker_seconds=max(0.0, breaker.until - now) if breaker.state == "open" else None,
                failures=breaker.failures,
                cap=profile.cap,
                weight=profile.weight,
                held=held.get(name, {}),
                throttled=hold.why if is_held else None,
                throttled_seconds=hold.until - now if is_held else None,
            )
        )
    return found


def _held(known: Mapping[str, str], now: float) -> Iterator[str]:
    """The organizations that are paused or throttled, or whose breaker isn't closed."""
    for field, text in known.items():
        prefix, colon, name = field.partition(":")
        match f"{prefix}{colon}":
            case keys.PAUSE:
                waits = True
            case keys.HOLD:
                waits = Hold.read(text).is_on(now)
            case keys.BREAKER:
                waits = Breaker.read(text).state != "closed"
            case _:
                waits = False
        if waits:
            yield name
