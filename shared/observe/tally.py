"""Counters and histograms for one thread.

The client library's own take a lock for each number that they keep, and look through a histogram's
bounds one by one: 1 to 2 µs a time, and an event is counted three times. These are for what happens
thousands of times a second on one event loop; the library collects and shows them like its own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class Count:
    """A number that only rises."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total: float = 0

    def inc(self, by: float = 1) -> None:
        """Count so many more."""
        self.total += by


class Distribution:
    """How many values lie up to each bound, and their sum.

    Args:
        bounds: rising; a value that equals one lies below it.
    """

    __slots__ = ("_bounds", "numbers", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.numbers = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.numbers[bisect_left(self._bounds, value)] += 1
        self.sum += value


Child = TypeVar("Child", Count, Distribution)


class _Metric(Collector, Generic[Child]):
    """A child for every combination of label values; one that has no labels is there at once.

    Args:
        name: without what is shown behind it.
        documentation: shown with it.
        labels: their names.
        registry: what shows it.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labels)
        self._children: dict[tuple[str, ...], Child] = {}
        # Shown as 0 from the start: a rate misses what begins with its first value.
        if not labels:
            self.labels()
        registry.register(self)

    def labels(self, *values: str) -> Child:
        """The child of these values, in the order of the labels.

        Raises:
            ValueError: these are not as many as there are labels.
        """
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labelnames):
                raise ValueError(f"{self._name}: expected {self._labelnames}, got {values}")
            child = self._children[values] = self._new()
        return child

    def _new(self) -> Child:
        raise NotImplementedError


class Counter(_Metric[Count]):
    """Counts; ``_total`` is shown behind its name."""

    def inc(self, by: float = 1) -> None:
        """Count so many more, where there are no labels."""
        self.labels().inc(by)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The numbers of now."""
        # A copy of the children: a worker's metrics are shown by another thread than counts.
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for values, child in list(self._children.items()):
            family.add_metric(values, child.total)
        yield family

    def _new(self) -> Count:
        return Count()


class Histogram(_Metric[Distribution]):
    """Tells how values lie; ``_bucket``, ``_count`` and ``_sum`` are shown behind its name.

    Args:
        buckets: the bounds, rising, without infinity.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Iterable[float],
        registry: CollectorRegistry,
    ) -> None:
        self._bounds = [float(bound) for bound in buckets]
        super().__init__(name, documentation, labels, registry=registry)

    def observe(self, value: float) -> None:
        """Count a value, where there are no labels."""
        self.labels().observe(value)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The numbers of now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        bounds = [*map(str, self._bounds), "+Inf"]
        for values, child in list(self._children.items()):
            buckets = list(zip(bounds, accumulate(child.numbers), strict=True))
            family.add_metric(values, buckets, child.sum)
        yield family

    def _new(self) -> Distribution:
        return Distribution(self._bounds)
