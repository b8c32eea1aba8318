"""``python -m tests.bench.far``: what a distance to Redis costs, beside the same detour with none.

Drains, the ingress and the operators' replay and discard, each with Redis behind the same proxy
(`tests.bench.distance`). Rounds visit every distance in turn, since a shared machine is faster in
one minute than in the next; the figures are the medians of the rounds, and their ratios to none.
"""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import click
from redis.asyncio import Redis

from shared.queue.partition import Partition
from tests.bench import contenders, events, ingress_rate
from tests.bench.contenders import Ours
from tests.bench.distance import distant
from tests.bench.draining import drain, redis_server
from tests.bench.figures import Figure
from tests.bench.requests_file import RequestsFile
from worker.operate import revival
from worker.operate.dead_letters import Selection
from worker.pipeline.transitions import Settlement, Transitions

_ROUND_TRIPS: Final = (0.0, 1.0, 5.0, 20.0)
"""Milliseconds."""

_SLOTS: Final = (100, 1000)
_DEAD_AT_ONCE: Final = 200
_UNBOUNDED: Final = 100_000.0
_REPLAYED: Final = 3000
_DAY: Final = 86_400.0

Measure = Callable[[float], float]
"""From a distance in milliseconds to a rate."""


@click.command()
@click.option("--jobs", default=10_000, show_default=True, help="Of each drain.")
@click.option("--seconds", default=2.0, show_default=True, help="Of load on the ingress.")
@click.option("--rounds", default=1, show_default=True)
@click.option("--only", type=click.Choice(["drain", "ingress", "replay"]), help="Only this.")
def main(*, jobs: int, seconds: float, rounds: int, only: str | None) -> None:
    """Measure, and print a table."""
    with TemporaryDirectory(prefix="sellfern-bench-") as folder:
        measures = {
            name: measure
            for name, measure in _measures(Path(folder), jobs, seconds).items()
            if only is None or name.startswith(only)
        }
        click.echo(
            f"{'a second (over none)':<24}" + "".join(f"{t:>10g} ms     " for t in _ROUND_TRIPS)
        )
        for name, measure in measures.items():
            click.echo(f"{name:<24}{_row(measure, rounds)}")


def _measures(folder: Path, jobs: int, seconds: float) -> dict[str, Measure]:
    requests = RequestsFile.write(folder / "requests", math.ceil(seconds + 1) * 20_000)
    measures: dict[str, Measure] = {}
    for slots in _SLOTS:
        ours = Ours("ours", f"{slots} slots", changes={"WORKER_CONCURRENCY": str(slots)})
        measures[f"drain, {slots:,} slots"] = lambda trip, ours=ours: (
            drain(ours, jobs, 1, round_trip=trip).rate
        )
    measures["ingress, fsync"] = lambda trip: (
        ingress_rate.take(ingress_rate.FSYNC, requests, seconds, round_trip=trip).rate
    )
    for name, rate in (("replay", _UNBOUNDED), ("replay --rate 1000", 1000.0), ("discard", 0.0)):
        measures[name] = lambda trip, rate=rate: asyncio.run(_relieved(trip, rate, folder))
    return measures


def _row(measure: Measure, rounds: int) -> str:
    rates: dict[float, list[float]] = {trip: [] for trip in _ROUND_TRIPS}
    for _ in range(rounds):
        for trip, of_one in rates.items():
            of_one.append(measure(trip))
    middles = [Figure.of(of_one).middle for of_one in rates.values()]
    return "".join(f"{middle:>9,.0f} ({middle / middles[0]:.2f})" for middle in middles)


async def _relieved(round_trip: float, rate: float, folder: Path) -> float:
    """Dead letters a second that are replayed at a rate; discarded where that is none."""
    with redis_server("everysec") as server:
        await _bury(server.url, _REPLAYED)
        with distant(server.port, round_trip, folder) as url:
            async with Redis.from_url(url) as redis:
                began = perf_counter()
                letters = Selection().letters(Partition.only(redis))
                if rate:
                    await revival.Replay(Partition.only(redis), rate).run(letters)
                else:
                    await revival.discard_all(Partition.only(redis), letters, retention=_DAY)
                return _REPLAYED / (perf_counter() - began)


async def _bury(url: str, number: int) -> None:
    await contenders.fill(url, number, events.ORGANIZATIONS)
    said = ("rejected", "as told", "order.updated", "", 0, True, None, "")
    async with Redis.from_url(url) as redis:
        transitions = Transitions(Partition.only(redis))
        for _ in range(0, number, _DEAD_AT_ONCE):
            claimed = await transitions.claim(
                "bench", most=_DEAD_AT_ONCE, lease=60, holding=0, slots=10_000
            )
            await transitions.settle([Settlement(each, "dead", said) for each, _ in claimed.jobs])


if __name__ == "__main__":
    main()
