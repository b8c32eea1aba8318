"""Facts about two partitions on one Redis: neither ever touches what is the other's."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot

from shared.queue import gauges, held_bytes
from shared.queue.keys import Names
from shared.queue.partition import TAGS, Partition
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from tests.integration.jobs import organization_of
from tests.integration.workplace import Workplace, body
from worker import Event, Failure, Handlers, Organization, Reject
from worker.engine import burst
from worker.operate import dead_letters, lookup, organizations, revival, upkeep
from worker.operate.asking import has_footprint
from worker.operate.console import paging
from worker.operate.dead_letters import Selection
from worker.operate.dead_lists import Filter, number_of
from worker.operate.overview import read_overview
from worker.pipeline.transitions import Settled

FIRST, SECOND = map(Names, TAGS[:2])
NAME = re.compile(r"(?<!\S)(?:sellfern|arq):\S*")
"""One of ours or of arq's, as an argument that MONITOR shows."""


def handlers() -> Handlers:
    """One for what is done, in turns and with a value; and one for what is buried."""
    found = Handlers()

    @found.on("order.updated", key="order_id")
    async def save(event: Event[dict[str, str]], organization: Organization) -> None:
        await organization.state.get("orders/1")
        await organization.state.put("orders/1", event.id)

    @found.on("order.deleted")
    async def refuse(event: Event[dict[str, str]], _: Organization) -> Reject:
        return Reject(event.id)

    return found


async def use(redis: Redis, names: Names) -> None:
    """Do whatever is done in a partition."""
    place = Workplace(redis, handlers(), names=names)
    done, dead = body("evt_1"), body("evt_2", type="order.deleted")
    assert await place.handle(done) is Settled.DONE
    assert await place.handle(done) is Settled.DUPLICATE
    assert await place.handle(dead) is Settled.DEAD
    await replay(place)
    await look(place.partition)
    await hold_up(place.partition)
    await clean_up(place)
    await work(place)


async def replay(place: Workplace) -> None:
    """Replay all dead letters, of which there is one, and which dies again."""
    letters = Selection().letters(Reach(Partitions((place.partition,))))
    assert (
        await revival.Replay(Reach(Partitions((place.partition,))), 1000).run(letters)
    ).queued == 1
    assert await place.handle_next() is Settled.DEAD


async def look(partition: Partition) -> None:
    """See what an operator sees."""
    done = await lookup.find_by_mark(partition, "org_a", "evt_1")
    assert done is not None
    assert (done.state, organization_of(done.job)) == ("finished", "org_a")
    (dead,) = await lookup.search(partition, "evt_2", await lookup.organizations_of(partition))
    (letter,) = (await paging.read_page(Reach(Partitions((partition,))), Filter(), None)).letters
    assert dead.state == "dead"
    assert dead.job == letter.job
    assert dead.job.startswith(partition.names.job_prefix)
    assert dead.mark is not None
    assert dead.mark.job == dead.job
    assert await lookup.oldest(Reach(Partitions((partition,)))) == []
    assert await number_of(Reach(Partitions((partition,))), Filter()) == 1
    assert (await gauges.read(partition)).depths.waiting == 0
    assert (await held_bytes.read_shares(partition, 5)).dead == 1
    values = [each["key"] async for each in organizations.stored_values(partition, "org_a")]
    assert values == ["orders/1"]
    assert await has_footprint(partition, "org_a")
    assert not await has_footprint(partition, "org_b")
    assert await revival.discard(partition, dead.job, retention=60) == "discarded"
    assert await dead_letters.find(partition, dead.job) is None


async def hold_up(partition: Partition) -> None:
    assert await organizations.pause(partition, "org_a", "a test")
    (overview,) = (await read_overview(partition)).organizations
    assert (overview.organization, overview.paused) == ("org_a", "a test")
    assert await organizations.resume(partition, "org_a")


def tasks(place: Workplace) -> list[Callable[[], Awaitable[None]]]:
    """What is done by the clock."""
    partition, log = place.partition, place.lines.log
    return [
        partial(upkeep.expire, partition, retention=60, log=log),
        partial(upkeep.forget, partition),
        partial(upkeep.undo_moves, partition, Partitions((partition,)), log=log),
        partial(upkeep.renumber, partition, log=log),
        partial(upkeep.unlist, partition, lambda: upkeep.Listed({"org_b"}, ""), log=log),
        partial(upkeep.restore, partition, lease=30, log=log),
        partial(upkeep.recount, partition, retention=60),
    ]


async def clean_up(place: Workplace) -> None:
    """Do it, by hand; a count anew comes to what there is."""
    held = (await read_overview(place.partition)).organizations[0].held
    assert held["state"] > 0
    assert held["marks"] > 0
    for task in tasks(place):
        await task()
    assert (await read_overview(place.partition)).organizations[0].held == held


async def work(place: Workplace) -> None:
    """Run a worker that handles one event, and does once what is to be done by the clock."""
    cron = upkeep.cron_job(*tasks(place), job_prefix=place.partition.names.job_prefix)
    cron.run_at_startup = True
    await place.accept(body("evt_3"))
    worker = place.worker(cron_jobs=[cron], burst=True)
    await asyncio.wait_for(worker.async_run(), 20)
    await burst.tell(Partitions((place.partition,)), place.lines.log)
    await worker.close()
    mark = await lookup.find_by_mark(place.partition, "org_a", "evt_3")
    assert mark is not None
    assert mark.state == "finished"


async def touched(redis: Redis, step: Awaitable[None]) -> set[str]:
    """Every name that Redis is asked for meanwhile, by commands and in scripts."""
    names = set[str]()
    async with redis.monitor() as monitor:
        await step
        await redis.echo("that was all")
        async for told in monitor.listen():
            names.update(NAME.findall(told["command"]))
            if "that was all" in told["command"]:
                return names
    raise AssertionError


async def all_of(redis: Redis, names: Names) -> dict[bytes, bytes]:
    """What there is of a partition."""
    found = [name async for name in redis.scan_iter() if slot(name) == slot(names.queue.encode())]
    return {name: await redis.dump(name) for name in found}


def slot(name: bytes) -> int:
    return key_slot(name)


async def test_whatever_is_done_in_a_partition_touches_its_own_names_alone(redis: Redis) -> None:
    names = await touched(redis, use(redis, FIRST))
    assert len(names) > 40
    assert {name for name in names if slot(name.encode()) != slot(FIRST.queue.encode())} == set()


async def test_the_same_events_in_two_partitions_are_two_of_each(redis: Redis) -> None:
    await use(redis, FIRST)
    await Workplace(redis, names=FIRST).accept(body("evt_4"))
    before = await all_of(redis, FIRST)
    await use(redis, SECOND)
    assert (await read_overview(Partition.at(1, redis))).waiting == 0
    assert await all_of(redis, FIRST) == before
    there = {slot(name) async for name in redis.scan_iter()}
    assert there == {slot(FIRST.queue.encode()), slot(SECOND.queue.encode())}


async def test_a_hook_is_told_whose_an_unreadable_event_was(redis: Redis) -> None:
    """By its job's id, since there is nothing else to go by."""
    told, handlers = list[str](), Handlers()

    @handlers.on_dead
    async def note(failure: Failure) -> None:
        told.append(failure.organization_id)

    @handlers.on("*")
    async def never(_event: Event[Any], _organization: Organization) -> None:
        raise AssertionError

    place = Workplace(redis, handlers, names=Names("021"))
    (job,) = await place.accept(body("evt_1"))
    await redis.set(place.partition.names.payload(job), b"no record")
    await place.handle_next()
    await place.pipeline.hooks.drain(5)
    assert told == ["org_a"]
