"""``python -m tests.bench.sql``: what the row of the inbox costs a handler's transaction.

The same work by `Database.once` and by a plain transaction of the same pool, in turns, a pair of
short runs a round; each ratio is of a pair, so that what slows the machine down cancels out.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import uvloop
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.bench.figures import Figure, spread
from tests.integration.sql.shop import Line, Shop, event, opened_shop, organization
from tests.postgres_server import PostgresServer
from worker import Event

FLOORS: Final = {1: 0.65, 5: 0.80}
"""What is promised on PostgreSQL, by the number of inserts."""

_DRIVERS: Final = ("asyncpg", "psycopg", "aiosqlite")
_numbers = count()

Handle = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pair:
    """One round.

    Attributes:
        plain: transactions a second without the inbox.
        once: the same with it.
        plain_cpu: microseconds of this process's processor time a transaction.
        once_cpu: the same with it.
    """

    plain: float
    once: float
    plain_cpu: float
    once_cpu: float


def handlers(shop: Shop, inserts: int) -> tuple[Handle, Handle]:
    """The same work in a plain transaction, and by `once`."""
    sessions = async_sessionmaker(shop.database._engine, expire_on_commit=False)

    async def save(session: AsyncSession, event: Event[Any]) -> None:
        for _ in range(inserts):
            session.add(Line(event_id=event.id, organization=event.organization_id))
            await session.flush()

    async def plain(event_id: str) -> None:
        async with sessions() as session, session.begin():
            await save(session, event(event_id))

    async def once(event_id: str) -> None:
        if not await shop.database.once(event(event_id), organization(), save):
            raise RuntimeError("it was there already")

    return plain, once


async def run(handle: Handle, number: int, slots: int) -> tuple[float, float]:
    """So many events in so many slots: how many a second, and the processor time of each."""
    left = iter(range(number))

    async def slot() -> None:
        for _ in left:
            await handle(f"evt_{next(_numbers)}")

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(slot() for _ in range(slots)))
    seconds = time.perf_counter() - began
    return number / seconds, (time.process_time() - used) / number * 1e6


async def pairs(url: str, inserts: int, rounds: int, number: int, slots: int) -> list[Pair]:
    """Rounds of both, each first in every second one."""
    async with opened_shop(url) as shop:
        plain, once = handlers(shop, inserts)
        for handle in (plain, once):
            await run(handle, slots * 2, slots)  # connections and statements are ready by then
        found = []
        for place in range(rounds):
            taken = {}
            for handle in (plain, once) if place % 2 else (once, plain):
                taken[handle] = await run(handle, number, slots)
            found.append(Pair(taken[plain][0], taken[once][0], taken[plain][1], taken[once][1]))
        return found


@contextmanager
def database(driver: str) -> Iterator[str]:
    """A durable one of its own."""
    if driver == "aiosqlite":
        with TemporaryDirectory(prefix="sellfern-bench-") as folder:
            yield f"sqlite+aiosqlite:///{Path(folder)}/shop.db"
    else:
        with PostgresServer(durable=True) as server:
            yield server.url(f"+{driver}")


@click.command()
@click.option("--driver", type=click.Choice(_DRIVERS), multiple=True, default=_DRIVERS)
@click.option("--rounds", default=15, show_default=True, help="Pairs of runs.")
@click.option("--number", default=400, show_default=True, help="Events a run.")
@click.option("--slots", default=20, show_default=True, help="Handlers at once.")
def main(*, driver: tuple[str, ...], rounds: int, number: int, slots: int) -> None:
    """Print the ratios for one insert and for five; exit code 1 below what is promised."""
    is_below = False
    for each in driver:
        for inserts, floor in FLOORS.items():
            with database(each) as url:
                measured = uvloop.run(pairs(url, inserts, rounds, number, slots))
            ratio = Figure.of([pair.once / pair.plain for pair in measured])
            cpu = Figure.of([pair.plain_cpu / pair.once_cpu for pair in measured])
            rates = [
                round(median(of)) for of in zip(*((p.plain, p.once) for p in measured), strict=True)
            ]
            click.echo(
                f"{each:9} inserts: {inserts}  plain {rates[0]}/s, once {rates[1]}/s  "
                f"ratio {spread(ratio)}  by processor time {spread(cpu)}"
            )
            is_below = is_below or (each != "aiosqlite" and ratio.middle < floor)
    raise SystemExit(int(is_below))


if __name__ == "__main__":
    main()
