"""While a slot goes to another node, each script is refused as a whole, and goes on afterwards."""

import random
from hashlib import sha1
from importlib.resources import files

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_cluster import EmbeddedCluster
from shared.queue import scripts
from shared.queue.keys import Names
from shared.queue.partition import Partition
from shared.redis.connection import REDIS_ERRORS, connection_pool, slot_of, slots_of, translate
from shared.redis.wire import Script
from shared.settings.redis_url import RedisUrl
from tests.integration.resharding import resharding
from tests.integration.stepping import StepRunner, take_random_steps
from tests.integration.test_cluster import SLOT, TAG, first_of, until_it_works
from tests.integration.test_transition_properties import Machine
from tests.integration.test_turn_properties import TurnMachine
from tests.integration.workplace import Workplace, body
from worker.pipeline.transitions import Transitions

NAMES = Names(TAG)
ALL = sorted(
    each.name.removesuffix(".lua")
    for each in files(scripts).iterdir()
    if each.name.endswith(".lua")
)
MOVING = "redis_partition_moving"


async def code_of(redis: Redis, script: Script, *arguments: str | int) -> str:
    """The code with which a script is refused; none where it isn't."""
    try:
        await script(redis, *arguments)
    except REDIS_ERRORS as exc:
        return translate(exc).code
    return ""


@pytest.mark.usefixtures("in_a_partition")
@pytest.mark.parametrize("machine", [Machine, TurnMachine])
def test_whatever_there_is_each_script_is_refused_and_changes_nothing(
    machine: type[Machine], redis_cluster: EmbeddedCluster
) -> None:
    """And all of it comes to its end where it has gone."""
    chance = random.Random(0)  # nothing is protected by it
    url = RedisUrl(redis_cluster.url)
    looked_at: list[int] = []

    async def move(redis: Redis) -> None:
        move = resharding(redis_cluster, SLOT)
        async with move.begun():
            there = await move.keys()
            await move.take(*chance.sample(there, chance.randint(0, len(there))))
            before = await move.held()
            for name in ALL:
                assert await code_of(redis, scripts.load(name, NAMES), 1) == MOVING, name
            assert await move.held() == before
            looked_at.append(sum(map(len, before.values())))
        await until_it_works(redis)
        await redis.delete(f"{{{TAG}}}")

    with StepRunner() as runner:
        slot = slot_of(slots_of(url), TAG)
        pool = connection_pool(url, connections=30, slot=slot)
        redis = Redis(connection_pool=pool)
        transitions = Transitions(Partition.only(redis), has_turns=machine.has_turns)

        class There(machine):  # type: ignore[valid-type]  # a class that is given
            def __init__(self) -> None:
                super().__init__(runner, redis, transitions)

            def teardown(self) -> None:
                self.run(move(redis))
                super().teardown()

        try:
            take_random_steps(There, steps=25, examples=4, random=False, shrink=False)
        finally:
            runner.run(pool.aclose())
    assert max(looked_at) > 8


async def test_without_its_first_look_a_script_would_be_done_by_half(
    redis_cluster: EmbeddedCluster,
) -> None:
    guarded = scripts.load("leave", NAMES)
    guard = f"redis.call('EXISTS', '{NAMES.queue}:never')\n"
    assert guarded.text.count(guard) == 1
    text = guarded.text.replace(guard, "")
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
    bare = Script("leave", text, digest, guarded.keys)
    async with first_of(redis_cluster.url, connections=8) as redis:
        place = Workplace(redis, names=NAMES)
        await place.accept(body())
        await place.transitions.renew("w1", [], description=b"{}", slots=1, lease=30)
        move = resharding(redis_cluster, SLOT)
        async with move.begun():
            before = await move.held()
            for script, is_whole in ((guarded, True), (bare, False)):
                assert await code_of(redis, script, "w1") == MOVING
                assert (await move.held() == before) is is_whole
