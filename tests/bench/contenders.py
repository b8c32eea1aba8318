"""Who drains a queue: our workers and the peers', all started and counted the same way."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.writer import Queue
from shared.redis.durability import Durability, Mode
from tests.bench import events
from tests.bench.environments import (
    ROOT,
    SCRIPTS,
    CannotRunError,
    last_line,
    node_packages,
    python_environment,
)
from tests.bench.programs import PATIENCE, WORKER, Program, environment

CONCURRENCY: Final = 100
"""Jobs that one worker runs at once, where that can be set: our default."""

APPENDFSYNC: Final = "everysec"
"""How every contender's Redis syncs its append-only file: Redis's own default once that is on.

``always``, which the ingress asks for, would slow down the peers more, since they write a job at
a time.
"""

_BATCH: Final = 256
_BATCH_BYTES: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Command:
    """How one process of a contender is started."""

    words: Sequence[str]
    environ: Mapping[str, str]


class Contender(Protocol):
    """A queue with its workers."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def about(self) -> str:
        """The settings that matter."""
        ...

    @property
    def appendfsync(self) -> str:
        """How its Redis syncs the append-only file."""
        ...

    @property
    def share(self) -> float:
        """How many jobs it gets, as a share of the fastest one's: runs take about as long."""
        ...

    def prepare(self) -> None:
        """Install what it needs; raises CannotRunError."""
        ...

    def fill(self, url: str, jobs: int) -> None:
        """Put jobs into its empty queue."""
        ...

    def command(self, url: str, folder: Path) -> Command:
        """One worker process."""
        ...

    def accompany(self, stack: ExitStack, url: str, folder: Path) -> None:
        """Start what runs beside its workers, until the stack ends."""
        ...

    def unfinished(self, redis: Any) -> int:
        """How many jobs are not done yet, by the queue's own keys."""
        ...


@dataclass(frozen=True, slots=True)
class Ours:
    """`python -m worker` as it is: leases, dedupe, judgement, metrics, log."""

    name: str
    about: str
    organizations: Sequence[str] = events.ORGANIZATIONS
    changes: Mapping[str, str] = field(default_factory=dict)
    appendfsync: str = APPENDFSYNC
    share: float = 1.0
    is_watched: bool = False
    body_bytes: int = events.BODY_BYTES

    def prepare(self) -> None:
        """Nothing: it is this project."""

    def fill(self, url: str, jobs: int) -> None:
        """Enqueue events as the ingress does."""
        asyncio.run(fill(url, jobs, self.organizations, size=self.body_bytes))

    def command(self, url: str, folder: Path) -> Command:
        """The program with a handler that does nothing."""
        endpoints = events.write_endpoints(folder, self.organizations)
        changes = {"WORKER_HANDLERS": "tests.bench.handlers:idle", **self.changes}
        return Command(WORKER, environment(url, endpoints, **changes))

    def accompany(self, stack: ExitStack, url: str, folder: Path) -> None:
        """The console with somebody who looks, where it is watched."""
        if not self.is_watched:
            return
        endpoints = events.write_endpoints(folder, self.organizations)
        environ = environment(url, endpoints, CONSOLE_PORT="0")
        console = Program.started((*WORKER, "console"), environ, folder / "console.log")
        port = stack.enter_context(console).logged("console_listening")["port"]
        poll = (sys.executable, "-m", "tests.bench.poll", str(port))
        stack.enter_context(Program.started(poll, environ, folder / "poll.log"))

    def unfinished(self, redis: Any) -> int:
        """Events that are accepted and have no end yet."""
        return int(redis.zcard(keys.ACCEPTED))


async def fill(
    url: str,
    number: int,
    organizations: Sequence[str],
    kind: str = "0",
    size: int = events.BODY_BYTES,
) -> None:
    """Enqueue events straight into our queue."""
    at_once = max(1, min(_BATCH, _BATCH_BYTES // size))
    async with AsyncRedis.from_url(url) as redis:
        queue = Queue(Partition.only(redis), Durability(Mode.MEMORY))
        batch = []
        for delivery in events.deliveries(number, organizations, kind, size):
            batch.append(delivery)
            if len(batch) == at_once:
                await queue.enqueue(batch)
                batch = []
        if batch:
            await queue.enqueue(batch)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another queue, run by its script in ``peers``.

    Attributes:
        name: what it is called in tables.
        module: of its script and its packages.
        about: the settings that matter.
        count: how many jobs are not done, by its own keys.
        share: see `Contender`.
    """

    name: str
    module: str
    about: str
    count: Callable[[Any], int]
    share: float
    concurrency: int = CONCURRENCY
    appendfsync: str = APPENDFSYNC
    body_bytes: int = events.BODY_BYTES

    def prepare(self) -> None:
        """Make its environment."""
        python_environment(self.module)

    def fill(self, url: str, jobs: int) -> None:
        """Let its own producer enqueue."""
        run(self.words("enqueue", jobs), self.environ(url))

    def command(self, url: str, folder: Path) -> Command:
        """Its worker."""
        del folder
        return Command(self.words("work", 1), self.environ(url))

    def accompany(self, stack: ExitStack, url: str, folder: Path) -> None:
        """Nothing."""

    def unfinished(self, redis: Any) -> int:
        """By its own keys."""
        return self.count(redis)

    def words(self, verb: str, number: int) -> list[str]:
        """The script's command line."""
        python = python_environment(self.module)
        return [str(python), "-m", f"tests.bench.peers.{self.module}_peer", verb, str(number)]

    def environ(self, url: str) -> dict[str, str]:
        """What the script is told."""
        return {
            **os.environ,
            "REDIS_URL": url,
            "BENCH_CONCURRENCY": str(self.concurrency),
            "BENCH_BODY_BYTES": str(self.body_bytes),
        }


@dataclass(frozen=True, slots=True)
class NodePeer(Peer):
    """A queue for Node."""

    def prepare(self) -> None:
        """Make its packages."""
        node_packages(self.module)

    def words(self, verb: str, number: int) -> list[str]:
        """The script's command line."""
        return ["node", str(SCRIPTS / f"{self.module}_peer.cjs"), verb, str(number)]

    def environ(self, url: str) -> dict[str, str]:
        """What the script is told."""
        packages = str(node_packages(self.module))
        # In an explicit call: super() doesn't work in a dataclass with slots.
        return {**Peer.environ(self, url), "NODE_PATH": packages, "NODE_ENV": "production"}


def run(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run a peer's program to its end; what it printed.

    Raises:
        CannotRunError: it failed, or took too long.
    """
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=environ,
            timeout=PATIENCE * 2,
            capture_output=True,
            text=True,
            check=False,
        )
    except (subprocess.TimeoutExpired, OSError) as exc:
        raise CannotRunError(str(exc)) from exc
    if done.returncode:
        raise CannotRunError(last_line(done.stderr))
    return done.stdout


OURS: Final = Ours("ours", "all of it, with a log line an event to a file")
OURS_500: Final = Ours(
    "ours, 500 slots", "WORKER_CONCURRENCY=500", changes={"WORKER_CONCURRENCY": "500"}
)
OURS_1000: Final = Ours(
    "ours, 1,000 slots", "WORKER_CONCURRENCY=1000", changes={"WORKER_CONCURRENCY": "1000"}
)
OURS_QUIET: Final = Ours("ours, no log line", "LOG_LEVEL=warning", changes={"LOG_LEVEL": "warning"})
OURS_ALONE: Final = Ours(
    "ours, one organization",
    "all events are of one organization, which may have 80 of the 100 slots",
    organizations=events.ORGANIZATIONS[:1],
)
OURS_SYNCED: Final = Ours(
    "ours, synced always", "appendfsync always, as in production", appendfsync="always"
)
OURS_WATCHED: Final = Ours("ours, console open", "", is_watched=True)
ARQ: Final = Peer(
    "arq 0.28",
    "arq",
    "max_jobs=100, keep_result=0, uvloop, no log lines",
    lambda redis: int(redis.zcard("arq:queue")),
    0.12,
)
SAQ: Final = Peer(
    "SAQ 0.26",
    "saq",
    "concurrency=100, no result, uvloop, hiredis, no log lines",
    lambda redis: int(redis.zcard("saq:default:incomplete")),
    0.15,
)
STREAQ: Final = Peer(
    "streaQ 7.2",
    "streaq",
    "concurrency=100, no result, uvloop, silent",
    lambda redis: int(redis.xlen("streaq:default:queues:normal")),
    0.12,
)
DRAMATIQ: Final = Peer(
    "dramatiq 2.2",
    "dramatiq",
    "8 threads, as its command has",
    lambda redis: int(redis.hlen("dramatiq:default.msgs")),
    0.2,
)
CELERY: Final = Peer(
    "Celery 5.7",
    "celery",
    "solo pool, no result, 100 prefetched, no gossip, mingle or heartbeat",
    lambda redis: int(redis.llen("celery")) + int(redis.hlen("unacked")),
    0.08,
)
BULLMQ: Final = NodePeer(
    "BullMQ 6.7 (Node)",
    "bullmq",
    "concurrency=500, removeOnComplete",
    lambda redis: int(redis.llen("bull:bench:wait")) + int(redis.llen("bull:bench:active")),
    1.0,
    concurrency=500,
)
BULLMQ_100: Final = replace(
    BULLMQ, name="BullMQ, 100 at once", about="concurrency=100", concurrency=100
)
BULLMQ_1000: Final = replace(
    BULLMQ, name="BullMQ, 1,000 at once", about="concurrency=1000", concurrency=1000
)
PEERS: Final[tuple[Peer, ...]] = (ARQ, SAQ, STREAQ, DRAMATIQ, CELERY, BULLMQ)


def client(url: str) -> Any:
    """A blocking client; redis-py's own types would have every answer awaited."""
    return Redis.from_url(url)
