"""Load over many connections at once, each with one request after the other: wrk, or our own."""

import asyncio
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Final

import uvloop

from tests.bench.environments import ROOT, CannotRunError, last_line
from tests.bench.figures import percentile
from tests.bench.http_client import Connection
from tests.bench.requests_file import RequestsFile

CONNECTIONS: Final = 64
_WRK_SCRIPT: Final = Path(__file__).parent / "load.lua"
_SPARE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        answered: requests with an answer.
        refused: those of them that were not answered 202.
        seconds: that it took.
        p50: the median time to an answer, in seconds.
        p99: 99 of 100 were faster.
    """

    answered: int
    refused: int
    seconds: float
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return (self.answered - self.refused) / self.seconds


def tool() -> str:
    """What makes the load on this machine."""
    return "wrk" if shutil.which("wrk") else "the bundled client"


def put_load(
    port: int,
    requests: RequestsFile,
    *,
    first: int,
    seconds: float,
    connections: int = CONNECTIONS,
    each_once: bool = False,
) -> Load:
    """Send requests as fast as they are answered, from a process of its own.

    Args:
        port: where to.
        requests: what to send.
        first: the place in it of the first to send.
        seconds: for how long, at the most.
        connections: how many.
        each_once: whether the end of the file ends it, too; wrk would begin anew.

    Raises:
        CannotRunError: the client failed, or nothing was accepted.
    """
    arguments = [str(requests.path), str(requests.size), str(first)]
    if shutil.which("wrk") and not each_once:
        whole = math.ceil(seconds)  # wrk knows no others
        threads = ["-t1", f"-c{connections}", f"-d{whole}s", "-s", str(_WRK_SCRIPT)]
        command = ["wrk", *threads, f"http://127.0.0.1:{port}/", "--", *arguments]
    else:
        own = [sys.executable, "-m", "tests.bench.load", str(port), str(seconds)]
        command = [*own, *arguments, str(requests.number), str(connections)]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + _SPARE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"no end within {_SPARE_SECONDS:g} s after the load") from None
    if done.returncode:
        raise CannotRunError(last_line(done.stderr or done.stdout))
    load = Load(**json.loads(last_line(done.stdout)))
    if load.answered == load.refused:
        raise CannotRunError(f"none of {load.answered} requests was accepted")
    return load


async def _load(port: int, requests: Sequence[bytes], seconds: float, number: int) -> Load:
    connections = [await Connection.to(port) for _ in range(number)]
    turns, times, refused = iter(requests), list[float](), list[int]()
    started = perf_counter()
    until = started + seconds
    await asyncio.gather(
        *(_send(connection, turns, until, times, refused) for connection in connections)
    )
    took = perf_counter() - started
    for connection in connections:
        connection.close()
    return Load(len(times), len(refused), took, percentile(times, 0.5), percentile(times, 0.99))


async def _send(
    connection: Connection,
    turns: Iterator[bytes],
    until: float,
    times: list[float],
    refused: list[int],
) -> None:
    for request in turns:
        started = perf_counter()
        status = await connection.ask(request)
        now = perf_counter()
        times.append(now - started)
        if status != HTTPStatus.ACCEPTED:
            refused.append(status)
        if now > until:
            return


def main() -> None:
    """Run as a process of its own, so that it doesn't wait for whoever measures."""
    port, seconds, path, size, first, number, connections = sys.argv[1:]
    requests = RequestsFile(Path(path), int(size), int(number)).read(int(first))
    load = uvloop.run(_load(int(port), requests, float(seconds), int(connections)))
    print(json.dumps(asdict(load)))  # noqa: T201  # the result, for the process that started it


if __name__ == "__main__":
    main()
