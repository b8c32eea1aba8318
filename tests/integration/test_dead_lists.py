"""Facts about what dead letters are found by: groups of a cause, kinds of a reason and type."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.by_hand import RETENTION
from tests.integration.console import letters
from tests.integration.jobs import delivery, enqueued, reach, record_of
from tests.integration.workplace import Lines
from worker.grouping import CAUSE_FIELDS, cause_of
from worker.operate import relisting, revival
from worker.operate.dead_letters import REASONS, Selection, select
from worker.operate.dead_lists import Filter, count, kinds, labels, labels_of, number_of
from worker.operate.failure_groups import largest
from worker.operate.meant import oldest
from worker.operate.relisting import relist
from worker.pipeline.transitions import Claim, Settlement, Transitions

LETTERS = int(os.environ.get("LETTERS", "2000"))
"""How many are buried where many are: 100,000 take a few minutes."""

ORGANIZATIONS = ("org_a", "org_b")
WORDS = ("sku", "total", "line", "name", "email", "address", "vat", "day", "shop", "price")
CAUSES = [
    (reason, event_type, f"KeyError: '{word}'", "")
    for reason in ("exhausted", "rejected")
    for event_type in ("order.updated", "order.created")
    for word in WORDS
] + [("stale", "order.updated", f"no {word} since", "") for word in WORDS]
"""Of fifty kinds."""

OLD = '1:{"host":"a","version":"0"}'
NEW = f'1:{{"host":"b","version":"1","{relisting.LISTS}":true}}'


async def claimed(redis: Redis, number: int, first: int = 0) -> list[Claim]:
    """Jobs of both organizations by turns."""
    sent = [delivery(b'{"n":%d}' % n, ORGANIZATIONS[n % 2]) for n in range(first, first + number)]
    await enqueued(redis, *sent)
    transitions = Transitions(Partition.only(redis))
    answer = await transitions.claim("w", most=number, lease=3600, holding=0)
    return [claim for claim, _ in answer.jobs]


def burial(claim: Claim, cause: tuple[str, str, str, str], *, is_listed: bool = True) -> Settlement:
    """What a worker asks for; one of an earlier version says nothing of a group."""
    reason, event_type, error, traceback = cause
    told = (reason, error, event_type, "acme", 1, False, None, traceback)
    return Settlement(claim, "dead", (*told, None, cause_of(*cause)) if is_listed else told)


async def bury(
    redis: Redis, causes: Sequence[tuple[str, str, str, str]], *, is_listed: bool = True
) -> list[str]:
    """Bury one letter for each cause; their jobs."""
    jobs = list[str]()
    transitions = Transitions(Partition.only(redis))
    known = sum((await count(Partition.only(redis))).values()) + 1_000_000 * (not is_listed)
    for start in range(0, len(causes), 200):
        some = causes[start : start + 200]
        claims = await claimed(redis, len(some), known + start)
        told = zip(claims, some, strict=True)
        await transitions.settle([burial(*each, is_listed=is_listed) for each in told])
        jobs += [each.job for each in claims]
    return jobs


async def listed(redis: Redis) -> dict[str, int]:
    """How many each group has, as Redis says."""
    numbers: dict[str, int] = {}
    for reason in REASONS:
        found = await redis.zrange(keys.DEAD_GROUPS + reason, 0, -1, withscores=True)
        numbers |= {name.decode(): int(number) for name, number in found}
    return numbers


async def there(redis: Redis) -> dict[str, int]:
    """How many letters there are of each cause, by a look at all records."""
    numbers: Counter[str] = Counter()
    async for name in redis.scan_iter(match=f"{keys.DEAD_LETTER}*", count=1000):
        record = await record_of(redis, name.decode().removeprefix(keys.DEAD_LETTER))
        reason, event_type, error, traceback = (record.get(each, "") for each in CAUSE_FIELDS)
        cause = cause_of(reason, event_type, error, traceback)
        numbers[f"{record['organization']}:{cause.key}"] += 1
    return dict(numbers)


async def is_exact(redis: Redis) -> None:
    """Whatever says a number says the same as the records."""
    groups = await listed(redis)
    assert groups == await there(redis)
    here = Partition.only(redis)
    assert sum((await kinds(here)).values()) == sum(groups.values())
    for name, number in groups.items():
        assert await redis.zcard(f"{keys.DEAD_GROUP}{name}") == number
    labelled = [
        f"{name}:{key}" async for name, its in labels_of(here, ORGANIZATIONS) for key in its
    ]
    assert sorted(labelled) == sorted(groups)


async def test_groups_are_exact_after_many_burials_discards_replays_and_expiries(
    redis: Redis,
) -> None:
    draw = random.Random(1)
    jobs = await bury(redis, [draw.choice(CAUSES) for _ in range(LETTERS)])
    assert len(await listed(redis)) == 2 * len(CAUSES)
    await is_exact(redis)
    here = Partition.only(redis)
    draw.shuffle(jobs)
    few, answers = len(jobs) // 10, set[str]()

    async def discarded() -> None:
        for job in jobs[:few]:
            answers.add(await revival.discard(here, job, retention=RETENTION))

    async def replayed() -> None:
        for job in jobs[few : 2 * few]:
            answers.add(await revival.replay_one(here, job))

    async def expired() -> None:
        cut = await redis.zrange(keys.dead("org_b"), few, few, withscores=True)
        await revival.expire(here, "org_b", died_before=int(cut[0][1]))

    await asyncio.gather(discarded(), replayed(), expired(), bury(redis, CAUSES))
    assert answers == {"discarded", "queued", "absent"}
    await is_exact(redis)
    # What was replayed dies again, of something else.
    transitions = Transitions(here)
    while (answer := await transitions.claim("w", most=200, lease=3600, holding=0)).jobs:
        cause = ("exhausted", "order.updated", "ValueError: no", "")
        await transitions.settle([burial(claim, cause) for claim, _ in answer.jobs])
    await is_exact(redis)
    for organization in ORGANIZATIONS:
        await revival.expire(here, organization, died_before=1 << 60)
    assert await redis.keys("sellfern:dead*") == []


async def test_an_organization_has_two_hundred_groups_and_then_one_for_each_reason(
    redis: Redis,
) -> None:
    names = [a + b for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnop"]
    causes = [("rejected", "a", f"no {name}", "") for name in names for _ in ORGANIZATIONS]
    causes += [("stale", "b", f"no {name}", "") for name in names[:4]]
    await bury(redis, causes)
    here = Partition.only(redis)
    async for organization, its in labels_of(here, ORGANIZATIONS):
        assert len(its) == 202
        rest = its["other-rejected"]
        assert (rest.reason, rest.type, rest.error, rest.place) == ("rejected", "", "", "")
        assert await redis.zcard(keys.UNTAGGED.dead_group(organization, "other-rejected")) == (
            len(names) - 200
        )
    # Of what type those are of nobody can tell without their records; to hide them would be worse.
    for wanted in (
        Filter("org_a", type="a"),
        Filter(type="a"),
        Filter(type="a", reason="rejected"),
    ):
        found, _ = await largest(reach(redis), wanted, 500)
        others = [each.id for each in found if each.is_of_others]
        owners = {"org_a"} if wanted.organization else set(ORGANIZATIONS)
        reasons = {wanted.reason or "stale", "rejected"}
        assert set(others) == {f"{name}:other-{why}" for name in owners for why in reasons}
    none, _ = await largest(reach(redis), Filter("org_a", type="c", reason="crashed"), 500)
    assert none == []
    assert sum((await listed(redis)).values()) == len(causes)
    # Whatever filters them is exact still.
    await redis.set(keys.DEAD_LISTED, 1)
    for wanted, number in (
        (Filter("org_a", reason="rejected"), len(names)),
        (Filter("org_a", reason="rejected", type="a"), len(names)),
        (Filter("org_a", reason="rejected", type="b"), 0),
        (Filter("org_a", type="b"), 2),
        (Filter(group="org_a:other-rejected"), len(names) - 200),
        (Filter("org_b", group="org_b:other-rejected", died_before=1), 0),
        (Filter(reason="stale"), 4),
    ):
        assert await number_of(reach(redis), wanted) == number
        assert len([each async for each in select(reach(redis), wanted)]) == number
    assert await number_of(reach(redis), Filter("org_a", type="b"), at_once=True) is None


async def test_a_partition_has_five_hundred_kinds_and_then_one_for_each_reason(
    redis: Redis,
) -> None:
    await bury(redis, [("unavailable_event", f"type_{n}", "unknown", "") for n in range(520)])
    await redis.set(keys.DEAD_LISTED, 1)
    assert len(await kinds(Partition.only(redis))) == 501
    for wanted, number in (
        (Filter(), 520),
        (Filter(reason="unavailable_event"), 520),
        (Filter(type="type_3"), 1),
        (Filter(type="type_519"), 1),
        (Filter(reason="rejected", type="type_519"), 0),
    ):
        assert await number_of(reach(redis), wanted) == number
    for job in [each.job async for each in select(reach(redis), Filter())]:
        await revival.discard(Partition.only(redis), job, retention=RETENTION)
    assert await redis.keys("sellfern:dead*") == [keys.DEAD_LISTED.encode()]


async def test_what_an_earlier_version_has_written_or_removed_is_put_right(redis: Redis) -> None:
    here, lines = Partition.only(redis), Lines()
    kept = await bury(redis, CAUSES)
    new = await bury(redis, CAUSES, is_listed=False)
    gone, *died_again = kept[:20]
    await redis.delete(keys.dead_letter(gone))  # as an earlier script does
    await redis.zrem(keys.dead("org_a"), gone)
    await redis.hincrby(keys.BURIED, "org_a", -1)
    for job in died_again[:4]:
        record = {"error": "ValueError: another", "died_at": 7, "traceback": ""}
        await redis.hset(keys.dead_letter(job), mapping=record)
        await redis.zadd(keys.dead(job.partition(":")[0]), {job: 7})
    numbers = Counter([each.reason async for each in select(reach(redis), Filter())])
    await redis.hset(keys.WORKERS, mapping={"w1": NEW, "w2": OLD})
    await relist(here, log=lines.log)
    await is_exact(redis)
    # It goes on, as long as such a worker lives; and nobody trusts the lists until then.
    assert not await redis.exists(keys.DEAD_LISTED)
    assert await number_of(reach(redis), Filter(reason="stale")) == numbers["stale"]
    assert await number_of(reach(redis), Filter(reason="stale"), at_once=True) is None
    await redis.hdel(keys.WORKERS, "w2")
    await relist(here, log=lines.log)
    assert await redis.exists(keys.DEAD_LISTED)
    assert await number_of(reach(redis), Filter(reason="stale"), at_once=True) == numbers["stale"]
    (line,) = lines.of("dead_letters_listed")
    assert line["number"] == len(new) + 4
    # What is good isn't looked at again; what isn't is, at once or within a day.
    await redis.delete(keys.dead_letter(new[0]))
    await relist(here, log=lines.log)
    assert sum((await listed(redis)).values()) == 1 + sum((await there(redis)).values())
    await redis.set(keys.DEAD_LISTED, 1)
    await relist(here, log=lines.log)
    await is_exact(redis)
    await redis.hset(keys.WORKERS, "w2", OLD)
    await relist(here, log=lines.log)
    assert not await redis.exists(keys.DEAD_LISTED)


async def test_letters_by_the_thousand_from_before_an_upgrade_are_listed(redis: Redis) -> None:
    await letters.bury(redis, "org_a", 1200)
    await relist(Partition.only(redis), log=Lines().log)
    assert await number_of(reach(redis), Filter(reason="crashed"), at_once=True) == 2
    assert await listed(redis) == await there(redis)


@pytest.mark.parametrize(
    "name", [keys.DEAD_GROUPS + "exhausted", keys.DEAD_KINDS, keys.DEAD_LABELS + "org_a"]
)
async def test_whatever_somebodys_hand_has_left_under_a_name_a_letter_is_buried(
    redis: Redis, name: str
) -> None:
    await redis.set(name, "by hand")
    jobs = await bury(redis, CAUSES[:4])
    assert await count(Partition.only(redis)) == {"org_a": 2, "org_b": 2}
    for job in jobs:
        assert await revival.discard(Partition.only(redis), job, retention=1.0) == "discarded"
    assert await count(Partition.only(redis)) == {}
    await redis.delete(name)
    await bury(redis, CAUSES[:4])
    await relist(Partition.only(redis), log=Lines().log)
    await is_exact(redis)


@pytest.mark.parametrize("label", [b"\xff", b"\x01", b"\x92\x01\x90", b""])
async def test_whatever_somebodys_hand_has_made_of_a_label_its_letters_are_unlisted(
    redis: Redis, label: bytes
) -> None:
    jobs = await bury(redis, CAUSES[:4])
    for name in await redis.hkeys(keys.DEAD_LABELS + "org_a"):
        await redis.execute_command("HSET", keys.DEAD_LABELS + "org_a", name, label)
    for job in jobs:
        await revival.discard(Partition.only(redis), job, retention=1.0)
    assert await redis.keys("sellfern:dead*") == []


async def test_a_sample_of_one_organizations_letters_is_taken_without_a_look_at_all(
    redis: Redis,
) -> None:
    jobs = await letters.bury(redis, "org_a", 3000)
    await relist(Partition.only(redis), log=Lines().log)
    its = await labels(Partition.only(redis), "org_a")
    groups = {label.reason: key for key, label in its.items()}
    for wanted, sample in (
        (Filter("org_a"), jobs[:5]),
        (Filter(group=f"org_a:{groups['exhausted']}"), jobs[1:6]),
        (Filter("org_a", reason="crashed"), jobs[::1000]),
    ):
        await redis.config_resetstat()
        found = await oldest(reach(redis), Selection(filter=wanted), len(sample), force=False)
        assert found == tuple(sample)
        assert (await redis.info("commandstats"))["cmdstat_hmget"]["calls"] <= 600


async def test_what_somebodys_hand_has_made_of_a_letter_keeps_no_other_out_of_the_lists(
    redis: Redis,
) -> None:
    here, lines = Partition.only(redis), Lines()
    timeless, another, headless, *_ = await bury(redis, CAUSES, is_listed=False)
    await redis.hset(keys.dead_letter(timeless), "died_at", "yesterday")
    await redis.delete(keys.dead_letter(another))
    await redis.set(keys.dead_letter(another), "by hand")
    await redis.hdel(keys.dead_letter(headless), "reason")
    listed_too = (await bury(redis, CAUSES[:1]))[0]
    await redis.delete(keys.dead_letter(listed_too))
    await redis.set(keys.dead_letter(listed_too), "by hand")
    for _ in range(2):
        await redis.delete(keys.DEAD_LISTED)
        await relist(here, log=lines.log)
    assert sum((await listed(redis)).values()) == len(CAUSES) - 3
    (line,) = lines.of("dead_letters_listed")
    assert line["number"] == len(CAUSES) - 3
