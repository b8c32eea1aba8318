"""Facts about living with arq: its stock worker on our queue, its stock producer for ours."""

import asyncio
import pickle
from dataclasses import replace
from typing import Any, cast

import arq
import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import Function, func
from redis.asyncio import Redis

from shared.queue import job as jobs
from shared.queue import keys
from tests.integration.jobs import NOTHING, account, counters, record_of
from tests.integration.workplace import Workplace, body, now
from worker import Event, Handlers, Organization, Reject

EVENTS = 30


@pytest.fixture
def foreign(redis: Redis) -> ArqRedis:
    """A producer that knows arq only."""
    return ArqRedis(
        connection_pool=redis.connection_pool,
        job_serializer=jobs.serialize,
        job_deserializer=jobs.deserialize,
        default_queue_name=keys.QUEUE,
    )


def coroutine(function: Any) -> Function:
    """An arq function under its own name."""
    return func(function, name=function.__name__)


def deciding() -> Handlers:
    """A handler with every kind of end."""
    handlers = Handlers()

    @handlers.on("order.updated")
    async def decide(event: Event[Any], organization: Organization) -> None:
        await organization.state.increment("runs", 1)
        number = int(event.id.removeprefix("evt_"))
        if number % 3 == 1 and event.attempt == 1:
            raise KeyError("not yet")
        if number % 3 == 2:
            raise Reject("never")
        await organization.state.put(f"done/{event.id}", event.attempt)

    return handlers


async def results(redis: Redis) -> dict[str, Any]:
    """What a drained queue has left behind, without what differs from run to run."""
    names = sorted(await redis.keys("sellfern:state:*"))
    marks = sorted(await redis.keys("sellfern:event:*"))
    return {
        "account": await account(redis),
        "state": dict(zip(names, await redis.mget(names), strict=True)),
        "marks": dict(zip(marks, await redis.mget(marks), strict=True)),
        "dead": sorted(await redis.zrange(keys.dead("org_a"), 0, -1)),
        "counters": await counters(redis),
    }


async def drained(worker: arq.Worker, redis: Redis, until: int) -> None:
    """Run a worker until so many events have ended."""
    running = asyncio.create_task(worker.async_run())
    try:
        while True:
            ended = await counters(redis)
            if ended.get("handled", 0) + ended.get("dead", 0) + ended.get("duplicate", 0) >= until:
                break
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        worker.burst = True  # goes when nothing is left
        await asyncio.wait_for(running, 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await worker.close()


def stock_worker(place: Workplace, **options: Any) -> arq.Worker:
    return arq.Worker(**{**place.options(place.context()), **options})


async def test_a_stock_worker_drains_our_queue_with_the_same_results(redis: Redis) -> None:
    signed = [body(f"evt_{number}") for number in range(EVENTS)]
    found = []
    for kind in ("stock", "ours"):
        await redis.flushall()
        place = Workplace(redis, deciding())
        await place.accept(*signed)
        worker = stock_worker(place) if kind == "stock" else place.worker()
        await drained(worker, redis, EVENTS)
        found.append(await results(redis))
        assert await redis.keys("arq:retry:*") == []
        assert await redis.keys("arq:result:*") == []

    stock, ours = found
    assert stock == ours
    assert ours["account"] == NOTHING
    assert ours["counters"]["handled"] == 20
    assert ours["counters"]["retried"] == 10
    assert ours["counters"]["dead:rejected"] == 10
    assert ours["state"][keys.state("org_a", "runs").encode()] == b"20"


async def test_under_a_stock_worker_events_of_a_key_take_turns(redis: Redis) -> None:
    """They wait in their turn and nowhere else, as under ours; arq leaves their keys alone."""
    handlers = Handlers()
    running: set[str] = set()
    handled: dict[str, list[str]] = {"1": [], "2": []}

    @handlers.on("order.updated", key="order_id")
    async def one_at_a_time(event: Event[Any], organization: Organization) -> None:
        order = event.data["order_id"]
        assert order not in running
        running.add(order)
        total = await organization.state.get("total", 0)  # all of them lose commits over it
        await asyncio.sleep(0.005)
        await organization.state.put("total", total + 1)
        running.discard(order)
        if handled[order][-1:] != [event.id]:
            handled[order].append(event.id)

    place = Workplace(redis, handlers)
    events = [(f"evt_{number}", str(number % 2 + 1)) for number in range(10)]
    await place.accept(*(body(event_id, data={"order_id": order}) for event_id, order in events))
    await drained(stock_worker(place, poll_delay=0.01), redis, len(events))
    for order, ids in handled.items():
        assert ids == [event_id for event_id, its_order in events if its_order == order]
    assert await redis.get(keys.state("org_a", "total")) == b"10"
    assert await account(redis) == NOTHING
    assert await redis.keys("arq:retry:*") == []


async def test_a_stock_worker_buries_what_it_cannot_decode(redis: Redis) -> None:
    place = Workplace(redis, deciding())
    (job,) = await place.accept(body())
    await redis.set(keys.payload(job), b"rubbish")
    await drained(stock_worker(place), redis, 1)
    assert (await record_of(redis, job))["reason"] == "undecodable"
    assert await account(redis) == NOTHING


async def test_a_redelivery_while_a_stock_worker_finishes_is_not_lost(redis: Redis) -> None:
    """arq deletes a finished job's keys after its function has returned."""
    place = Workplace(redis, deciding())
    signed = body("evt_0")
    await place.accept(signed)

    async def redeliver(_ctx: dict[Any, Any]) -> None:
        if (await counters(redis))["accepted"] == 1:
            await place.accept(signed)

    await drained(stock_worker(place, on_job_end=redeliver), redis, 2)
    assert await account(redis) == NOTHING
    assert await counters(redis) == {"accepted": 2, "handled": 1, "duplicate": 1}


async def test_a_stock_worker_that_is_cancelled_gives_its_job_back(redis: Redis) -> None:
    handlers, started = Handlers(), asyncio.Event()

    @handlers.on("*")
    async def hangs(_event: Event[Any], _: Organization) -> None:
        started.set()
        await asyncio.Event().wait()

    place = Workplace(redis, handlers)
    (job,) = await place.accept(body())
    context = place.context()
    worker = arq.Worker(**place.options(context))
    running = asyncio.create_task(worker.async_run())
    await started.wait()
    context.stopping = True
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    assert (await account(redis)).queued == {job}
    assert (await account(redis)).running == {}


async def test_arqs_own_time_out_does_not_delete_the_job(redis: Redis) -> None:
    handlers = Handlers()
    attempts = []

    @handlers.on("*")
    async def hangs_once(event: Event[Any], _: Organization) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()

    place = Workplace(redis, handlers)
    await place.accept(body())
    options = place.options(place.context())
    functions = [replace(each, timeout_s=0.05) for each in options["functions"]]
    worker = arq.Worker(**{**options, "functions": functions, "job_timeout": 0.05})
    await drained(worker, redis, 1)
    assert attempts == [1, 1]
    assert await account(redis) == NOTHING


async def test_what_a_stock_producer_enqueues_is_run_by_ours(
    redis: Redis, foreign: ArqRedis
) -> None:
    place = Workplace(redis, deciding())
    worker = place.worker()
    arguments: Any = ("acme", "org_a", round(now().timestamp() * 1000), {}, body("evt_0"))
    job = await foreign.enqueue_job("handle_event", *arguments, _job_id="org_a:made-by-arq")
    assert job is not None
    await drained(worker, redis, 1)
    assert (await counters(redis))["handled"] == 1
    assert await account(redis) == NOTHING


async def test_a_job_whose_id_names_another_organization_than_its_payload_is_buried(
    redis: Redis, foreign: ArqRedis
) -> None:
    """The scripts go by the id: run, it would write into names that are not its organization's."""
    place = Workplace(redis, deciding())
    received = round(now().timestamp() * 1000)
    for name in ("org_b:made-by-arq", "0123456789abcdef"):
        arguments: Any = ("acme", "org_a", received, {}, body("evt_0"))
        await foreign.enqueue_job("handle_event", *arguments, _job_id=name)
    await drained(place.worker(), redis, 2)
    assert await counters(redis) == {"dead": 2, "dead:undecodable": 2}
    record = await record_of(redis, "org_b:made-by-arq")
    assert record["error"].startswith("expected a job id that begins with org_a:")
    assert await redis.keys("sellfern:state:*") == []
    assert await account(redis) == NOTHING


async def test_other_functions_take_arqs_own_path(redis: Redis, foreign: ArqRedis) -> None:
    tries = []

    async def add(ctx: dict[Any, Any], one: int, two: int) -> int:
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            raise arq.Retry(defer=0.01)
        return one + two

    async def fails(_ctx: dict[Any, Any]) -> None:
        raise KeyError("no")

    place = Workplace(redis, deciding())
    options = place.options(place.context())
    functions = [*options["functions"], coroutine(add), coroutine(fails)]
    worker = place.worker(functions=functions, keep_result=60)
    added = await foreign.enqueue_job("add", 1, two=2)
    failed = await foreign.enqueue_job("fails")
    assert added is not None
    assert failed is not None
    worker.burst = True
    await asyncio.wait_for(worker.async_run(), 20)

    assert await added.result(timeout=1) == 3
    with pytest.raises(Exception, match=r"no|serializ"):
        await failed.result(timeout=1)
    assert tries == [1, 2]
    await worker.close()
    assert await account(redis) == NOTHING


async def test_foreign_members_of_the_queue_stop_nobody(redis: Redis, foreign: ArqRedis) -> None:
    place = Workplace(redis, deciding())
    members = (b"no colon", b"\xff\xfe not text", b"org_a:no payload", b"pickled")
    await redis.zadd(keys.QUEUE, dict.fromkeys(members, 1))
    await redis.set(keys.payload("no colon"), b"?")
    await redis.set(keys.JOB.encode() + b"\xff\xfe not text", b"?")
    await redis.set(keys.payload("pickled"), pickle.dumps({"f": "handle_event"}))
    await foreign.enqueue_job("nobody_knows_this", _job_id="org_a:unknown")
    await place.accept(body("evt_0"))

    worker = place.worker()
    worker.burst = True
    await asyncio.wait_for(worker.async_run(), 20)
    await worker.close()
    assert await account(redis) == NOTHING
    ended = await counters(redis)
    assert ended["handled"] == 1
    assert ended["dropped"] == 1
    assert ended["dead:undecodable"] == 4


async def test_cron_jobs_and_hooks_are_arqs(redis: Redis) -> None:
    done: list[str] = []
    ran = asyncio.Event()

    async def tick(_ctx: dict[Any, Any]) -> None:
        done.append("tick")
        ran.set()

    async def hook(name: str) -> None:
        done.append(name)

    place = Workplace(redis, deciding())
    worker = place.worker(
        cron_jobs=[arq.cron(cast("Any", tick), run_at_startup=True)],
        on_startup=lambda _: hook("startup"),
        on_shutdown=lambda _: hook("shutdown"),
        on_job_start=lambda _: hook("start"),
        on_job_end=lambda _: hook("end"),
        after_job_end=lambda _: hook("after"),
    )
    await place.accept(body("evt_0"))
    running = asyncio.create_task(worker.async_run())
    await asyncio.wait_for(ran.wait(), 20)
    worker.burst = True
    async with asyncio.timeout(20):
        while worker.tasks:
            await asyncio.sleep(0.002)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.close()
    assert done[0] == "startup"
    assert done[-1] == "shutdown"
    assert done.count("start") == done.count("end") == done.count("after") >= 1


async def test_a_job_of_ours_can_be_looked_up_with_arqs_job(
    redis: Redis, foreign: ArqRedis
) -> None:
    place = Workplace(redis, deciding())
    (name,) = await place.accept(body("evt_0"))
    job = Job(name, foreign, _queue_name=keys.QUEUE, _deserializer=jobs.deserialize)
    info = await job.info()
    assert info is not None
    assert info.function == "handle_event"
    assert (await job.status()).value == "queued"
