"""Genuine senders beside an attack: new connections, a kept one, slow bodies of 30 KB."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Final
from uuid import uuid4

from tests.bench.figures import percentile
from tests.ingress_support import Client, request_bytes

PATIENCE: Final = 10.0
_SMALL: Final = 300
_LARGE: Final = 30_000
_PARTS: Final = 8

_numbers = count()
_run = uuid4().hex


@dataclass(slots=True)
class Tally:
    """What became of the deliveries of one kind of sender.

    Attributes:
        answers: how many by their status, or what there was instead.
        seconds: that each accepted one took.
    """

    answers: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """All of them."""
        return self.answers.total()

    @property
    def accepted(self) -> int:
        """Those that were answered 202."""
        return self.answers["202"]

    @property
    def p99(self) -> float:
        """Seconds."""
        return percentile(self.seconds, 0.99) if self.seconds else float("inf")


def _delivery(size: int) -> bytes:
    body = f'{{"id":"{_run}-{next(_numbers)}","data":"'.encode()
    return request_bytes(body + b"x" * (size - len(body) - 2) + b'"}')


@contextlib.asynccontextmanager
async def _noted(tally: Tally, *answers: str) -> AsyncIterator[list[str]]:
    """Take down how a delivery ended, whatever happened to it."""
    said = list(answers)
    started = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            yield said
    except TimeoutError:
        said = ["no answer"]
    except (OSError, EOFError):
        said = ["closed"]
    tally.answers.update(said)
    if said == ["202"]:
        tally.seconds.append(perf_counter() - started)


async def _new(port: int, tally: Tally) -> None:
    async with _noted(tally) as said, Client.to(port) as client:
        said.append(str((await client.ask(_delivery(_SMALL))).status))


async def _slow(port: int, tally: Tally, seconds: float) -> None:
    raw = _delivery(_LARGE)
    step = len(raw) // _PARTS + 1
    async with _noted(tally) as said, Client.to(port) as client:
        for at in range(0, len(raw), step):
            await client.send(raw[at : at + step])
            await asyncio.sleep(seconds / _PARTS)
        said.append(str((await client.reply()).status))


async def _kept(port: int, tally: Tally, until: float) -> None:
    while perf_counter() < until:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with Client.to(port) as client:
                while perf_counter() < until and not client.reader.at_eof():
                    async with _noted(tally) as said:
                        said.append(str((await client.ask(_delivery(_SMALL))).status))
                    await asyncio.sleep(0.05)


async def deliver(port: int, seconds: float, *, every: float = 0.02) -> dict[str, Tally]:
    """Deliver for a time, in each way; what became of it."""
    tallies = {name: Tally() for name in ("new", "kept", "slow")}
    until = perf_counter() + seconds
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_kept(port, tallies["kept"], until))
        for number in range(round(seconds / every)):
            tasks.create_task(_new(port, tallies["new"]))
            if number % 25 == 0:
                tasks.create_task(_slow(port, tallies["slow"], min(1.0, seconds / 2)))
            await asyncio.sleep(every)
    return tallies
