"""A worker's signs of life, which renew the leases of what it holds and tell its load."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import msgspec
from redis.exceptions import ResponseError

from shared.observe import metrics
from shared.observe.structlog_alone import FilteringBoundLogger
from worker.at_work import AtWork
from worker.pipeline.transitions import Claim, Profile, Transitions

# Claims of one call: Redis serves nobody else meanwhile.
_BATCH = 256

_NAMED_EVERY = 3_600.0  # seconds

Profiles = list[Profile]


@dataclass(slots=True)
class Leases:
    """What keeps a worker's claims in a partition its own; beats in the thread of the watchdog.

    Attributes:
        worker: its name.
        description: what it says of itself, a JSON object; its load is put beside it.
        slots: how many events it handles at once.
        lease: seconds; it is renewed every third of it.
        held: the claims to renew.
        stuck: how many handlers go on though their events are settled.
        lost: told of each claim that somebody else has by now, in the thread that renews.
        profiles: what the endpoints file says now.
        log: told where Redis had lost what it knew.
        names: its own and its handlers', for whoever reads marks.
        running: how many events it holds in all partitions; by default those of ``held``.
        delay: for how long the loop has stood still lately at the worst, seconds.
        at_work: what takes long in it.
        renewed_at: when Redis last heard of this worker, by the monotonic clock; ``None``: never.
    """

    worker: str
    description: bytes
    slots: int
    lease: float
    held: Callable[[], list[Claim]]
    stuck: Callable[[], int]
    lost: Callable[[Claim], None]
    profiles: Callable[[], Profiles]
    log: FilteringBoundLogger
    names: Callable[[], list[str]] = list
    running: Callable[[], int] | None = None
    delay: Callable[[], float] = float
    at_work: Callable[[], AtWork] = AtWork
    renewed_at: float | None = None
    _published: Profiles | None = None
    _named_at: float | None = None
    _roster: tuple[Profiles, str] | None = None
    _has_shown: bool = False
    _started: float = field(default_factory=time.time)

    async def beat(self, transitions: Transitions) -> None:
        """One sign of life, for the worker and all that it holds."""
        held, profiles = self.held(), self.profiles()
        number = len(held) if self.running is None else self.running()
        running = min(number, self.slots)  # the rest has been handled, and is being committed
        description = with_load(
            self.description,
            running=running,
            started=self._started,
            stuck=self.stuck(),
            delay=self.delay(),
            organizations=self._roster_of(profiles),
        )
        is_new = False
        for batch in _batches(held):
            renewed = await transitions.renew(
                self.worker,
                batch,
                description=description,
                slots=self.slots,
                lease=self.lease,
            )
            # Whichever of them: Redis may have been emptied between two.
            is_new = is_new or renewed.is_new
            metrics.LEASES_RENEWED.inc(len(batch) - len(renewed.lost))
            for claim in renewed.lost:
                self.lost(claim)
        # Behind the roster: what another has unlisted before that is news, and from then on nobody
        # unlists what this file has.
        await self._publish(transitions, profiles, anew=is_new)
        await self._note_names(transitions, anew=is_new)
        # Last: where anything above failed, Redis hasn't heard of all that is held.
        self.renewed_at = time.monotonic()

    async def tell_changes(self, transitions: Transitions) -> None:
        """Give a sign of life at once, if the endpoints file doesn't say what it said before."""
        profiles = self.profiles()
        if profiles and profiles != self._published:
            await self.beat(transitions)

    async def show(self, transitions: Transitions) -> None:
        """Say what takes long in it; where nothing does, and nothing did, Redis isn't asked."""
        at_work = self.at_work()
        if at_work.doing or self._has_shown:
            told = msgspec.json.encode(at_work) if at_work.doing else b""
            with contextlib.suppress(ResponseError):  # as of names
                await transitions.show(self.worker, told)
                self._has_shown = bool(at_work.doing)

    async def _publish(self, transitions: Transitions, profiles: Profiles, *, anew: bool) -> None:
        """Tell Redis caps, weights and rates when they change, and when it has lost them."""
        if anew:
            self._published = None  # though this fail
            if self.renewed_at is not None:
                self.log.warning("redis_knew_nothing_of_this_worker", worker=self.worker)
        if profiles and profiles != self._published:
            await transitions.publish(profiles)
        self._published = profiles

    async def _note_names(self, transitions: Transitions, *, anew: bool) -> None:
        """Have them known once, and again before they are forgotten."""
        # A mark may be read a month later, when the worker that has made it is long gone.
        now, names = time.monotonic(), self.names()
        if names and (anew or self._named_at is None or now > self._named_at + _NAMED_EVERY):
            # They are for operators alone. A full Redis, or another key under that name, must not
            # keep a worker from renewing its leases; the next sign of life tries again.
            with contextlib.suppress(ResponseError):
                await transitions.note_names(names)
                self._named_at = now

    def _roster_of(self, profiles: Profiles) -> str:
        if self._roster is None or self._roster[0] is not profiles:
            self._roster = profiles, roster(profile.organization for profile in profiles)
        return self._roster[1]


def roster(organizations: Iterable[str]) -> str:
    """What stands for these, whatever their order; two workers that say the same know the same."""
    return blake2b("\n".join(sorted(organizations)).encode(), digest_size=8).hexdigest()


def _batches(claims: Iterable[Claim]) -> list[list[Claim]]:
    """At least one, so that a worker which holds nothing shows that it lives."""
    everything = list(claims)
    return [everything[start : start + _BATCH] for start in range(0, len(everything) or 1, _BATCH)]


def with_load(
    description: bytes,
    *,
    running: int,
    started: float,
    stuck: int = 0,
    delay: float = 0.0,
    organizations: str = "",
) -> bytes:
    """The description with what changes from one sign of life to the next.

    How long events took is told as counts by upper bound, since counts of several workers can be
    added up, and percentiles can't.

    Args:
        description: a JSON object that stays the same.
        running: how many events the worker holds.
        started: when it began, seconds since the epoch.
        stuck: how many handlers go on in it though their events are settled.
        delay: for how long its loop has stood still lately at the worst, seconds.
        organizations: what stands for those of its endpoints file.
    """
    latency = dict(_latency())
    return msgspec.json.encode(
        {
            **msgspec.json.decode(description, type=dict[str, object]),
            "started": round(started, 3),
            "running": running,
            "stuck": stuck,
            "loop_delay": round(delay, 3),
            "handled": sum(latency.values()),
            "latency": latency,
            "organizations": organizations,
        }
    )


def _latency() -> Iterator[tuple[str, int]]:
    """Events handled by the upper bound of the time that they took."""
    below: dict[str, float] = {}
    for family in metrics.ACCEPTED_TO_HANDLED.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bound = sample.labels["le"]
                below[bound] = below.get(bound, 0.0) + sample.value
    last = 0.0
    for bound in sorted(below, key=float):
        yield bound, round(below[bound] - last)
        last = below[bound]
