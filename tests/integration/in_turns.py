"""Takes events through their turns by hand: each is called by its job's id."""

import itertools
from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.books import Books
from tests.integration.by_hand import Hand
from tests.integration.jobs import NOTHING, account, delivery, enqueued, mark_of
from worker.pipeline.transitions import Claim, Mark, Settled

KEY = "order_id:5"
LINE = f"org_a:key:{KEY}"
"""The turn of that key."""
OF_X = "org_a:state:x"
"""The turn of the value ``x``."""
OF_Y = "org_a:state:y"


async def ask(
    hand: Hand,
    claim: Claim,
    key: str | None = KEY,
    *,
    event: str = "",
    latest: bool = False,
    quiet: int = 0,
) -> Mark:
    """Learn the event's id, and ask for the turn of its key."""
    handler = "handler" if latest else ""
    return await hand.mark(claim, event or claim.job, key=key, latest=handler, quiet=quiet)


async def commit(
    hand: Hand,
    claim: Claim,
    *,
    event: str = "",
    reads: Sequence[tuple[str, str]] = (),
    writes: Sequence[str] = (),
) -> Settled:
    """Settle it as done."""
    return await hand.done(claim, event or claim.job, reads=reads, writes=writes)


async def handle(hand: Hand, job: str, key: str | None = KEY, *, found: Mark = Mark.OWN) -> None:
    """Claim the only event in line, which has its turn, and commit it."""
    claim = await hand.claim_only(job)
    assert await ask(hand, claim, key) is found
    assert await commit(hand, claim) is Settled.DONE


async def whole(redis: Redis, *, robbed: str = "") -> Books:
    """What Redis holds: one place for each event, true counts, nobody in line for nobody.

    Args:
        redis: a real one.
        robbed: the job that somebody has harmed by hand.
    """
    books = await Books.read(redis)
    books.check({robbed} if robbed else set())
    return books


async def all_handled(redis: Redis, hand: Hand, *events: str, robbed: str = "") -> None:
    """The end of every race: each is done, once, and nothing is left in any turn."""
    await whole(redis, robbed=robbed)
    assert await account(redis) == NOTHING
    for event in events:
        assert (await mark_of(redis, event) or "").startswith("done:"), event
        assert await hand.applied(event) == 1


async def doubt_is_over(redis: Redis, job: str) -> None:
    """Let it be a second ago that the event asked first."""
    entry = msgspec.msgpack.decode(await redis.hget(keys.TURNS, job))
    entry[4] -= 1000
    await redis.hset(keys.TURNS, mapping={job: msgspec.msgpack.encode(entry)})


async def started(hand: Hand, *jobs: str, key: str | None = None) -> list[Claim]:
    """Claim these, which are the next in line, and let their handlers start."""
    claims = await hand.claim(len(jobs))
    assert [each.job for each in claims] == list(jobs)
    for claim in claims:
        assert await ask(hand, claim, key) is Mark.FRESH
    return claims


_numbers = itertools.count()


async def write(hand: Hand, *names: str) -> None:
    """Let values be changed by an event that has read none."""
    (job,) = await enqueued(hand.redis, delivery(b"writer %d" % next(_numbers)))
    (claim,) = await started(hand, job)
    assert await commit(hand, claim, writes=names) is Settled.DONE


async def has_x(hand: Hand, claim: Claim) -> None:
    """Let an event whose handler runs lose a commit over x."""
    reads = await hand.read("x")
    await write(hand, "x")
    assert await commit(hand, claim, reads=reads, writes=["x"]) is Settled.CONFLICT
    await whole(hand.redis)
