"""What the system has done lately, kept in memory: rates, latencies and depths over time."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.operate.overview import Overview
from worker.operate.workers import WorkerOverview

KEPT_SECONDS: Final = 3600.0
"""How far back it goes."""

LATENCY_SECONDS: Final = 30.0
"""Workers tell their latencies only now and then, so a percentile looks back as long as this."""

_CLOCKS_APART: Final = 30.0
"""Seconds between a worker's clock and Redis's, by which a look is dated."""

COUNTED: Final = ("accepted", "handled", "retried", "dead")
"""The counters whose rates are of interest."""

PLACES: Final = ("running", "ready", "parked", "deferred", "in_turn")
"""Where unfinished events are, as an overview names it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the system.

    Attributes:
        at: seconds since the epoch.
        rates: events a second since the look before, by counter; empty at the first look.
        depths: unfinished events by where they are.
        latency: events handled since the look before, by the upper bound of their seconds.
    """

    at: float
    rates: Mapping[str, float]
    depths: Mapping[str, int]
    latency: Mapping[float, int]


@dataclass(slots=True)
class History:
    """The looks of the last hour.

    Attributes:
        samples: the oldest first.
        latest: the last overview.
    """

    samples: deque[Sample] = field(default_factory=deque)
    latest: Overview | None = None
    _told: dict[str, tuple[float, Mapping[str, int]]] = field(default_factory=dict)
    _counted: dict[int, Overview] = field(default_factory=dict)

    def add(self, overview: Overview, parts: Mapping[int, Overview] | None = None) -> None:
        """Take note of a look; a second one of the same moment is left out.

        Args:
            overview: of the whole system.
            parts: of each partition that it tells of, by its number; of a single one, the same.
        """
        before = self.latest
        # Rates are by the time between two looks, which must not be none.
        if before is not None and overview.at == before.at:
            return
        # By a clock that was set back, or that of the replica which has taken over, these are still
        # to come: until then all that is new would be left out.
        while self.samples and self.samples[-1].at > overview.at:
            self.samples.pop()
        self.samples.append(
            Sample(
                at=overview.at,
                rates={} if before is None else self._rates_since(parts or {0: overview}),
                depths={place: getattr(overview, place) for place in PLACES},
                latency={} if before is None else self._latency_since(overview, before.at),
            )
        )
        self.latest = overview
        self._told |= {each.worker: (overview.at, each.latency) for each in overview.workers}
        # One that is away stays as it was: what it does meanwhile is seen when it is back.
        self._counted |= parts or {0: overview}
        # The newest is always there, so there is a first one.
        while self.samples[0].at < (forgotten := overview.at - KEPT_SECONDS):
            self.samples.popleft()
        self._told = {name: told for name, told in self._told.items() if told[0] >= forgotten}

    def since(self, seconds: float) -> Iterator[Sample]:
        """The looks of the last so many seconds."""
        if self.latest is None:
            return
        for sample in self.samples:
            if sample.at > self.latest.at - seconds:
                yield sample

    def rate(self, counter: str, seconds: float = 10.0) -> float | None:
        """Events a second over the last so many seconds; ``None`` before a second look."""
        return _mean([each.rates[counter] for each in self.since(seconds) if each.rates])

    def quantile(self, q: float, seconds: float = LATENCY_SECONDS) -> float | None:
        """Seconds within which that share of events was handled; ``None`` where none was."""
        return quantile(summed(each.latency for each in self.since(seconds)), q)

    def _rates_since(self, parts: Mapping[int, Overview]) -> dict[str, float]:
        """Of each partition by its own clock, since it was seen last."""
        each = [
            _rates(self._counted[number], part)
            for number, part in parts.items()
            if number in self._counted and part.at > self._counted[number].at
        ]
        return {name: sum(rates[name] for rates in each) for name in COUNTED} if each else {}

    def _latency_since(self, overview: Overview, before: float) -> dict[float, int]:
        """What workers have handled since each was seen last.

        They tell it since their beginning. Of one that has gone on unseen, since its signs of life
        were late, all that would be no news: of whoever nobody has seen yet, only what has begun
        since the look before.
        """
        return summed(
            {float(bound): number - seen.get(bound, 0) for bound, number in each.latency.items()}
            for each in overview.workers
            if (seen := self._seen(each, before)) is not None
        )

    def _seen(self, worker: WorkerOverview, before: float) -> Mapping[str, int] | None:
        """What it told last; ``None`` where that isn't known."""
        if worker.worker in self._told:
            return self._told[worker.worker][1]
        is_new = worker.started is not None and worker.started > before - _CLOCKS_APART
        return {} if is_new else None


def _rates(before: Overview, now: Overview) -> dict[str, float]:
    """Never below zero: counters that somebody has reset say nothing."""
    seconds = now.at - before.at
    return {
        name: max(0, now.counters.get(name, 0) - before.counters.get(name, 0)) / seconds
        for name in COUNTED
    }


def summed(counts: Iterable[Mapping[float, int]]) -> dict[float, int]:
    """Counts by bound, added up."""
    total: dict[float, int] = {}
    for each in counts:
        for bound, number in each.items():
            total[bound] = total.get(bound, 0) + max(0, number)
    return total


def quantile(counts: Mapping[float, int], q: float) -> float | None:
    """The value below which that share of what was counted lies, to the accuracy of the bounds.

    Args:
        counts: by upper bound, the last of which may be infinite.
        q: the share, from 0 to 1.
    """
    wanted = q * sum(counts.values())
    lower = seen = 0.0
    for bound in sorted(counts):
        number = counts[bound]
        if number and seen + number >= wanted:
            # Beyond the last bound nothing is known but that it is beyond.
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - seen) / number
        seen += number
        lower = bound
    return None


def columns(
    samples: Sequence[Sample],
    number: int,
    seconds: float,
    value: Callable[[Sequence[Sample]], float | None],
    *,
    looks_back: bool = False,
) -> list[float | None]:
    """A value for each column of a chart, from left to right; the last ends with the last look.

    Args:
        samples: the looks, the oldest first.
        number: of columns.
        seconds: that all columns cover together.
        value: of the looks of one column; it isn't asked where there is none.
        looks_back: whether each covers `LATENCY_SECONDS` at the least, those before it, too.
    """
    times, width = [each.at for each in samples], seconds / number
    until = times[-1] if times else 0.0
    found: list[float | None] = []
    for left in range(number, 0, -1):
        end = until - (left - 1) * width
        begin = until - left * width
        if looks_back:
            begin = min(begin, end - LATENCY_SECONDS)
        within = samples[bisect_right(times, begin) : bisect_right(times, end)]
        found.append(value(within) if within else None)
    return found


def latency_quantile(q: float) -> Callable[[Sequence[Sample]], float | None]:
    """For `columns`: the seconds within which that share of events was handled."""
    return lambda samples: quantile(summed(each.latency for each in samples), q)


def mean_rate(counter: str) -> Callable[[Sequence[Sample]], float | None]:
    """For `columns`: how fast something happened."""
    return lambda samples: _mean([each.rates[counter] for each in samples if each.rates])


def mean_depth(place: str) -> Callable[[Sequence[Sample]], float | None]:
    """For `columns`: how many events were somewhere."""
    return lambda samples: _mean([each.depths[place] for each in samples])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
