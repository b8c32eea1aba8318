"""What is arq's own about our jobs: the functions and options of a stock ``arq.Worker``.

arq deletes a job whose function returns, fails or times out. Ours settle the job in Redis
themselves, with its mark and its state, so each of them ends by raising ``arq.Retry``: arq's one
way to leave a job's keys as they are.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import arq
from arq.connections import ArqRedis
from arq.worker import Function, func
from redis.asyncio import ConnectionPool

from shared.errors import TransitionError, Unavailable
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue import job
from shared.queue.keys import UNTAGGED, Names
from shared.redis.connection import REDIS_ERRORS, translate
from worker.pipeline.attempts import Slots
from worker.pipeline.batcher import Batcher
from worker.pipeline.driver import Pipeline
from worker.pipeline.transitions import Claim, Transitions

_CONTEXT: Final = "sellfern"
CLAIM: Final = "sellfern_claim"
"""In arq's ``ctx`` of a job that this project's worker has claimed already."""
_NO_LIMIT: Final = 2**31
"""Of tries: arq's own count drops a job without a word; ours ends in a dead letter."""


@dataclass(slots=True)
class Context:
    """What the functions need, carried in arq's ``ctx``.

    Attributes:
        pipeline: handles a claimed job.
        batcher: what the pipeline asks; arq's own jobs are settled by it, too.
        transitions: adopts a job that arq picked.
        lease: seconds for which a job is adopted.
        log: told when Redis goes away.
        stopping: whether the worker is being stopped.
    """

    pipeline: Pipeline
    batcher: Batcher
    transitions: Transitions
    lease: float
    log: FilteringBoundLogger
    stopping: bool = False


async def handle_event(ctx: dict[str, Any], *arguments: Any) -> None:
    """Run one delivery through the pipeline; an arq function.

    Raises:
        arq.Retry: under a stock worker always, once the job is settled or can't be.
        Unavailable: under this project's worker, when Redis stayed away.
    """
    try:
        delivery = job.from_arguments(arguments)
    except job.NewerPayloadError as exc:
        await _run(ctx, exc.delivery, is_newer=True)
    except job.PayloadError:
        await _run(ctx, None)
    else:
        await _run(ctx, delivery)


async def undecodable_job(ctx: dict[str, Any]) -> None:
    """Bury a job whose payload is no record of this version; an arq function.

    Raises: as ``handle_event`` does.
    """
    await _run(ctx, None)


async def _run(
    ctx: dict[str, Any], delivery: job.Delivery | None, *, is_newer: bool = False
) -> None:
    context, name, claim = _unwrap(ctx)
    if claim is not None:
        await context.pipeline.run(claim, delivery, is_newer=is_newer)
        return
    try:
        claim = await context.transitions.adopt(name, lease=context.lease)
        if claim is not None:
            await context.pipeline.run(claim, delivery, is_newer=is_newer)
    except asyncio.CancelledError:
        if context.stopping:
            raise
        # arq's own time-out; the handler's is shorter, so this is a Redis that hung.
    except (Unavailable, TransitionError, *REDIS_ERRORS) as exc:
        code = exc.code if isinstance(exc, Unavailable) else translate(exc).code
        context.log.warning("event_left_to_its_lease", job=name, code=code)
    raise arq.Retry


def _unwrap(ctx: dict[str, Any]) -> tuple[Context, str, Claim | None]:
    return cast("Context", ctx[_CONTEXT]), str(ctx["job_id"]), ctx.get(CLAIM)


OURS: Final[dict[str, Callable[..., Any]]] = {
    job.FUNCTION: handle_event,
    job.UNDECODABLE: undecodable_job,
}


def functions(job_timeout: float) -> list[Function]:
    """The functions that a worker of our queue has to know.

    Args:
        job_timeout: seconds after which arq cancels a job; longer than a handler may take.
    """
    return [
        func(function, name=name, timeout=job_timeout, max_tries=_NO_LIMIT, keep_result=0)
        for name, function in OURS.items()
    ]


def arq_redis(pool: ConnectionPool, names: Names = UNTAGGED) -> ArqRedis:
    """arq's own client: it writes and reads this project's form of payload, for cron too."""
    return ArqRedis(
        pool_or_conn=pool,
        job_serializer=job.serialize,
        job_deserializer=job.deserialize,
        default_queue_name=names.queue,
    )


def worker_options(
    context: Context,
    redis: ArqRedis,
    *,
    concurrency: int,
    job_timeout: float,
    drain: float,
) -> dict[str, Any]:
    """The options of a stock ``arq.Worker`` for our queue.

    Args:
        context: for the functions.
        redis: arq's own connections; the worker closes them.
        concurrency: how many jobs at once.
        job_timeout: as for ``functions``.
        drain: seconds that jobs may finish after a signal.
    """
    return {
        "functions": functions(job_timeout),
        "queue_name": redis.default_queue_name,
        "redis_pool": redis,
        "ctx": {_CONTEXT: context},
        "max_jobs": concurrency,
        "job_timeout": job_timeout,
        "job_completion_wait": drain,
        "job_serializer": job.serialize,
        "job_deserializer": job.deserialize,
        # Nobody reads results here, and each would stay in Redis for an hour.
        "keep_result": 0,
        "max_tries": _NO_LIMIT,
        "poll_delay": 0.1,
        # The program hears them by itself, also while a handler blocks.
        "handle_signals": False,
        "log_results": False,
    }


class Call:
    """A job that runs by arq's functions, in a task; cancelled as `Work` is, at most once.

    Args:
        call: runs it.
        ended: told what it came to.
        slots: of the worker, one of which it has.
    """

    def __init__(
        self, call: Coroutine[Any, Any, None], ended: Callable[[object], None], slots: Slots
    ) -> None:
        self._ended = ended
        self._slots = slots
        self._task = asyncio.get_running_loop().create_task(call)
        self._task.add_done_callback(self._tell)

    def cancel(self, *, in_doubt: bool = False) -> None:
        """Have it given back."""
        del in_doubt  # of arq's jobs nobody keeps such an account
        if not self._task.cancelling():  # a second time would cut the giving back short
            self._task.cancel()

    def done(self) -> bool:
        """Whether it has ended; see `Work.done`."""
        return self._task.done()

    def _tell(self, task: "asyncio.Task[None]") -> None:
        self._slots.leave()
        self._ended(asyncio.CancelledError() if task.cancelled() else task.exception())
