"""Puts the worker together, runs it, and stops it without losing what it holds."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import msgspec
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from shared import garbage
from shared.admin import admin_site, cached
from shared.connection import connection_pool, open_redis
from shared.durability import check_server
from shared.endpoints_file import EndpointsFile
from shared.errors import SettingsError
from shared.health import Problem
from shared.logs import get_logger
from shared.sellfern.reference_file import load_reference
from shared.tracing import Tracing, open_tracing
from worker import retention, stock
from worker.engine import Worker
from worker.leases import Profiles
from worker.ledger import Ledger
from worker.pipeline import Pipeline
from worker.registry import Handlers
from worker.reports import Report
from worker.settings import WorkerSettings
from worker.traced import TracedPipeline
from worker.transitions import Transitions

_CONNECTIONS = 10
"""Kept by wires: claim 1, mark 2, settle 2, read 1; for sleeping 1; the rest is for all else."""
_ARQ_CONNECTIONS = 4
_SETTLE_SECONDS = 30.0
"""What a job may take beside its handler: waiting for Redis, mostly."""


async def serve(settings: WorkerSettings, endpoints: EndpointsFile, handlers: Handlers) -> None:
    """Run a worker until SIGTERM or SIGINT; a second one ends it at once.

    Raises:
        SettingsError: Redis can't be reached or is too old, or the admin port is taken.
    """
    with open_tracing(settings.common.tracing, "sellfern-worker") as tracing:
        await _serve(_Program(settings, endpoints, handlers, get_logger().bind(), tracing))


async def _serve(program: "_Program") -> None:
    settings = program.settings
    async with open_redis(settings.common.redis_url, connections=_CONNECTIONS) as redis:
        if problems := await check_server(redis):
            got = "; ".join(problem.message for problem in problems)
            url = settings.common.redis_url
            raise SettingsError("REDIS_URL", "a Redis that can be worked with", f"{url}: {got}")

        async def ready() -> list[Problem]:
            return await program.problems(redis)

        async with (
            program.endpoints.watching(),
            admin_site(
                settings.admin_host, settings.admin_port, cached(ready), prefix="WORKER_ADMIN"
            ),
            program.worker(redis) as worker,
            program.signals(worker),
        ):
            await program.run(worker)


@dataclass(slots=True)
class _Program:
    """This process: what it is made of, and whether it is to stop."""

    settings: WorkerSettings
    endpoints: EndpointsFile
    handlers: Handlers
    log: FilteringBoundLogger
    tracing: Tracing | None = None
    stopping: bool = False
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{secrets.token_hex(3)}")

    async def run(self, worker: Worker) -> None:
        """Run until stopped; arq cancels its main task then."""
        garbage.tune()
        self.log.info(
            "worker_started",
            worker=self.name,
            concurrency=self.settings.concurrency,
            handlers=len(self.handlers),
        )
        try:
            await worker.async_run()
        except asyncio.CancelledError:
            if not self.stopping:
                raise
        self.log.info("worker_stopped", worker=self.name)

    @contextlib.asynccontextmanager
    async def worker(self, redis: Redis) -> AsyncIterator[Worker]:
        """The worker, which gives back at its end what it still holds."""
        pool = connection_pool(self.settings.common.redis_url, connections=_ARQ_CONNECTIONS)
        context = self._context(redis)
        worker = Worker(
            context,
            redis,
            name=self.name,
            description=self._description(),
            profiles=self._profiles,
            cron_jobs=[
                retention.cron_job(
                    redis, retention=self.settings.dead_letter_retention, log=self.log
                )
            ],
            **stock.worker_options(
                context,
                stock.arq_redis(pool),
                concurrency=self.settings.concurrency,
                job_timeout=self.settings.policy.handler_timeout + _SETTLE_SECONDS,
                drain=self.settings.drain,
            ),
        )
        try:
            yield worker
        finally:
            await worker.close()
            await pool.aclose()

    @contextlib.asynccontextmanager
    async def signals(self, worker: Worker) -> AsyncIterator[None]:
        """Drain on the first signal, leave on the second."""

        def stop(number: signal.Signals) -> None:
            if self.stopping:
                self.log.warning("stopped_at_once", signal=number.name)
                os._exit(1)
            self.stopping = True
            self.log.info("draining", signal=number.name, seconds=self.settings.drain)
            worker.handle_sig_wait_for_completion(number)

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def problems(self, redis: Redis) -> list[Problem]:
        """What keeps this worker from being ready."""
        if self.stopping:
            return [Problem("draining", "the worker is stopping")]
        return await check_server(redis)

    def _context(self, redis: Redis) -> stock.Context:
        transitions = Transitions(redis)
        kind: type[Pipeline] | partial[TracedPipeline] = Pipeline
        if self.tracing is not None:
            kind = partial(TracedPipeline, tracing=self.tracing)
        pipeline = kind(
            ledger=Ledger(transitions, patience=self.settings.lease, log=self.log),
            handlers=self.handlers,
            reference=load_reference(self.settings.common),
            policy=self.settings.policy,
            profiles=lambda: self.endpoints.current.organizations(),  # noqa: PLW0108  # it changes
            log=self.log,
            report=Report.of_many(),
        )
        return stock.Context(pipeline, transitions, self.settings.lease, self.log)

    def _profiles(self) -> Profiles:
        default = self.settings.organization_concurrency
        return [
            (organization.id, organization.concurrency or default, organization.weight)
            for organization in self.endpoints.current.organizations().values()
        ]

    def _description(self) -> bytes:
        return msgspec.json.encode(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "version": _version(),
                "concurrency": self.settings.concurrency,
            }
        )


def _version() -> str:
    try:
        return version("sellfern-webhooks")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
