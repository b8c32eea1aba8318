"""A worker's inside on a real Redis, without its process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

import msgspec
import structlog
from redis.asyncio import ConnectionPool, Redis
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from shared.endpoints.endpoint import CurrentEndpoints, Endpoints
from shared.queue import job as jobs
from shared.queue.job import Delivery
from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions
from shared.queue.writer import Queue
from shared.redis.durability import Durability, Mode
from shared.sellfern.reference import load_default
from worker import Event, Handlers, Organization
from worker.engine import arq_functions
from worker.engine.leases import Profiles
from worker.engine.process import Exit
from worker.engine.worker import Worker
from worker.pipeline.batcher import Batcher
from worker.pipeline.driver import Pipeline
from worker.pipeline.policy import Backoff, Breaker, Limits, Policy
from worker.pipeline.pulse import Pulse
from worker.pipeline.reports import Report
from worker.pipeline.transitions import Claim, Settled, Transitions

DAY = 86_400.0
LIMITS = Limits(max_event_age=6 * DAY, dedupe_retention=7 * DAY, clock_skew=300)
POLICY = Policy(
    limits=LIMITS,
    handler_timeout=5,
    max_attempts=3,
    max_claims=3,
    backoff=Backoff(base=0.001, cap=0.002),
    breaker=Breaker(),
    stuck_after=0.2,
    no_handler_patience=0,
)
_numbers = count()


def now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


def body(event_id: str = "", organization: str = "org_a", **changes: Any) -> bytes:
    """A signed body as Sellfern would send it, with one thing or another changed."""
    fields: dict[str, Any] = {
        "id": event_id or f"evt_{next(_numbers)}",
        "type": "order.updated",
        "created_at": now(),
        "organization_id": organization,
        "data": {"order_id": "1"},
    }
    return msgspec.json.encode({**fields, **changes})


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self._capture = CapturingLogger()
        self.log: FilteringBoundLogger = structlog.wrap_logger(
            self._capture,
            processors=[],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
        )

    def events(self) -> list[str]:
        """The events in the order in which they were logged."""
        return [str(call.kwargs["event"]) for call in self._capture.calls]

    def of(self, event: str) -> list[Mapping[str, Any]]:
        """The fields of each line of an event."""
        return [call.kwargs for call in self._capture.calls if call.kwargs["event"] == event]

    def text(self) -> str:
        """Everything that was logged."""
        return repr(self._capture.calls)


class Workplace:
    """A pipeline with what it needs.

    Args:
        redis: a real one.
        handlers: to be run.
        policy: the rules.
        names: of a partition.
    """

    def __init__(
        self,
        redis: Redis,
        handlers: Handlers | None = None,
        policy: Policy = POLICY,
        names: Names | None = None,
    ) -> None:
        self.redis = redis
        self.partition = Partition(0, names, redis) if names else Partition.only(redis)
        self.handlers = handlers or Handlers()
        self.lines = Lines()
        self.transitions = Transitions(self.partition, has_turns=self.handlers.has_turns)
        self.endpoints: CurrentEndpoints = SimpleNamespace(current=Endpoints({}, {}))
        self.left: list[Exit] = []
        self.left_at_once = False
        self.batcher = Batcher(self.transitions, patience=1, log=self.lines.log)
        self.pipeline = Pipeline(
            ledger=self.batcher,
            handlers=self.handlers,
            reference=load_default(),
            policy=policy,
            endpoints=self.endpoints,
            log=self.lines.log,
            report=Report(self.lines.log),
            job_prefix=self.partition.names.job_prefix,
        )

    def context(self, lease: float = 30) -> arq_functions.Context:
        """What arq's functions need."""
        parts = (self.pipeline, self.batcher, self.transitions)
        return arq_functions.Context(*parts, lease, self.lines.log)

    async def accept(
        self, *bodies: bytes, organization: str = "org_a", **changes: Any
    ) -> list[str]:
        """Enqueue signed bodies; their jobs."""
        received_at = round(now().timestamp() * 1000)
        deliveries = [
            Delivery(
                **{
                    "endpoint": "acme",
                    "organization": organization,
                    "received_at": received_at,
                    "headers": {},
                    "body": each,
                    **changes,
                }
            )
            for each in bodies
        ]
        await Queue(self.partition, Durability(Mode.MEMORY)).enqueue(deliveries)
        prefix = self.partition.names.job_prefix
        return [prefix + jobs.job_id(organization, each) for each in bodies]

    async def claim(self, most: int = 1, lease: float = 30) -> list[tuple[Claim, bytes]]:
        """Claim what is in line."""
        claimed = await self.transitions.claim("w1", most=most, lease=lease, holding=0)
        return claimed.jobs

    async def handle(self, signed: bytes, **changes: Any) -> Settled:
        """Take one body from acceptance to its end, or to its next attempt."""
        await self.accept(signed, **changes)
        return await self.handle_next()

    async def handle_next(self) -> Settled:
        """Run the next job that is, or comes, in line."""
        while not (claimed := await self.claim()):
            await asyncio.sleep(0.001)  # the next attempt is due in a millisecond or two
        return await self.run(*claimed[0])

    async def run(self, claim: Claim, payload: bytes) -> Settled:
        """Run one claimed job."""
        try:
            delivery = jobs.decode(payload)
        except jobs.PayloadError:
            return await self.pipeline.run(claim, None)
        return await self.pipeline.run(claim, delivery)

    def worker(
        self,
        *,
        slots: int = 10,
        lease: float = 30,
        profiles: Callable[[], Profiles] = list,
        opened: Callable[[], AbstractAsyncContextManager[Partitions]] | None = None,
        **options: Any,
    ) -> Worker:
        """This project's arq worker around the pipeline; to be closed by the test."""
        context = self.context(lease)
        return Worker(
            context,
            self.partition,
            open_partitions=opened or self._opened,
            name=f"w{next(_numbers)}",
            description=b"{}",
            profiles=profiles,
            pulse=Pulse(1, copy_context()),
            leave=self._leave,
            **{**self.options(context, slots), **options},
        )

    def _leave(self, code: Exit, *, at_once: bool) -> None:
        self.left.append(code)
        self.left_at_once = at_once

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Partitions]:
        async with self.open_redis() as redis:
            yield Partitions((replace(self.partition, redis=redis),))

    def open_redis(self) -> Redis:
        """A client for another event loop."""
        where = self.redis.connection_pool.connection_kwargs
        return Redis(host=where["host"], port=where["port"])

    def options(self, context: arq_functions.Context, slots: int = 10) -> dict[str, Any]:
        """Options for an ``arq.Worker``."""
        where = self.redis.connection_pool.connection_kwargs
        return arq_functions.worker_options(
            context,
            arq_functions.arq_redis(
                ConnectionPool(host=where["host"], port=where["port"]), self.partition.names
            ),
            concurrency=slots,
            job_timeout=60,
            drain=5,
        )


@asynccontextmanager
async def working(*workers: Worker) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Workers that run as long as the block; their tasks."""
    tasks = [asyncio.create_task(worker.async_run()) for worker in workers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in workers:
            await worker.close()


def place_with(redis: Redis, handle: Callable[..., Any], **changes: Any) -> Workplace:
    """One whose only handler this is, by another policy."""
    handlers = Handlers()
    handlers.on("*")(handle)
    return Workplace(redis, handlers, replace(POLICY, **changes))


def stuck_until(let_go: asyncio.Event) -> Callable[..., Any]:
    """A handler that goes on however often it is cancelled."""

    async def swallow(_event: Event[Any], _: Organization) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    return swallow
