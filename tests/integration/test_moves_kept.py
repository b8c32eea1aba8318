"""Facts about a move that doesn't go as it should: servers forget, movers meet, much comes in."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
from redis.asyncio import Redis

from shared.queue.partition import Partition
from shared.redis import durability
from shared.redis.wire import Argument, Script
from tests.conftest import StartRedis
from tests.integration.moves import ORG, SHORT, Shop, move, traces
from tests.integration.several import over
from tests.integration.workplace import Lines
from worker.operate import belongings, moving, upkeep
from worker.operate.belongings import Belongings
from worker.operate.moving import Move, Patience
from worker.operate.ways import MoveError


@pytest.mark.parametrize(("where", "behind"), [("here", 1), ("there", 1), ("there", 2)])
async def test_what_a_server_loses_at_its_end_is_where_it_was_before(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch, where: str, behind: int
) -> None:
    """All is lost that a mover has told it behind one of the moments for which it has waited."""
    monkeypatch.setattr(moving, "_KEPT_WITHIN", 0.1)
    servers = [fresh_redis_server(appendfsync=None) for _ in range(2)]
    lost = servers[where == "there"]
    replica = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", lost.port))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Redis(port=each.port)) for each in servers]
        successor = await stack.enter_async_context(Redis(port=replica.port))
        asked, waited = clients[where == "there"], 0

        async def is_kept(redis: Redis, *options: Any) -> bool:
            nonlocal waited
            if redis is asked and waited == behind:
                return False
            kept = await durability.is_kept(redis, *options)
            if kept and redis is asked:
                waited += 1
                if waited == behind:
                    await successor.replicaof("NO", "ONE")
            return kept

        monkeypatch.setattr(moving, "is_kept", is_kept)
        shop = Shop(over(*clients))
        for _ in range(3):
            await shop.deliver("done")
        await shop.deliver("bad", bad=True)
        await shop.work_off(0)
        await shop.deliver("done")
        async with asyncio.timeout(20):
            while not await asked.wait(1, 1000):
                pass
        with pytest.raises(MoveError, match="run the same command again"):
            await move(shop.partitions, 1, patience=Patience(lock=0.03, all_in_all=0.3))
        lost.kill()
        clients[where == "there"] = successor
        again = Shop(over(*clients), sent=shop.sent)
        await move(again.partitions, 1, patience=SHORT)
        await again.deliver("done")
        await asyncio.gather(again.work_off(0), again.work_off(1))
        assert await again.state(again.partitions.all[0]) == {}
        assert await again.state(again.partitions.all[1]) == {"done": b"5"}
        there = again.partitions.all[1]
        assert await there.redis.zcard(there.names.dead(ORG)) == 1


@pytest.mark.parametrize(
    ("since", "until"), [("halt", "open"), ("arrive", "arrive"), ("arrive", "join")]
)
async def test_what_a_target_loses_that_nobody_sees_fail_keeps_it_where_it_was(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch, since: str, until: str
) -> None:
    """Its client goes on with a replica that has had nothing since the first of some script."""
    source, target = (fresh_redis_server(appendfsync=None) for _ in range(2))
    replica = fresh_redis_server(appendfsync=None, replicaof=("127.0.0.1", target.port))
    run, called = Partition.run, list[str]()
    async with (
        Redis(port=source.port) as here,
        Redis(port=target.port) as there,
        Redis(port=replica.port) as successor,
        aclosing(there.connection_pool),
    ):
        shop = Shop(over(here, there))
        for _ in range(3):
            await shop.deliver("done")
        await shop.work_off(0)
        await shop.deliver("done")
        await shop.deliver("bad", bad=True)
        marks = await here.keys(shop.partitions.all[0].names.event(ORG, "*"))

        async def fails_over(partition: Partition, script: Script, *arguments: Argument) -> Any:
            if script.name == until and since in called:
                there.connection_pool = successor.connection_pool
            if script.name == since and since not in called:
                async with asyncio.timeout(20):
                    while not await there.wait(1, 1000):
                        await there.incr("written")
                await successor.replicaof("NO", "ONE")
            called.append(script.name)
            return await run(partition, script, *arguments)

        monkeypatch.setattr(Partition, "run", fails_over)
        monkeypatch.setattr(belongings, "_RECORDS_AT_ONCE", 1)
        with pytest.raises(MoveError, match=r"partition 1 has had .*: run the same"):
            await move(shop.partitions, 1, patience=SHORT)
        assert await here.zcard(shop.partitions.all[0].names.accepted) == 2
        monkeypatch.setattr(Partition, "run", run)
        again = Shop(over(here, there))
        await move(again.partitions, 1, patience=SHORT)
        await again.work_off(1)
        assert await again.state(shop.partitions.all[1]) == {"done": b"4"}
        assert len(await there.keys(shop.partitions.all[1].names.event(ORG, "*"))) == len(marks) + 2
        assert await traces(shop.partitions.all[0]) == {}


async def test_virtual_times_begin_anew_beside_a_lock_of_a_mover_that_is_gone(redis: Redis) -> None:
    here = over(redis).all[0]
    lines = Lines()
    await redis.hset(here.names.flows, "*", f"{2e11:.17g}")
    await redis.hset(here.names.moving, mapping={f"lock:{ORG}": "abcd:1", "org_9": "in:1:0"})
    await upkeep.renumber(here, log=lines.log)
    assert lines.events() == []
    await redis.hdel(here.names.moving, "org_9")
    await upkeep.renumber(here, log=lines.log)
    assert lines.events() == ["virtual_times_renumbered"]


async def test_who_waits_for_another_mover_finds_it_moved(redis: Redis) -> None:
    partitions = over(redis)
    here, there = partitions.all[:2]
    await redis.hset(here.names.organizations, f"pause:{ORG}", "by hand")
    await redis.hset(here.names.bytes, f"{ORG}:state", "40")
    lock = Patience(lock=1)
    one, other = await asyncio.gather(*(move(partitions, 1, patience=lock) for _ in range(2)))
    assert sorted([(one.source, one.target), (other.source, other.target)]) == [(0, 1), (1, 1)]
    assert await redis.hget(there.names.organizations, f"pause:{ORG}") == b"by hand"
    assert await redis.hget(there.names.bytes, f"{ORG}:state") == b"40"
    # And of several ways each is gone, one after the other.
    await asyncio.gather(*(move(partitions, to, patience=lock) for to in (2, 2)))
    assert (await partitions.living(ORG)).number == 2
    assert not await redis.exists(*(each.names.moving for each in partitions))


async def test_a_mover_that_comes_to_late_brings_nothing_back(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets the organization go on at the moment in which another one takes its move over."""
    shop = Shop(over(redis))
    here, there = shop.partitions.all[:2]
    await shop.deliver("a")
    await shop.work_off(0)
    ghost = Move(shop.partitions, ORG, there, SHORT)
    run = Partition.run

    async def stands_still(partition: Partition, script: Script, *arguments: Argument) -> Any:
        if script.name == "join":
            raise asyncio.CancelledError
        return await run(partition, script, *arguments)

    monkeypatch.setattr(Partition, "run", stands_still)
    with pytest.raises(asyncio.CancelledError):
        await ghost.run()
    said = await ghost._here.said()

    async def comes_to(partition: Partition, script: Script, *arguments: Argument) -> Any:
        if script.name == "open" and await redis.hexists(there.names.moving, ORG):
            assert (
                await run(there, moving._JOIN, ORG, ghost._token, ghost._told, *said) == b"joined"
            )
            await shop.deliver("a")
            await shop.work_off(1)
        return await run(partition, script, *arguments)

    monkeypatch.setattr(Partition, "run", comes_to)
    await move(shop.partitions, 1, patience=SHORT)
    assert await shop.state(there) == {"a": b"2"}
    assert await shop.state(here) == {}
    await shop.deliver("a")
    await shop.work_off(1)
    assert await shop.state(there) == {"a": b"3"}


async def test_who_waits_for_a_mover_that_is_gone_goes_on(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was gone between `open` and `depart`; and once it has come to, it changes nothing."""
    shop, lines = Shop(over(redis)), Lines()
    here, there = shop.partitions.all[:2]
    lock = f"lock:{ORG}"
    for _ in range(2):
        await shop.deliver("a")
    ghost = Move(shop.partitions, ORG, there, Patience(lock=600))
    run = Partition.run

    async def stands_still(partition: Partition, script: Script, *arguments: Argument) -> Any:
        if script.name == "depart" or "leave" in arguments:
            raise asyncio.CancelledError
        return await run(partition, script, *arguments)

    monkeypatch.setattr(Partition, "run", stands_still)
    with pytest.raises(asyncio.CancelledError):
        await ghost.run()
    monkeypatch.setattr(Partition, "run", run)
    await upkeep.undo_moves(here, shop.partitions, log=lines.log)
    assert (await shop.places[0].claim(), lines.events()) == ([], [])
    token = (await redis.hget(here.names.moving, lock)).split(b":")[0]
    await redis.hset(here.names.moving, lock, token + b":1")
    await upkeep.undo_moves(here, shop.partitions, log=lines.log)
    (line,) = lines.of("move_undone")
    assert (line["organization"], line["target"]) == (ORG, 1)
    with pytest.raises(MoveError, match="taken org_0 over"):
        await ghost._depart()
    await shop.work_off(0)
    await redis.hset(here.names.flows, "*", "1000")  # others go on as well
    for _ in range(2):
        await shop.deliver("a")
    (first,) = await shop.places[0].claim()
    # Who goes on waits for that one, as at the beginning.
    moving = asyncio.create_task(move(shop.partitions, 1, patience=Patience(drain=60)))
    async with asyncio.timeout(60):
        while not await redis.hexists(here.names.organizations, f"hold:{ORG}"):
            await asyncio.sleep(0.01)
        await shop.places[0].run(*first)
        await moving
    ((_, virtual),) = await redis.zrange(there.names.queue, 0, -1, withscores=True)
    assert virtual < 100  # it comes before whatever is accepted there from now on
    await shop.work_off(1)
    assert await shop.state(there) == {"a": b"4"}
    assert await traces(here) == {}
    # Who has departed waits for the next mover.
    await redis.hset(here.names.moving, mapping={ORG: "out:1:0:9", lock: "abcd:1"})
    await upkeep.undo_moves(here, shop.partitions, log=lines.log)
    assert await redis.hget(here.names.moving, ORG) == b"out:1:0:9"


@pytest.mark.parametrize("comes_meanwhile", [False, True])
async def test_who_waits_for_a_mover_that_failed_on_the_way_home_goes_on_and_is_found(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, *, comes_meanwhile: bool
) -> None:
    """It gave the move back; and home takes deliveries for as long as it expects it."""
    shop, lines = Shop(over(redis)), Lines()
    home, here = shop.partitions.all[:2]
    await move(shop.partitions, 1)
    await shop.deliver("a")
    run = Partition.run

    async def fails(partition: Partition, script: Script, *arguments: Argument) -> Any:
        if script.name == "depart":
            raise MoveError("workers hold some")
        return await run(partition, script, *arguments)

    monkeypatch.setattr(Partition, "run", fails)
    with pytest.raises(MoveError, match="workers hold some"):
        await move(shop.partitions, 0)
    monkeypatch.setattr(Partition, "run", run)
    assert await shop.places[1].claim() == []
    shop.writer.learn(0, {})  # as an ingress is told that has begun, or asks home anew
    if comes_meanwhile:
        await shop.deliver("b")
    await upkeep.undo_moves(here, shop.partitions, log=lines.log)
    (line,) = lines.of("move_undone")
    assert (line["target"], line["waits_there"]) == (0, comes_meanwhile)
    if comes_meanwhile:  # what is there waits for the next mover
        assert (await shop.places[0].claim(), await redis.zcard(home.names.accepted)) == ([], 1)
        await move(shop.partitions, 0)
    else:
        assert await redis.hlen(home.names.moving) == 0
        await shop.deliver("b")
        assert await redis.zcard(home.names.accepted) == 0
    await asyncio.gather(*(shop.work_off(number) for number in (0, 1)))
    assert await shop.state(shop.partitions.all[not comes_meanwhile]) == {"a": b"1", "b": b"1"}


async def test_nothing_is_taken_away_where_its_arrival_is_lost(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(over(redis))
    here, there = shop.partitions.all[:2]
    await shop.deliver("a")
    run = Partition.run

    async def fails_over(partition: Partition, script: Script, *arguments: Argument) -> Any:
        said = await redis.hgetall(there.names.moving)
        answer = await run(partition, script, *arguments)
        if script.name == "join":
            await redis.hset(there.names.moving, mapping=said)
        return answer

    monkeypatch.setattr(Partition, "run", fails_over)
    before = await redis.zrange(here.names.accepted, 0, -1)
    with pytest.raises(MoveError, match="is lost: run the same command again"):
        await move(shop.partitions, 1, patience=SHORT)
    assert await redis.zrange(here.names.accepted, 0, -1) == before != []
    monkeypatch.setattr(Partition, "run", run)
    await move(shop.partitions, 1, patience=SHORT)
    await shop.work_off(1)
    assert await shop.state(there) == {"a": b"1"}
    assert await traces(here) == {}


async def test_it_departs_however_much_comes_in_at_a_time(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(over(redis))
    run = Partition.run
    tries = 0

    async def far_away(partition: Partition, script: Script, *arguments: Argument) -> Any:
        nonlocal tries
        if script.name == "depart":
            tries += 1
            assert tries < 10
            await asyncio.gather(*(shop.deliver(f"{tries}_{each}") for each in range(150)))
        return await run(partition, script, *arguments)

    monkeypatch.setattr(Partition, "run", far_away)
    await move(shop.partitions, 1)
    assert tries > 1
    monkeypatch.setattr(Partition, "run", run)
    await shop.work_off(1)
    assert await shop.state(shop.partitions.all[1]) == dict.fromkeys(shop.sent, b"1")


async def test_who_keeps_a_slot_is_counted_once_though_places_change_meanwhile(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = over(redis).all[0]
    belongings = Belongings(here, ORG)
    job = f"{here.names.job_prefix}{ORG}:{1:032x}"
    await redis.hset(here.names.claims, job, f"{'a' * 40}:1:0:1:")
    await redis.zadd(here.names.queue, {f"x{each}": 2e12 + each for each in range(999)})
    await redis.zadd(here.names.queue, {job: 3e12})
    ask = Belongings.ask

    async def changing(its: Belongings, *command: Argument) -> Any:
        answer = await ask(its, *command)
        await redis.zadd(here.names.queue, {f"new{len(command)}": 1.5e12})
        return answer

    monkeypatch.setattr(Belongings, "ask", changing)
    assert await belongings.kept() == [job.encode()]


async def test_what_a_backup_brings_back_of_one_that_has_moved_is_cleared_away(
    redis: Redis,
) -> None:
    """As `deploy/recovery.md` has it."""
    shop = Shop(over(redis))
    here, there = shop.partitions.all[:2]
    await shop.deliver("a")
    await shop.work_off(0)
    await shop.deliver("a")
    names = await redis.keys(f"*{here.names.job_prefix}*")
    backup = {name: await redis.dump(name) for name in names}
    await move(shop.partitions, 1)
    await shop.work_off(1)
    for name, raw in backup.items():
        await redis.restore(name, 0, raw, replace=True)
    await redis.delete(here.names.moved)
    await redis.hset(here.names.moved, ORG, "1")
    await redis.hset(here.names.moving, ORG, "out:1:0:9e15")
    progress = await move(shop.partitions, 1)
    assert progress.source == progress.target == 1
    assert await traces(here) == {}
    assert await shop.state(there) == {"a": b"2"}
