"""Section: what an event costs each of several primaries, and what small batches cost."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from tempfile import TemporaryDirectory
from typing import Any, Final

from redis.crc import key_slot

from deploy.local.embedded_cluster import embedded_cluster
from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue.partition import TAGS
from shared.queue.partitions import open_partitions
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader
from tests.bench.charts import Bars
from tests.bench.contenders import client
from tests.bench.draining import redis_cpu
from tests.bench.driving import FULL, FULL_ACCEPTED, Driver
from tests.bench.effort import Effort
from tests.bench.environments import CannotRunError
from tests.bench.figures import Figure, short
from tests.bench.instructions import counted_redis, instructions
from tests.bench.progress import Progress
from tests.bench.report import Section

NAME: Final = "shards"
NUMBERS: Final = (1, 2, 3)
PARTITIONS: Final = 6
ROUNDS: Final = 5
_COUNTED_ROUNDS: Final = 2
_FEW: Final = (10, 1)
"""Events a batch, where there are few."""

_FILLED: Final = 16 * FULL
"""Events that are full batches, where they are accepted as well."""

_PATIENCE: Final = 120.0
"""Seconds for an answer of a Redis whose instructions are counted."""

_SETTINGS: Final = {"auto-aof-rewrite-percentage": "0"}

_METHOD: Final = f"""\
Clusters of one, two and three primaries share {PARTITIONS} partitions each. One primary after the
other gets {{events:,}} events of 300 bytes, one of its partitions after the other: {FULL_ACCEPTED}
are accepted in a batch, and claimed, marked and settled in batches as full as those of a worker
with 100 slots ({FULL} a claim), by one process, so that nobody waits for a processor. Nothing else
has any events meanwhile. Processor time is that of the primary's main thread (`appendfsync
everysec`) for all of it, an event; of {ROUNDS} rounds over all primaries the least, since a busy
machine only adds to it. Instructions are those of its process, counted by Valgrind's callgrind over
{_FILLED} events of one partition, of {_COUNTED_ROUNDS} rounds the least: they hardly depend on what
else the machine does."""

Meter = Callable[[EmbeddedRedis], float]
"""What a server has used since its start."""


@dataclass(frozen=True, slots=True)
class _Primary:
    """One primary of a cluster.

    Attributes:
        primaries: that the cluster has.
        node: its server.
        drivers: of its partitions.
        rounds: what an event has cost it, in each.
    """

    primaries: int
    node: EmbeddedRedis
    drivers: Sequence[Driver]
    rounds: list[float] = field(default_factory=list)

    async def drive(self, meter: Meter, events: int, kind: str, most: int | None = None) -> None:
        """Have it accept and handle so many events, one partition after the other.

        Args:
            meter: of a server.
            events: of all its partitions together.
            kind: tells them from those of an earlier call.
            most: events in a batch; ``None``: full ones.
        """
        number = events // len(self.drivers)
        before = meter(self.node)
        for driver in self.drivers:
            await driver.accept(number, kind, most or FULL_ACCEPTED)
            await driver.handle(number, most or FULL)
        self.rounds.append((meter(self.node) - before) / (number * len(self.drivers)))

    def with_one(self) -> "_Primary":
        """The same with one partition, and no rounds yet."""
        return replace(self, drivers=self.drivers[:1], rounds=[])


def measure(effort: Effort, progress: Progress) -> Section:
    """Measure every primary in turn."""
    progress.begin(NAME, ROUNDS + _COUNTED_ROUNDS)
    # Each partition of the only primary gets full batches, too.
    events = PARTITIONS * _FILLED * max(1, effort.jobs // 10_000)
    timed, few = asyncio.run(_timed(events, progress))
    counted: list[_Primary] = []
    missing: dict[str, str] = {}
    try:
        counted = asyncio.run(_counted(progress))
    except CannotRunError as exc:
        missing["instructions"] = str(exc)
    return _section(events, timed, counted, few, missing)


async def _timed(events: int, progress: Progress) -> tuple[list[_Primary], dict[int, _Primary]]:
    """Every primary with its processor time; the first one by how few events are in a batch."""
    async with AsyncExitStack() as stack:
        primaries = await _started(stack, appendfsync="everysec", arguments=lambda: _SETTINGS)
        few = {most: primaries[0].with_one() for most in _FEW}
        for kind in ascii_uppercase[:ROUNDS]:
            progress.step("processor time")
            for primary in primaries:
                await primary.drive(_microseconds, events, kind)
            for most, primary in few.items():
                await primary.drive(_microseconds, _FILLED, f"{kind}{most}", most)
        return primaries, few


def _microseconds(node: EmbeddedRedis) -> float:
    with client(node.url) as redis:
        return redis_cpu(redis) * 1e6


async def _counted(progress: Progress) -> list[_Primary]:
    """Every primary with its instructions."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sellfern-bench-")))
        program = counted_redis(folder)
        started = await _started(stack, node_timeout=_PATIENCE, program=program)
        primaries = [primary.with_one() for primary in started]
        for kind in ascii_uppercase[:_COUNTED_ROUNDS]:
            progress.step("instructions")
            for primary in primaries:
                await primary.drive(lambda node: instructions(folder, node.pid), _FILLED, kind)
        return primaries


async def _started(stack: AsyncExitStack, **options: Any) -> list[_Primary]:
    """All primaries of clusters of each size."""
    found = []
    for number in NUMBERS:
        cluster = stack.enter_context(embedded_cluster(number, **options))
        environ = {"REDIS_URL": cluster.url, "PARTITIONS": str(PARTITIONS)}
        settings = CommonSettings.from_reader(Reader(environ))
        opened = open_partitions(settings, connections=32, socket_timeout=_PATIENCE)
        drivers: dict[int, list[Driver]] = {node.port: [] for node in cluster.nodes}
        for partition in await stack.enter_async_context(opened):
            owner = cluster.owner(key_slot(TAGS[partition.number].encode()))
            drivers[owner.port].append(Driver(partition, PARTITIONS))
        found += [_Primary(number, node, drivers[node.port]) for node in cluster.nodes]
    return found


def _section(
    events: int,
    timed: Sequence[_Primary],
    counted: Sequence[_Primary],
    few: Mapping[int, _Primary],
    missing: Mapping[str, str],
) -> Section:
    least, fewest = _least(timed), _least(counted)
    of_few = {most: min(primary.rounds) for most, primary in few.items()}
    rows = [
        [
            f"{number} {'primaries' if number > 1 else 'primary'}",
            ", ".join(map(short, least[number])),
            ", ".join(map(short, fewest.get(number, []))) or "-",
        ]
        for number in NUMBERS
    ]
    rows += [[f"1 primary, {most} a batch", short(cost), "-"] for most, cost in of_few.items()]
    figures = {f"{number}": Figure.of(costs) for number, costs in least.items()}
    figures |= {f"{most} a batch": Figure.of([cost]) for most, cost in of_few.items()}
    figures["most over least"] = _apart(least)
    if fewest:
        figures["instructions, most over least"] = _apart(fewest)
    return Section(
        name=NAME,
        title="An event on one of several primaries",
        method=_METHOD.format(events=events),
        columns=("", "Redis CPU µs an event, on each", "instructions, on each"),
        rows=rows,
        chart=Bars(
            "Redis CPU µs an event (less is better)",
            [row[0] for row in rows],
            {"": [*(max(costs) for costs in least.values()), *of_few.values()]},
        ),
        figures=figures,
        missing=missing,
        raw={
            "microseconds": [[each.primaries, each.rounds] for each in timed],
            "instructions": [[each.primaries, each.rounds] for each in counted],
        },
    )


def _least(primaries: Sequence[_Primary]) -> dict[int, list[float]]:
    """Of each its best round, by the number of primaries."""
    found: dict[int, list[float]] = {}
    for primary in primaries:
        found.setdefault(primary.primaries, []).append(min(primary.rounds))
    return found


def _apart(costs: Mapping[int, Sequence[float]]) -> Figure:
    """How far the dearest primary is from the cheapest, whatever it is one of."""
    everywhere = [cost for of_one in costs.values() for cost in of_one]
    return Figure.of([max(everywhere) / min(everywhere)])
