"""The process of an attacker, bounded in connections, in time, and in bytes if need be."""

import asyncio
import contextlib
import resource
import sys
from typing import Final

import uvloop

from tests.siege.attackers import ATTACKS, Conversation
from tests.siege.line import Line, Pace
from tests.siege.worker_attackers import WORKER_ATTACKS

_PAUSE: Final = 0.05  # seconds before a connection that has ended is made anew


def command(name: str, port: int, seconds: float, rate: float | None = None) -> tuple[str, ...]:
    """How to start it; a rate in bytes a second is for all of its connections together."""
    words = (name, str(port), str(seconds), *([] if rate is None else [str(rate)]))
    return (sys.executable, "-m", "tests.siege.process", *words)


async def _attacker(port: int, conversation: Conversation, pace: Pace) -> None:
    """Hold one connection, and make another whenever it ends."""
    while True:
        with contextlib.suppress(OSError):
            line = Line(*await asyncio.open_connection("127.0.0.1", port), pace)
            try:
                await conversation(line)
            finally:
                line.abort()
        await asyncio.sleep(_PAUSE)


async def attack(name: str, port: int, seconds: float, rate: float | None) -> None:
    """Attack for a time."""
    chosen = {**ATTACKS, **WORKER_ATTACKS}[name]
    pace = Pace(rate)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for _ in range(chosen.connections):
                tasks.create_task(_attacker(port, chosen.conversation, pace))


def _raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    _raise_file_limit()
    name, port, seconds, *rate = sys.argv[1:]
    uvloop.run(attack(name, int(port), float(seconds), float(rate[0]) if rate else None))
