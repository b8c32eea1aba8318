"""Facts about what is told of replayed dead letters: handled, dead again, waiting, or gone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys, told
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from tests.conftest import StartRedis
from tests.integration.console.letters import bury
from tests.integration.console.site import browsing
from tests.integration.console.test_dead_letters import CONFIRM, ended
from tests.integration.jobs import reach
from tests.integration.moves import Shop, move
from tests.integration.several import over
from tests.integration.test_revival import Ward
from tests.integration.workplace import Workplace, body, place_with
from worker import Event, Handlers, Organization
from worker.cli import main
from worker.operate import fates, organizations, revival
from worker.operate.dead_letters import DeadLetter, select
from worker.operate.dead_lists import Filter
from worker.operate.fates import Fate
from worker.operate.revival import Batch, Progress, Replay
from worker.operate.runs import Run, read_all

LONG = 20.0
"""Seconds that nobody waits for where all goes well."""


@pytest.fixture
def ward(redis: Redis) -> Ward:
    return Ward(redis)


async def replay(server: EmbeddedRedis, *words: str, answers: str = "") -> Result:
    """Type the command while a worker of this loop works."""
    return await type_in(server, "replay", *words, answers=answers)


async def type_in(server: EmbeddedRedis, *words: str, answers: str = "") -> Result:
    """Type a command for dead letters."""
    env = {"REDIS_URL": server.url}
    command = ("dead-letters", *words)
    return await asyncio.to_thread(CliRunner().invoke, main, command, env=env, input=answers)


async def test_what_died_again_is_said_with_its_reason_and_by_the_exit_code(
    ward: Ward, redis_server: EmbeddedRedis
) -> None:
    await ward.bury(5)
    ward.rejects = lambda event_id: event_id[-1] in "024"
    async with ward.working():
        done = await replay(redis_server, "--all", "--yes", "--wait", str(LONG))
        assert done.stdout.endswith(
            "\n5 replayed: 2 handled, 3 dead again of the same cause (rejected: as told)\n"
        ), done.output
        assert done.stderr.endswith("error: 3 died again (see: dead-letters list)\n")
        assert done.exit_code == 1
        ward.rejects = lambda _: False
        done = await replay(redis_server, "--all", "--yes", "--wait", str(LONG))
    assert done.stdout.endswith("\n3 replayed: 3 handled\n")
    assert done.exit_code == 0


async def test_a_sample_is_of_the_oldest_over_all_organizations(
    ward: Ward, redis_server: EmbeddedRedis
) -> None:
    await ward.bury(3, "org_b")
    await ward.bury(3, "org_a")
    jobs = [letter.job async for letter in ward.dead()]
    # Of those that a replay takes: the oldest of all is none.
    await ward.redis.hset(keys.dead_letter(jobs[3]), "reason", "unprovable")
    sample = ("--all", "--limit", "3")
    done = await replay(redis_server, *sample, "--wait", "0", answers="y\n")
    assert "\nreplay 3 of 6? [y/N]: y\n3 replayed\n" in done.stdout
    waiting = {job.decode() for job in await ward.redis.zrange(keys.ACCEPTED, 0, -1)}
    assert waiting == {jobs[4], jobs[5], jobs[0]}
    again = await replay(redis_server, *sample, "--dry-run")
    assert again.stdout.endswith("would replay 3 of 6\n")


async def test_what_waits_still_is_no_failure_and_said(
    ward: Ward, redis_server: EmbeddedRedis
) -> None:
    await ward.bury(2)
    await organizations.pause(Partition.only(ward.redis), "org_a", "a test")
    done = await replay(redis_server, "--all", "--yes", "--wait", "0.2")
    assert done.stdout.endswith("\n2 replayed: 2 waiting still\n")
    assert done.stderr.endswith("what waits still: events show ID, status\n")
    assert done.exit_code == 0


@pytest.mark.parametrize("verb", ["replay", "discard"])
async def test_where_redis_goes_away_it_is_said_how_far_it_has_come(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(revival, "_AT_ONCE", 1)
    server = fresh_redis_server()
    async with Redis.from_url(server.url) as redis:
        await bury(redis, "org_a", 300)
    send, sent = Batch.send, count(1)

    async def send_some(*words: Any) -> None:
        await send(*words)
        if next(sent) == 7:
            server.kill()

    monkeypatch.setattr(Batch, "send", send_some)
    rate = ("--rate", "10000") if verb == "replay" else ()
    done = await type_in(server, verb, "--all", "--yes", *rate)
    error, told = done.stderr.splitlines()[-2:]
    assert error.startswith("error: REDIS_URL: expected a Redis that answers, got redis_unreach")
    so_far = f"7 {verb}ed so far; nothing is lost, the same command goes on with the rest"
    assert told == so_far
    assert done.exit_code == 2


async def test_what_became_of_those_that_waited_already_is_told_alike(
    ward: Ward, redis_server: EmbeddedRedis
) -> None:
    await ward.bury(2)
    first = await replay(redis_server, "--all", "--yes", "--wait", "0")
    assert first.stdout.endswith("\n2 replayed\n")
    ward.rejects = lambda event_id: event_id.endswith("1")
    again = asyncio.create_task(replay(redis_server, "--all", "--yes", "--wait", str(LONG)))
    await told_of_a_run(ward.redis, "0 replayed, 2 waiting already")
    async with ward.working():
        done = await again
    assert done.stdout.endswith(
        "\n0 replayed, 2 waiting already: 1 handled, 1 dead again of the same cause "
        "(rejected: as told)\n"
    )
    assert done.exit_code == 1


async def told_of_a_run(redis: Redis, outcome: str) -> None:
    """Wait until what is kept of one says so."""
    async with asyncio.timeout(60):
        while not any(run.outcome.startswith(outcome) for run in await read_all(reach(redis))):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("progress", "level", "outcome"),
    [
        (Progress(queued=2, handled=2), "good", "2 replayed: 2 handled"),
        (Progress(known=2, handled=2), "good", "0 replayed, 2 waiting already: 2 handled"),
        (Progress(), "info", "0 replayed"),
        (Progress(unprovable=2), "info", "0 replayed"),
        (Progress(absent=1, queued=1, handled=1), "info", "1 replayed: 1 handled"),
        (
            Progress(queued=2, handled=1, gone=1),
            "info",
            "2 replayed: 1 handled, 1 gone, nobody knows how",
        ),
        (Progress(queued=2, unfollowed=2), "info", "2 replayed: 2 that nobody followed"),
        (Progress(queued=2, died_again=2), "bad", "Replayed 2: all 2 died again"),
        (
            Progress(queued=3, handled=1, died_again=2, same=2, deaths={"a": 1, "b": 1}),
            "warn",
            "3 replayed: 1 handled, 2 dead again of the same causes (such as a)",
        ),
        (
            Progress(queued=1, known=1, died_again=2),
            "bad",
            "1 replayed, 1 waiting already: 2 dead again",
        ),
    ],
)
def test_only_what_was_handled_is_a_success(progress: Progress, level: str, outcome: str) -> None:
    run = Run("replay", "all", "Ada", state="finished", progress=progress)
    assert (run.level, run.outcome) == (level, outcome)


def test_a_discard_of_nothing_is_no_success() -> None:
    discards = [Run("discard", "all", "Ada", state="finished", discarded=n) for n in (0, 1)]
    discards[1].progress.moved = 1
    assert [each.level for each in discards] == ["info", "info"]


async def replayed(ward: Ward, letters: Sequence[DeadLetter]) -> Replay:
    """Queue them, and look no further."""
    replaying = Replay(reach(ward.redis), 10_000, progress=Progress())
    await replaying.run(listed(letters))
    return replaying


async def listed(letters: Sequence[DeadLetter]) -> AsyncIterator[DeadLetter]:
    for letter in letters:
        yield letter


async def test_what_is_tried_again_later_waits_for_another_attempt(ward: Ward) -> None:
    await ward.bury(1)

    def fails(_: str) -> bool:
        raise KeyError("as told")

    replaying = await replayed(ward, [letter async for letter in ward.dead()])
    ward.rejects = fails
    await ward.place.handle_next()
    await replaying.wait(0.1)
    assert replaying.progress.sentence == (
        "1 replayed: 1 waiting still, 1 of them for another attempt"
    )


async def test_nothing_is_called_handled_that_is_not_known_to_be(ward: Ward) -> None:
    """Its mark says of a discarded one what it was, though no live worker is of this version."""
    await ward.bury(3)
    letters = [letter async for letter in ward.dead()]
    replaying = await replayed(ward, letters)
    first, second, third = (letter.job for letter in letters)
    await ward.redis.delete(keys.payload(third))  # somebody's hand
    await revival.discard(Partition.only(ward.redis), third, retention=60)
    await ward.redis.delete(keys.payload(second), keys.dead_letter(second))
    await ward.redis.zrem(keys.QUEUE, second, third)
    ward.rejects = lambda _: False
    await ward.place.handle_next()  # the first one; with those it is no more known than of them
    await replaying.wait(LONG)
    assert (
        replaying.progress.sentence == "3 replayed: 1 discarded meanwhile, 2 gone, nobody knows how"
    )
    assert not await ward.redis.exists(keys.payload(first))


async def test_what_others_discard_hides_nothing_of_what_marks_tell(ward: Ward) -> None:
    await ward.bury(3)
    letters = [letter async for letter in ward.dead()]
    replaying = await replayed(ward, letters[:2])
    await ward.redis.set(keys.TOLD_MARKS, told.VERSION)  # as live workers of this version say
    ward.rejects = lambda _: False
    for _ in range(2):
        await ward.place.handle_next()
    await revival.discard(Partition.only(ward.redis), letters[2].job, retention=60)
    await replaying.wait(LONG)
    assert replaying.progress.sentence == "2 replayed: 2 handled"


async def test_those_that_died_again_of_one_cause_are_counted_together(redis: Redis) -> None:
    async def fails(event: Event[Any], _: Organization) -> None:
        raise ValueError(f"order {event.id} has no total")

    place = place_with(redis, fails, max_attempts=1)
    for number in range(12):
        await place.handle(body(f"evt_{number}"))
    letters = [letter async for letter in select(reach(redis), Filter())]
    replaying = Replay(reach(redis), 10_000)
    await replaying.run(listed(letters))
    for _ in letters:
        await place.handle_next()
    await replaying.wait(LONG)
    assert replaying.progress.sentence == (
        "12 replayed: 12 dead again of the same cause "
        "(exhausted: ValueError: order evt_* has no total)"
    )
    assert replaying.progress.often(3) == [("exhausted: ValueError: order evt_* has no total", 12)]


async def test_what_is_discarded_after_it_was_replayed_is_said(ward: Ward) -> None:
    await ward.bury(1)
    (letter,) = [letter async for letter in ward.dead()]
    await ward.redis.set(keys.TOLD_MARKS, told.VERSION)
    replaying = await replayed(ward, [letter])
    await revival.discard(Partition.only(ward.redis), letter.job, retention=60)
    ward.rejects = lambda _: False
    await ward.place.handle_next()
    await replaying.wait(LONG)
    assert replaying.progress.sentence == "1 replayed: 1 discarded meanwhile"
    assert ward.calls == {}


async def test_what_no_handler_has_ended_is_not_called_handled(ward: Ward) -> None:
    """As once a deploy has handlers ignore the type of what died, or take only the newest."""
    ignoring, of_the_newest = Handlers(), Handlers()
    ignoring.ignore("*")

    @of_the_newest.on("*", key="order_id", latest=True, quiet="0.1s")
    async def take(_event: Event[dict[str, str]], _organization: Organization) -> None:
        pass

    for handlers, became in (
        (ignoring, "2 ignored on purpose"),
        (of_the_newest, "1 handled, 1 superseded by newer ones"),
    ):
        await ward.redis.flushall()
        await ward.bury(2)
        await ward.redis.set(keys.TOLD_MARKS, told.VERSION)
        replaying = await replayed(ward, [letter async for letter in ward.dead()])
        place = Workplace(ward.redis, handlers)
        while await ward.redis.zcard(keys.ACCEPTED):
            await place.handle_next()
        await replaying.wait(LONG)
        assert replaying.progress.sentence == f"2 replayed: {became}"
        run = Run("replay", "all", "Ada", state="finished", progress=replaying.progress)
        assert (run.level, run.progress.waiting) == ("info", 0)


async def test_one_that_goes_on_in_other_bytes_is_followed(ward: Ward) -> None:
    await ward.bury(1)
    (letter,) = [letter async for letter in ward.dead()]
    signed = body("org_a_0000", "org_a", data={"order_id": "in other bytes"})
    replaying = await replayed(ward, [letter])
    await ward.redis.zadd(keys.QUEUE, {letter.job: 2**50})
    await ward.place.accept(signed, organization="org_a")

    def fails(_: str) -> bool:
        raise KeyError("as told")

    ward.rejects = fails
    await ward.place.handle_next()  # the other one is tried, and has the event until its next time
    await ward.redis.zadd(keys.QUEUE, {letter.job: 0})
    await ward.place.handle_next()  # so it leaves as a duplicate
    await replaying.wait(1)
    assert replaying.progress.sentence.endswith("1 waiting still, 1 of them for another attempt")
    ward.rejects = lambda _: True
    await ward.place.handle_next()
    await replaying.wait(LONG)
    assert (
        replaying.progress.sentence
        == "1 replayed: 1 dead again of the same cause (rejected: as told)"
    )


async def test_those_whose_organization_moves_meanwhile_are_followed(redis: Redis) -> None:
    partitions = over(redis)
    shop = Shop(partitions)
    for number in range(1, 4):
        await shop.deliver("a", n=number, bad=True)
    await shop.work_off(0)
    letters = [letter async for letter in select(Reach(partitions), Filter())]
    replaying = Replay(Reach(partitions), 10_000)
    await replaying.run(listed(letters))
    await move(partitions, 2)
    await replaying.wait(0.1)
    assert replaying.progress.sentence == "3 replayed: 3 waiting still"
    await shop.work_off(2)
    await replaying.wait(LONG)
    assert (
        replaying.progress.sentence
        == "3 replayed: 3 dead again of the same cause (rejected: a test)"
    )


async def test_who_keeps_it_finds_those_too_that_are_looked_for(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ward.bury(3)
    replaying = await replayed(ward, [letter async for letter in ward.dead()])
    asked, forever = asyncio.Event(), asyncio.Event()

    async def look(*_: object) -> list[Fate]:  # of a Redis that is far away, or doesn't answer
        asked.set()
        await forever.wait()
        return []

    monkeypatch.setattr(fates, "look", look)
    looking = asyncio.create_task(replaying.wait(LONG))
    await asked.wait()
    assert len(replaying.out) == 3
    looking.cancel()
    await asyncio.wait([looking])
    assert len(replaying.out) == 3


async def test_a_dead_letter_without_an_id_is_known_by_its_body(ward: Ward) -> None:
    await ward.bury(1)
    (letter,) = [letter async for letter in ward.dead()]
    await ward.redis.hset(keys.dead_letter(letter.job), "event_id", "")
    replaying = await replayed(ward, [letter async for letter in ward.dead()])
    ward.rejects = lambda _: False
    await ward.place.handle_next()
    await replaying.wait(LONG)
    assert replaying.progress.sentence == "1 replayed: 1 handled"


async def test_the_console_says_that_all_have_died_again(ward: Ward) -> None:
    await ward.bury(5)
    async with ward.working(), browsing(ward.redis, patience=LONG) as site:
        run = await ended(site, await site.confirm(f"{CONFIRM}?verb=replay&all=1"))
        assert '<span class="tag bad">died again</span>' in run.text
        assert "Replayed 5: all 5 died again of the same cause." in run.text
        assert "5 of rejected: as told" in run.text
        assert (
            "Replayed 5: all 5 died again of the same cause."
            in (await site.get("/dead-letters")).text
        )
        sample = await ended(site, await site.confirm(f"{CONFIRM}?verb=replay&all=1", limit="2"))
        assert "Replayed 2: all 2 died again of the same cause." in sample.text
        assert "2 of 2 looked at" in sample.text
        none = f"{CONFIRM}?verb=replay&all=1&type=order.none"
        assert "<p>0 looked at" in (await ended(site, await site.confirm(none, limit="2"))).text
        assert (await site.confirm(none, limit="2e9")).status == 400
        ward.rejects = lambda event_id: event_id.endswith("1")
        run = await ended(site, await site.confirm(f"{CONFIRM}?verb=replay&all=1"))
        assert '<span class="tag warn">some died again</span>' in run.text
        ward.rejects = lambda _: False
        run = await ended(site, await site.confirm(f"{CONFIRM}?verb=replay&all=1"))
        assert '<span class="tag good">finished</span>' in run.text
        assert "1 replayed: 1 handled." in run.text
