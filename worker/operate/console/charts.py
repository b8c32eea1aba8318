"""Charts as shapes in a box of 1000 by 100, drawn by the page's template as SVG."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from math import floor, log10
from typing import Final, TypeVar

from shared.display import duration
from shared.svg import path
from worker.operate.console.wording import short
from worker.operate.history import PLACES, History, columns, latency_quantile, mean_depth, mean_rate

COLUMNS: Final = 75
WIDTH: Final = 1000
HEIGHT: Final = 100

_NOTHING: Final = "\N{EN DASH}"
_NOTHING_MUCH: Final = 1e-9
_LEAST_TOP: Final = 10.0
"""Of a chart that counts events: less has no whole number in its middle."""

Values = Sequence[float | None]
Point = TypeVar("Point")


@dataclass(frozen=True, slots=True)
class Series:
    """One line or area.

    Attributes:
        name: what it is.
        now: its value of now, in words: the same as anywhere else on the page.
        paths: its shape; several where there are gaps.
    """

    name: str
    now: str
    paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class Hint:
    """What a column says to who points at it.

    Attributes:
        x: where it begins.
        text: time and values.
    """

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        title: what is shown.
        series: in the order of their colours.
        is_stacked: whether they are areas on top of each other.
        top: the greatest value that has room, in words.
        middle: half of it, in words.
        hints: one for each column.
        width: of a column.
    """

    title: str
    series: Sequence[Series]
    is_stacked: bool
    top: str
    middle: str
    hints: Sequence[Hint]
    width: float = WIDTH / COLUMNS

    @property
    def summary(self) -> str:
        """The chart for who can't see it."""
        return f"{self.title}: " + ", ".join(f"{each.name} {each.now}" for each in self.series)


def overview_charts(history: History, seconds: float) -> list[Chart]:
    """Rate, latency and depth over the last so many seconds."""
    samples = list(history.since(seconds))
    over_time = partial(columns, samples, COLUMNS, seconds)
    until = history.latest.at if history.latest else 0.0
    rates, latencies = ("accepted", "handled"), {"p50": 0.5, "p99": 0.99}
    depths = {place.replace("_", " "): place for place in PLACES}
    times = [until - (COLUMNS - 1 - place) * seconds / COLUMNS for place in range(COLUMNS)]
    # What a legend says of now is what is said of it elsewhere: a column may be of a whole minute.
    latest = history.latest
    return [
        _lines(
            "Events per second",
            {name: over_time(mean_rate(name)) for name in rates},
            {name: history.rate(name) for name in rates},
            times,
            short,
        ),
        _lines(
            "Accepted to handled",
            {
                name: over_time(latency_quantile(q), looks_back=True)
                for name, q in latencies.items()
            },
            {name: history.quantile(q) for name, q in latencies.items()},
            times,
            duration,
        ),
        _areas(
            "Unfinished events",
            {name: over_time(mean_depth(place)) for name, place in depths.items()},
            {name: getattr(latest, place, None) for name, place in depths.items()},
            times,
            lambda depth: short(round(depth)),
        ),
    ]


def nice_top(greatest: float) -> float:
    """The next 1, 2 or 5 times a power of ten: a scale that people can read."""
    if greatest < _NOTHING_MUCH:
        return 1.0
    power = 10.0 ** floor(log10(greatest))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= greatest))


@dataclass(frozen=True, slots=True)
class _Scale:
    """What a chart is drawn against.

    Attributes:
        times: when each column ends.
        say: a value in words.
        top: the greatest value that has room.
    """

    times: Sequence[float]
    say: Callable[[float], str]
    top: float

    def points(self, values: Values) -> list[tuple[float, float] | None]:
        """The middle of each column, as high as its value."""
        step = WIDTH / COLUMNS
        return [
            None if value is None else ((place + 0.5) * step, HEIGHT - HEIGHT * value / self.top)
            for place, value in enumerate(values)
        ]

    def hint(self, place: int, values: Mapping[str, Values]) -> Hint:
        """What one column says."""
        told = [
            f"{name} {self.say(value)}"
            for name, each in values.items()
            if (value := each[place]) is not None
        ]
        time = f"{datetime.fromtimestamp(self.times[place], UTC):%H:%M:%S} UTC"
        return Hint(round(place * WIDTH / COLUMNS, 1), f"{time}  {', '.join(told)}" if told else "")

    def now(self, value: float | None) -> str:
        """A value of now."""
        return _NOTHING if value is None else self.say(value)


def _lines(
    title: str,
    values: Mapping[str, Values],
    now: Mapping[str, float | None],
    times: Sequence[float],
    say: Callable[[float], str],
) -> Chart:
    scale = _Scale(times, say, nice_top(_greatest(values.values())))
    series = [
        Series(name, scale.now(now[name]), [_line(run) for run in _runs(scale.points(each))])
        for name, each in values.items()
    ]
    return _chart(title, series, values, scale, is_stacked=False)


def _areas(
    title: str,
    values: Mapping[str, Values],
    now: Mapping[str, float | None],
    times: Sequence[float],
    say: Callable[[float], str],
) -> Chart:
    """Each stands on the one before, so that the last one's edge is the sum."""
    edges: list[Values] = [[0.0] * COLUMNS]
    for each in values.values():
        edges.append([_sum(a, b) for a, b in zip(edges[-1], each, strict=True)])
    scale = _Scale(times, say, nice_top(max(_LEAST_TOP, _greatest(edges))))
    series = []
    for name, (below, above) in zip(values, pairwise(edges), strict=True):
        both = zip(scale.points(above), scale.points(below), strict=True)
        strips = _runs([a and b and (*a, b[1]) for a, b in both])
        series.append(Series(name, scale.now(now[name]), [_area(run) for run in strips]))
    return _chart(title, series, values, scale, is_stacked=True)


def _chart(
    title: str,
    series: Sequence[Series],
    values: Mapping[str, Values],
    scale: _Scale,
    *,
    is_stacked: bool,
) -> Chart:
    hints = [scale.hint(place, values) for place in range(COLUMNS)]
    top, middle = scale.say(scale.top), scale.say(scale.top / 2)
    return Chart(title, series, is_stacked, top, middle, [hint for hint in hints if hint.text])


def _greatest(values: Iterable[Values]) -> float:
    return max((value for each in values for value in each if value is not None), default=0.0)


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _runs(points: Sequence[Point | None]) -> list[list[Point]]:
    """The pieces between the gaps."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _line(run: Sequence[tuple[float, float]]) -> str:
    if len(run) == 1:  # a lone point would be no line
        x, y = run[0]
        return path([(x - 3, y), (x + 3, y)])
    return path(run)


def _area(run: Sequence[tuple[float, float, float]]) -> str:
    half = WIDTH / COLUMNS / 2
    first, last = run[0], run[-1]
    whole = [(first[0] - half, *first[1:]), *run, (last[0] + half, *last[1:])]
    edges = [(x, above) for x, above, _ in whole] + [(x, below) for x, _, below in reversed(whole)]
    return f"{path(edges)}Z"
