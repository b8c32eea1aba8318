"""Lets a load rise and fall, and a fleet of workers follow it."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from aiohttp import ClientError, ClientSession
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.autoscaling import Autoscaler, Reading, Rule
from deploy.local.supervisor import Program
from deploy.local.system import System, metrics
from deploy.sellfern import Sellfern
from shared.queue.gauges import CACHE_SECONDS

TIMES: Final = 10
"""The peak is so many times what there is at the beginning and at the end."""

_SHAPE: Final = ((0.0, 1 / TIMES), (0.2, 1.0), (0.45, 1.0), (0.6, 1 / TIMES), (1.0, 1 / TIMES))
"""Share of the time, share of the peak; straight lines between."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A rise and a fall.

    Attributes:
        peak: events a second.
        seconds: for all of it.
    """

    peak: float
    seconds: float

    def rate(self, at: float) -> float:
        """Events a second at a moment; none afterwards."""
        share = at / self.seconds
        for (left, low), (right, high) in pairwise(_SHAPE):
            if left <= share <= right:
                return self.peak * (low + (high - low) * (share - left) / (right - left))
        return 0.0


class Fleet:
    """As many workers as are asked for.

    Args:
        system: whose workers there are to begin with; its supervisor keeps the others too.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._workers = list(system.workers)
        self._begun = len(self._workers)

    @property
    def size(self) -> int:
        """How many there are, those that are leaving not counted."""
        return len(self._workers)

    def scale(self, workers: int) -> None:
        """Begin workers, or dismiss the youngest, until there are so many."""
        while self.size < workers:
            self._begin()
        # As a ReplicaSet does it: the youngest go first.
        while self.size > workers:
            self._dismiss(self._workers.pop())

    def _begin(self) -> None:
        self._begun += 1
        name, system = f"worker {self._begun}", self._system
        self._workers.append(system.supervisor.start(name, "worker", environ=system.environ))

    def _dismiss(self, worker: Program) -> None:
        """Let one leave by SIGTERM, which it understands once it has started."""
        # Before that, SIGTERM would end it with an error, which `check` takes for one.
        worker.wait_for("worker_started")
        self._system.supervisor.dismiss(worker)


_DEPTH: Final = "sellfern_queue_depth"
_DUE: Final = "sellfern_due_events"
_OLDEST: Final = "sellfern_due_seconds"
_LOOK_SECONDS: Final = 0.25
# The ingress reads its gauges so seldom; a decision by an old reading would be one too many.
_READ_SECONDS: Final = CACHE_SECONDS + 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was at a moment.

    Attributes:
        at: seconds since the beginning.
        rate: events a second that Sellfern is asked for.
        events: that have happened so far.
        workers: those that are there.
    """

    at: float
    rate: float
    events: int
    workers: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided by a reading.

    Attributes:
        at: seconds since the beginning.
        rate: events a second at that time.
        reading: of the gauges.
        wanted: workers that the reading by itself asks for.
        before: workers that there were.
        after: workers from then on.
    """

    at: float
    rate: float
    reading: Reading
    wanted: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Course:
    """How it went.

    Attributes:
        samples: a few a second.
        decisions: one a reading.
    """

    samples: list[Sample] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)


Show = Callable[[Course], None]


class Regulation:
    """The load and who follows it.

    Args:
        system: where the events go, and whose workers follow.
        rule: how many there should be.
        sellfern: makes the events.
        session: asks for the gauges.
        show: is shown how it goes.
    """

    def __init__(
        self,
        system: System,
        rule: Rule,
        *,
        sellfern: Sellfern,
        session: ClientSession,
        show: Show,
    ) -> None:
        self.course = Course()
        self._system = system
        self._fleet = Fleet(system)
        self._scaler = Autoscaler(rule)
        self._sellfern = sellfern
        self._session = session
        self._show = show
        self._began = time.monotonic()
        self._read_at = 0.0
        self._unfinished = 1.0

    async def follow(self, ramp: Ramp) -> None:
        """Let the load rise and fall once."""
        while (now := self._now()) < ramp.seconds:
            self._turn(ramp.rate(now))
            await self._look()

    async def settle(self, patience: float) -> None:
        """Go on without a load until all is done and no more workers are there than must be.

        It gives up after so many seconds without progress: then something is lost, and told.
        """
        # Its deliveries are still under way, and those that failed come again: it isn't over with
        # the last event.
        self._turn(0.0)
        # Patience counts from the last progress: a queue that gets shorter may take its time.
        left, moved_at = self._left(), self._now()
        while any(left) and self._now() < moved_at + patience:
            await self._look()
            if (now_left := self._left()) != left:
                left, moved_at = now_left, self._now()

    def _left(self) -> tuple[int, float, int, int]:
        """What keeps it from its end."""
        surplus = self._fleet.size - self._scaler.rule.fewest
        pending = len(self._sellfern.deliveries.pending)
        return pending, self._unfinished, surplus, self._system.supervisor.leaving

    async def _look(self) -> None:
        """See what there is, decide if there is a new reading, and wait a moment."""
        # A program that has ended would otherwise look like one that is only slow.
        self._system.supervisor.check()
        if self._now() >= self._read_at:
            await self._regulate()
        self._note()
        self._show(self.course)
        await asyncio.sleep(_LOOK_SECONDS)

    async def _regulate(self) -> None:
        """Read the gauges and follow them; by no reading nothing is changed."""
        reading: Reading | None = None
        with contextlib.suppress(ClientError, TimeoutError):  # it goes on, or check will tell
            reading = read_gauges(await metrics(self._session, self._system.ingress_admin))
        self._read_at = self._now() + _READ_SECONDS
        # Who doesn't know whether anything is unfinished may not come to an end.
        self._unfinished = 1.0 if reading is None else reading.unfinished
        if reading is None:
            return
        now, before = self._now(), self._fleet.size
        wanted = self._scaler.rule.wanted(reading, before)
        after = self._scaler.decide(reading, before, now)
        self._fleet.scale(after)
        rate = self._sellfern.settings.rate
        self.course.decisions.append(Decision(now, rate, reading, wanted, before, after))

    def _note(self) -> None:
        rate, events = self._sellfern.settings.rate, self._sellfern.events
        self.course.samples.append(Sample(self._now(), rate, events, self._fleet.size))

    def _turn(self, rate: float) -> None:
        self._sellfern.turn(replace(self._sellfern.settings, rate=rate))

    def _now(self) -> float:
        return time.monotonic() - self._began


def read_gauges(text: str) -> Reading | None:
    """The whole queue by an ingress's metrics; None while it doesn't know it."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    # Until the ingress has asked Redis once there is nothing to tell, which is not the same as 0.
    if not {_DEPTH, _DUE, _OLDEST} <= families.keys():
        return None
    depth, due, oldest = (
        [each.value for each in families[name].samples] for name in (_DEPTH, _DUE, _OLDEST)
    )
    return Reading(max(due), max(oldest), sum(depth))
