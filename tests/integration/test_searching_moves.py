"""Facts about finding an event while its organization moves, or its mover has died on the way."""

from contextlib import suppress
from itertools import count

from redis.asyncio import Redis

from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from tests.integration.console.site import Site, browsing
from tests.integration.moves import ORG, SHORT, Died, Life, Mortal, Shop, move
from tests.integration.several import over
from worker.operate import lookup
from worker.operate.searching import search_everywhere


async def test_an_event_is_found_once_after_whichever_call_its_mover_died(redis: Redis) -> None:
    """By its id, with and without its organization, and by its job."""
    life = Life()
    shop, mortal = Shop(over(redis)), over(Mortal(redis, life))
    await shop.deliver("done")
    await shop.deliver("bad", bad=True)
    await shop.work_off(0)
    await shop.deliver("wait")
    async with browsing(redis, shop.partitions, interval=60) as site:
        assert await calls_of_a_move(shop, mortal, life, site) > 20


async def calls_of_a_move(shop: Shop, mortal: Partitions, life: Life, site: Site) -> int:
    """Let movers die after some calls more each time, and look for all that there is; the last."""
    to, is_over = 0, False
    for most in count(0, 4):
        to, name = (to + 1) % 4, {}
        for event in ("bad_1", "wait_1"):
            (known,) = (await search_everywhere(Reach(shop.partitions), event)).found
            name[event] = known.job
        life.begin(most)
        with suppress(Died):
            await move(mortal, to, patience=SHORT)
            is_over = True
        for event, states in (
            ("done_1", {"finished", "handled"}),
            ("bad_1", {"dead"}),
            ("wait_1", {"ready", "parked"}),
        ):
            for text in (event, name.get(event, event)):
                for whose in (None, ORG):
                    search = await search_everywhere(Reach(shop.partitions), text, whose)
                    assert [each.state in states for each in search.found] == [True], (most, text)
            if event in name:
                shown = await lookup.find_anywhere(Reach(shop.partitions), name[event])
                assert shown is not None
                assert shown.state in states, (most, event)
        assert "Nothing of it waits" not in (await site.get(f"/organizations/{ORG}")).text
        if is_over:
            return most
        life.begin()
        await move(mortal, to, patience=SHORT)
    raise AssertionError
