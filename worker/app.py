"""Puts the worker together, runs it, and stops it without losing what it holds."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any, Final

import msgspec
from arq.cron import CronJob
from redis.asyncio import ConnectionPool

from shared.endpoints.endpoint import Endpoints
from shared.endpoints.file import EndpointsFile
from shared.observe import logs, metrics
from shared.observe.logs import get_logger
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.observe.tracing import Tracing, open_tracing
from shared.program import forking, garbage
from shared.program.awaiting import AwaitedRedis
from shared.queue import marker, told
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, open_partitions, places
from shared.redis.connection import close, connection_pool
from shared.sellfern.reference_file import load_reference
from worker.engine import arq_functions, burst, process
from worker.engine.aside import Aside
from worker.engine.leases import Profiles, roster
from worker.engine.process import Deadline, Exit, Signals
from worker.engine.visit import Visited
from worker.engine.worker import Worker
from worker.lifespans import Lifespans, Settings
from worker.masking import Masks
from worker.operate import relisting, upkeep
from worker.outcomes import text_of
from worker.pipeline.attempts import own_context
from worker.pipeline.batcher import Batcher
from worker.pipeline.driver import Pipeline
from worker.pipeline.memory import MemoryBudget
from worker.pipeline.pulse import Pulse
from worker.pipeline.reports import Report
from worker.pipeline.traced import Tracer
from worker.pipeline.transitions import Profile, Transitions
from worker.pipeline.work import Work
from worker.probes import Probes
from worker.registry import Handlers
from worker.settings import WorkerSettings

_CONNECTIONS: Final = 30
"""For a partition. Kept by wires: claim, mark, settle 8 each, read 1; for sleeping 1; the rest is
for all else."""
_ARQ_CONNECTIONS: Final = 4
"""For a partition."""
_MINUTE: Final = 60
_SETTLE_SECONDS: Final = 30.0
"""What a job may take beside its handler: waiting for Redis, mostly."""
_CLOSING_SECONDS: Final = 4.0
"""What the end may take beyond DRAIN_SECONDS, come what may; a last line and its flush come on top,
and 5 s is what is promised."""
_HOOKS_BEFORE: Final = 2.0
"""What is kept of that for what comes after the hooks that are told of the last failures."""
_LAST_WORDS: Final = 0.5
"""What is kept of that for what comes after the authors' lifespans."""
_MOST_NAMED: Final = 10
_LAST_SECONDS: Final = 1.0
"""What the process may live on after its last line."""


def run(
    settings: WorkerSettings,
    endpoints: EndpointsFile,
    handlers: Handlers,
    *,
    is_burst: bool = False,
) -> Exit:
    """Run a worker until SIGTERM or SIGINT; a second one ends it at once.

    Args:
        settings: its own.
        endpoints: what is served.
        handlers: what runs.
        is_burst: whether it ends once nothing can be handled now. It has no admin site then: no
            worker beside it loses its port to it, and nobody asks who is gone in a moment.

    Raises:
        SettingsError: Redis can't be worked with, or the admin port is taken. Where Redis only
            can't be reached yet, that is waited for, but in a burst.
    """
    program = _Program(settings, endpoints, handlers, get_logger().bind(), is_burst=is_burst)
    with open_tracing(settings.common.tracing, "sellfern-worker") as program.tracing:
        has_ended = process.run(
            program.main, broken=program.break_off, stopped=program.note_stopped_loop
        )
    program.has_stopped = True
    program.log.info("worker_stopped", worker=program.name)
    # A thread that a handler left would keep the process; a task that didn't end has no other way.
    program.deadline.set(_LAST_SECONDS if has_ended else 0.0)
    return program.exit


@dataclass(slots=True)
class _Program:
    """This process: what it is made of, and why it is to stop."""

    settings: WorkerSettings
    endpoints: EndpointsFile
    handlers: Handlers
    log: FilteringBoundLogger
    is_burst: bool = False
    tracing: Tracing | None = None
    has_stopped: bool = False
    exit: Exit = Exit.DRAINED
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{secrets.token_hex(3)}")
    pulse: Pulse = field(init=False)
    deadline: Deadline = field(init=False)
    probes: Probes = field(init=False)
    masks: Masks = field(default_factory=Masks)
    _profiled: tuple[Endpoints, Profiles] | None = None
    _rostered: tuple[Endpoints, upkeep.Listed] | None = None
    _lifespans: Lifespans = field(init=False)
    _own: Context = field(default_factory=own_context)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _listen: Callable[[], None] = field(init=False)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.settings.blocked_after, own_context())
        self.deadline = Deadline(self._last_words)
        settings, lifespans = Settings(os.environ), tuple(self.handlers.lifespans())
        self._lifespans = Lifespans(lifespans, settings, self.log, is_patient=not self.is_burst)
        parts = (self.settings, self.endpoints, self._lifespans, self.pulse)
        self.probes = Probes(*parts, is_burst=self.is_burst)

    async def main(self) -> None:
        """Run until stopped."""
        try:
            await self._main()
        except asyncio.CancelledError:
            self._note_cancelled()

    async def _main(self) -> None:
        forking.guard()
        metrics.tell_program("worker")
        # A slot a thread, or handlers that use `asyncio.to_thread` would wait for each other.
        threads = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="handlers")
        asyncio.get_running_loop().set_default_executor(threads)
        common = self.settings.common
        # Of the watchdog: one a partition, and one to look around.
        opened_aside = partial(open_partitions, common, connections=1 + common.partitions_each)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            # First, and the probes next: both are asked while Redis is still waited for.
            self._listen_to_signals(stack)
            aside = await enter(Aside())
            looking = await enter(aside.within(opened_aside()))
            if not self.is_burst:
                await enter(aside.within(self.probes.site(looking)))
                # There, since what happens to Redis is told whatever handlers do to the loop.
                await enter(
                    aside.within(marker.watching(looking, self.log, self.probes.is_heard_by))
                )
            connections = _CONNECTIONS * common.partitions_each
            partitions = await enter(open_partitions(common, connections=connections))
            await enter(self.endpoints.watching())
            awaited = self.probes.awaited = AwaitedRedis(
                partial(self.probes.startable, partitions),
                url=" ".join(map(str, common.redis_urls)),
                expected="a Redis that can be worked with",
                is_patient=not self.is_burst,
            )
            if not await awaited.found(self._stopped):
                return
            # Before anything is claimed; and left once the worker has settled all that it could.
            stack.push_async_callback(self._end_lifespans)
            if await self._lifespans.begin(self._stopped):
                worker = self._opened_worker(partitions, aside, opened_aside)
                await self._work(await enter(worker))
                if self.is_burst:
                    await burst.tell(partitions, self.log)

    async def _work(self, worker: Worker) -> None:
        # Now that all is loaded: it never has to be looked through again.
        garbage.tune()
        self.log.info(
            "worker_started",
            worker=self.name,
            concurrency=self.settings.concurrency,
            handlers=len(self.handlers),
        )
        partitions = self.settings.common.partitions
        with metrics.partitions_up(partitions, lambda: worker.unheard(self.settings.lease)):
            await worker.async_run()

    @contextlib.asynccontextmanager
    async def _opened_worker(
        self,
        partitions: Partitions,
        aside: Aside,
        opened_aside: Callable[[], contextlib.AbstractAsyncContextManager[Partitions]],
    ) -> AsyncIterator[Worker]:
        """The worker, which gives back at its end what it still holds."""
        common = self.settings.common
        connections = _ARQ_CONNECTIONS * common.partitions_each
        pools = [
            connection_pool(url, connections=connections, slot=slot) for url, slot in places(common)
        ]
        first, *others = [
            Visited(context, partition, self._options(context, partition, pool, partitions))
            for context, partition, pool in zip(
                self._contexts(partitions), partitions, cycle(pools), strict=False
            )
        ]
        worker = self.probes.worker = Worker(
            first.context,
            first.partition,
            open_partitions=opened_aside,
            name=self.name,
            description=self._description(),
            profiles=self._profiles,
            pulse=self.pulse,
            aside=aside,
            leave=self.leave,
            tick=self._listen,
            is_burst=self.is_burst,
            others=others,
            **first.options,
        )
        try:
            yield worker
        finally:
            self._hurry()  # a burst ends without a signal
            await worker.close()
            left = self.deadline.left() or 0.0
            await first.context.pipeline.hooks.drain(left - _HOOKS_BEFORE)
            for pool in pools:
                await close(pool)
            # Where Redis has stayed away, nothing could be given back.
            if held := worker.held():
                self._note_left(held)

    # Ending

    async def _end_lifespans(self) -> None:
        """Let the authors' lifespans end, in what is left of the time for that."""
        self._hurry()  # a start that fails, too, has no other bound than this
        left = self.deadline.left() or 0.0
        await self._lifespans.end(max(_LAST_WORDS, left - _LAST_WORDS))

    def _listen_to_signals(self, stack: AsyncExitStack) -> None:
        """Drain on the first signal, leave on the second."""
        self._loop = asyncio.get_running_loop()
        signals = Signals(self._on_signal, self._hurry, self.log)
        stack.callback(signals.stop)
        stack.callback(self._hurry)  # for no signal ends it from then on
        self._listen = signals.listen
        signals.listen()

    def _on_signal(self, number: signal.Signals, times: int) -> None:
        if times > 1:
            self.log.warning("stopped_at_once", signal=number.name)
            self.leave(Exit.AT_ONCE, at_once=True)
        self._hurry()  # though the loop stand still
        # Python may be in the midst of a handler's step, whose context must not become the drain's.
        self._loop.call_soon_threadsafe(self._drain, number, context=self._own)

    def _hurry(self) -> None:
        self.deadline.set(self.settings.drain + _CLOSING_SECONDS)

    def _drain(self, number: signal.Signals) -> None:
        self.log.info("draining", signal=number.name, seconds=self.settings.drain)
        self._stop(self.settings.drain)

    def _stop(self, seconds: float) -> None:
        """Stop the worker; the process ends soon after so many seconds, come what may."""
        self.probes.stopping = True
        self.deadline.set(seconds + _CLOSING_SECONDS)
        self._stopped.set()
        if self.probes.worker is not None:
            self.probes.worker.stop()

    def leave(self, code: Exit, *, at_once: bool) -> None:
        """End the process for a reason of the worker's own; at once in any thread."""
        self.exit = code
        if at_once:
            logs.flush(logs.LAST_SECONDS)
            # Not `sys.exit`, which would run what handlers have registered and wait for their
            # threads.
            os._exit(code)
        self._stop(self.settings.drain)

    def break_off(self, error: BaseException, work: Work | None) -> None:
        """A task or callback that a handler left has ended the loop: give back what is held."""
        self.exit = Exit.BROKEN
        named = work.naming() if work is not None else {"handler": None}
        said = self.masks.own.hide(text_of(error))
        self.log.error("worker_broken", error=said, **named)
        self.probes.stopping = True
        self.deadline.set(_CLOSING_SECONDS)
        self._stopped.set()
        if self.probes.worker is not None:
            self.probes.worker.break_off(error, work)

    def _note_cancelled(self) -> None:
        """A task group or a time limit around a lifespan's ``yield`` has ended what began it."""
        if self.exit is Exit.DRAINED:
            self.exit = Exit.BROKEN
        said = "what a lifespan has begun has cancelled the worker"
        self.log.error("worker_broken", error=said, handler=None)

    def note_stopped_loop(self) -> None:
        """A handler has stopped the loop, which goes on."""
        self.log.error("loop_stopped", error="a handler called the event loop's stop()")

    def _last_words(self) -> Exit:
        held = [] if self.probes.worker is None else self.probes.worker.held()
        if held:
            self._note_left(held)
        elif not self.has_stopped:
            self.log.error("ended_at_the_deadline", seconds=self.settings.drain + _CLOSING_SECONDS)
            self._note_unfinished()
        return self.exit

    def _note_left(self, held: list[str]) -> None:
        """What was not given back runs again once its lease is over."""
        self.log.error("left_to_lease", jobs=len(held), some=held[:_MOST_NAMED])
        self._note_unfinished()

    def _note_unfinished(self) -> None:
        # A reason that the worker had before says more than that time ran out.
        if self.exit is Exit.DRAINED:
            self.exit = Exit.LEFT

    # Parts

    def _contexts(self, partitions: Partitions) -> list[arq_functions.Context]:
        """One for each partition. Attempts, memory and hooks are those of the worker."""
        lease, contexts = self.settings.lease, list[arq_functions.Context]()
        for partition in partitions:
            log = self.log if len(partitions) == 1 else self.log.bind(partition=partition.number)
            transitions = Transitions(
                partition,
                retention=self.settings.policy.limits.dedupe_retention,
                has_turns=self.handlers.has_turns,
            )
            slots = self.settings.concurrency
            batcher = Batcher(transitions, patience=lease, log=log, pulse=self.pulse, slots=slots)
            prefix = partition.names.job_prefix
            if contexts:
                pipeline = contexts[0].pipeline.within(batcher, prefix)
            else:
                pipeline = self._pipeline(batcher, prefix)
            contexts.append(arq_functions.Context(pipeline, batcher, transitions, lease, log))
        return contexts

    def _pipeline(self, batcher: Batcher, job_prefix: str) -> Pipeline:
        return Pipeline(
            ledger=batcher,
            handlers=self.handlers,
            reference=load_reference(self.settings.common),
            policy=self.settings.policy,
            endpoints=self.endpoints,
            log=self.log,
            report=Report.of_many(),
            memory=MemoryBudget(self.settings.decoded_bytes, slots=self.settings.concurrency),
            masks=self.masks,
            observer=None if self.tracing is None else Tracer(self.tracing),
            resources=self._lifespans.resources,
            job_prefix=job_prefix,
            worker=self.name,
        )

    def _options(
        self,
        context: arq_functions.Context,
        partition: Partition,
        pool: ConnectionPool,
        partitions: Partitions,
    ) -> dict[str, Any]:
        """arq's, in a partition."""
        return {
            "cron_jobs": [self._upkeep(partition, partitions)],
            **arq_functions.worker_options(
                context,
                arq_functions.arq_redis(pool, partition.names),
                concurrency=self.settings.concurrency,
                job_timeout=self.settings.policy.handler_timeout + _SETTLE_SECONDS,
                drain=self.settings.drain,
            ),
        }

    def _profiles(self) -> Profiles:
        current, default = self.endpoints.current, self.settings.organization_concurrency
        # It is asked for every two seconds, and there may be ten thousand.
        if self._profiled is None or self._profiled[0] is not current:
            profiles = [
                Profile(each.id, each.concurrency or default, each.weight, each.rate)
                for each in current.organizations.values()
            ]
            self._profiled = current, profiles
        return self._profiled[1]

    def _listed(self) -> upkeep.Listed:
        current = self.endpoints.current
        if self._rostered is None or self._rostered[0] is not current:
            organizations = current.organizations.keys()
            self._rostered = current, upkeep.Listed(organizations, roster(organizations))
        return self._rostered[1]

    def _upkeep(self, partition: Partition, partitions: Partitions) -> CronJob:
        settings, retention = self.settings, self.settings.policy.limits.dedupe_retention
        log, opened = self.log, self._lifespans.opened
        tasks: list[Callable[[], Awaitable[None]]] = [
            partial(upkeep.expire, partition, retention=settings.dead_letter_retention, log=log),
            partial(upkeep.forget, partition),  # first: the fewer there are, the shorter the next
            partial(upkeep.undo_moves, partition, partitions, log=log),
            partial(upkeep.renumber, partition, log=log),
            partial(upkeep.unlist, partition, self._listed, log=log),
            partial(upkeep.restore, partition, lease=settings.lease, log=log),
            partial(upkeep.recount, partition, retention=retention),
        ]
        # Inboxes know no partitions: one does it for all.
        prune = partial(upkeep.prune, partitions, opened, retention=retention, log=log)
        tasks += [upkeep.in_first(partition, self.probes.heard, prune)]
        tasks += [partial(relisting.relist, partition, log=log)]  # last: many take it long
        return upkeep.cron_job(
            *tasks,
            job_prefix=partition.names.job_prefix,
            second=partition.number * _MINUTE // len(partitions),
        )

    def _description(self) -> bytes:
        return msgspec.json.encode(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "version": metrics.installed_version(),
                "concurrency": self.settings.concurrency,
                "marks": told.VERSION,
                relisting.LISTS: True,
            }
        )
