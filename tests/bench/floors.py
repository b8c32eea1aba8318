"""The figures that must hold, and whether they do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Figure, short, spread


@dataclass(frozen=True, slots=True)
class Floor:
    """What a figure must reach, and what we aim at.

    Attributes:
        what: in words.
        figure: its name, ``section/name``.
        limit: it must be at least that, or at most.
        aim: what it should be; ``None`` where the limit is all.
        unit: behind the numbers.
        at_least: whether more is better.
        aim_figure: the name of the figure that the aim is about, if another.
    """

    what: str
    figure: str
    limit: float
    aim: float | None = None
    unit: str = ""
    at_least: bool = True
    aim_figure: str | None = None

    def is_held(self, figure: Figure) -> bool:
        """Whether the median is on the right side of the limit."""
        return _on_side(figure.middle, self.limit, at_least=self.at_least)

    def target(self) -> str:
        """The limit and the aim in words."""
        sign = "≥" if self.at_least else "≤"
        aim = "" if self.aim is None else f" (aim {short(self.aim)}{self.unit})"
        return f"{sign} {short(self.limit)}{self.unit}{aim}"


def _on_side(value: float, limit: float, *, at_least: bool) -> bool:
    return value >= limit if at_least else value <= limit


_TIMES: Final = "x"

FLOORS: Final = (
    Floor(
        "drain, 1 worker with a log line an event, over stock arq", "drain/over arq", 16, 20, _TIMES
    ),
    Floor(
        "the same over BullMQ's bare processing, each at its best concurrency",
        "drain/over BullMQ",
        1.2,
        1.5,
        _TIMES,
    ),
    # One worker and its Redis fill two cores: with more of them, each has smaller batches and its
    # caches cold. With fewer than that for all, adding a worker would cost what it brings.
    Floor("drain with 2 workers over 1", "drain/2 over 1", 0.7, None, _TIMES),
    Floor("drain with 4 workers over 1", "drain/4 over 1", 0.7, None, _TIMES),
    Floor("100 ms handlers, 8 workers over 1", "handlers/8 over 1", 7.5, None, _TIMES),
    Floor("ingress, fsync, over only verifying", "ingress/over verifying", 0.7, 0.9, _TIMES),
    Floor(
        "ingress, fsync, over one that calls arq's enqueue_job",
        "ingress/over aiohttp with arq",
        2.5,
        4,
        _TIMES,
    ),
    Floor(
        "ingress, fsync, over arq's enqueue_job without HTTP", "ingress/over arq", 2.5, 4, _TIMES
    ),
    Floor("accepted to handled, idle, p50", "latency/p50", 10, 3, " ms", at_least=False),
    Floor("accepted to handled, idle, p99", "latency/p99", 40, 10, " ms", at_least=False),
    Floor("drain, Redis 5 ms away, over none", "far/drain, 5 ms over none", 0.8, 0.9, _TIMES),
    Floor("drain, Redis 20 ms away, over none", "far/drain, 20 ms over none", 0.5, 0.75, _TIMES),
    Floor(
        "20,000 jobs 20 ms away from start to end, over BullMQ with 1,000 at once",
        "far/start to end, 20 ms, over BullMQ",
        5,
        None,
        _TIMES,
    ),
    Floor(
        "the same when both have begun to finish jobs",
        "far/steady, 20 ms, over BullMQ",
        0.9,
        1.3,
        _TIMES,
    ),
    Floor("replay --rate 1000, Redis 20 ms away", "far/replay, 20 ms", 950, None, "/s"),
    Floor("claim with bodies of 1 MB, mean", "large/claim mean", 5, None, " ms", at_least=False),
    Floor("the same, p99", "large/claim p99", 10, None, " ms", at_least=False),
    Floor(
        "another's POST p99 beside 150 of 1 MB, less 10 ms, over alone",
        "large/POST p99 beyond",
        3,
        1.5,
        _TIMES,
        at_least=False,
        aim_figure="large/POST p99 over alone",
    ),
    Floor(
        "longest script with 100,000 organizations",
        "organizations/longest script",
        10,
        5,
        " ms",
        at_least=False,
    ),
    Floor(
        "quiet one's p99 beside 100,000 organizations, less 5 ms, over alone",
        "organizations/p99 beyond",
        2,
        1.5,
        _TIMES,
        at_least=False,
        aim_figure="organizations/p99 over alone",
    ),
    Floor(
        "p99 beside another's backlog, less 20 ms, over alone",
        "neighbours/backlog beyond",
        3,
        1.5,
        _TIMES,
        at_least=False,
        aim_figure="neighbours/backlog over alone",
    ),
    Floor(
        "p99 beside another's hanging handlers, less 20 ms, over alone",
        "neighbours/hanging beyond",
        3,
        1.5,
        _TIMES,
        at_least=False,
        aim_figure="neighbours/hanging over alone",
    ),
    Floor(
        "p99 while 10,000 endpoints are read anew, over calm",
        "reload/p99 over calm",
        2,
        None,
        _TIMES,
        at_least=False,
    ),
    Floor(
        "worker's memory over 500,000 events, end over half",
        "memory/worker growth",
        1.02,
        None,
        _TIMES,
        at_least=False,
    ),
    Floor(
        "ingress's memory over 500,000 requests, end over half",
        "memory/ingress growth",
        1.02,
        None,
        _TIMES,
        at_least=False,
    ),
    Floor("drain with the console open over without", "observed/console over alone", 0.97),
    Floor("a waiting event of 300 bytes", "cost/waiting", 1200, 800, " B", at_least=False),
    Floor(
        "Redis CPU an event on each of 1, 2 and 3 primaries, most over least",
        "shards/most over least",
        1.15,
        None,
        _TIMES,
        at_least=False,
    ),
    Floor(
        "the same in instructions",
        "shards/instructions, most over least",
        1.15,
        None,
        _TIMES,
        at_least=False,
    ),
    Floor("a done mark", "cost/done", 240, 160, " B", at_least=False),
)

COLUMNS: Final = ("must hold", "target", "measured", "verdict")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A floor with what was measured.

    Attributes:
        floor: the floor.
        figure: what was measured, if anything.
        reached: whether the aim was reached as well.
    """

    floor: Floor
    figure: Figure | None
    reached: bool

    @property
    def missed(self) -> bool:
        """Whether it was measured and doesn't hold."""
        return self.figure is not None and not self.floor.is_held(self.figure)

    def row(self) -> Sequence[str]:
        """Its row of the table."""
        if self.figure is None:
            return (self.floor.what, self.floor.target(), "-", "not measured")
        word = "MISSED" if self.missed else ("holds, aim reached" if self.reached else "holds")
        measured = f"{spread(self.figure)}{self.floor.unit}"
        return (self.floor.what, self.floor.target(), measured, word)


def verdicts(figures: Mapping[str, Figure], floors: Iterable[Floor] = FLOORS) -> list[Verdict]:
    """What became of each floor, by figures named ``section/name``."""
    found = []
    for floor in floors:
        figure = figures.get(floor.figure)
        aimed = figures.get(floor.aim_figure or floor.figure)
        reached = (
            aimed is not None
            and floor.aim is not None
            and _on_side(aimed.middle, floor.aim, at_least=floor.at_least)
        )
        found.append(Verdict(floor, figure, reached))
    return found
