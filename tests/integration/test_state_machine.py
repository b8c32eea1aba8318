"""Facts about the page of states: each of its rows happens, and no script is missing from it."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from tests.integration.by_hand import Hand
from tests.integration.jobs import delivery, enqueue, mark_of
from worker.operate import organizations, revival, upkeep
from worker.pipeline.transitions import Claim, MarkRequest, Settlement, Transitions
from worker.turns import Turn

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "state-machine.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| `(\w+)` \|", re.MULTILINE)
ROWS = ROW.findall(PAGE)

PEOPLES = {"pause", "note", "begin", "keep", "stop", "show"}
CLOCK = {"forget", "unlist", "renumber"}
MOVES = {"halt", "open", "depart", "pack", "arrive", "join", "clear", "vacate"}

TURNS = (f"{keys.TURN}org_a:key:k", f"{keys.TURN}org_a:state:v")
"""For which J waits: that of a key, and that of a value."""

BREAKER = (1, 0, 1, 3_600_000)
"""The first failure opens it, for an hour."""


class Scene:
    """One job, J, and another of the same organization to stand in its way."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.hand = Hand(redis)
        self.job = job_id("org_a", b"J")

    async def state(self) -> str:
        """Where J is."""
        score = await self.redis.zscore(keys.QUEUE, self.job)
        if score is not None and score < keys.DEFERRED_FROM:
            return "queued"
        if score is not None:
            claim = await self.redis.hget(keys.CLAIMS, self.job) or b""
            return "leased" if claim and not claim.startswith(b":") else "deferred"
        if await self.redis.zscore(keys.parked("org_a"), self.job) is not None:
            return "parked"
        for turn in TURNS:
            if await self.redis.zscore(turn, self.job):
                return "in_turn"
        if await self.redis.exists(keys.dead_letter(self.job)):
            return "dead"
        is_done = (await mark_of(self.redis, "evt_1") or "").startswith(f"done:{self.job}")
        return "done" if is_done else "absent"

    async def deliver(self, body: bytes = b"J") -> None:
        await enqueue(self.redis, delivery(body))

    async def take(self) -> Claim:
        await self.deliver()
        return await self.hand.claim_only(self.job)

    async def take_marked(self) -> Claim:
        claim = await self.take()
        await self.hand.mark(claim)
        return claim

    async def bury(self) -> None:
        await self.hand.dead(await self.take_marked())

    async def park(self) -> Claim:
        """J waits for the only slot, which the other has."""
        await self.hand.cap(1)
        await self.deliver(b"other")
        (other,) = await self.hand.claim()
        await self.deliver()
        assert await self.hand.claim() == []
        return other


Step = Callable[[Scene], Awaitable[object]]
Script = tuple[Step, Step]
"""What leads up to the row, and the row itself."""


async def nothing(_: Scene) -> None:
    """Nobody has seen the job yet."""


async def handle(scene: Scene) -> None:
    await scene.hand.done(await scene.take_marked())


async def settled(scene: Scene, verb: str) -> None:
    raw = await scene.redis.hget(keys.CLAIMS, scene.job)
    assert raw is not None
    claim = Claim(scene.job, raw.decode().partition(":")[0])
    match verb:
        case "done":
            await scene.hand.done(claim)
        case "retry":
            await scene.hand.retry(claim)
        case "dead":
            await scene.hand.dead(claim)
        case "release":
            await scene.hand.release(claim)
        case "remove":
            await scene.hand.transitions.settle([Settlement(claim, "remove")])


def settle(verb: str) -> Step:
    async def step(scene: Scene) -> None:
        await settled(scene, verb)

    return step


async def retried(scene: Scene) -> None:
    await scene.hand.retry(await scene.take())


async def due(scene: Scene) -> None:
    await scene.hand.come_due(scene.job)
    await scene.hand.promote()


async def pause_and_claim(scene: Scene) -> None:
    await organizations.pause(Partition.only(scene.redis), "org_a", "for a test")
    assert await scene.hand.claim() == []


async def paused(scene: Scene) -> None:
    await scene.deliver()
    await pause_and_claim(scene)


async def without_place(scene: Scene) -> None:
    await scene.deliver()
    await scene.redis.zrem(keys.QUEUE, scene.job)


async def without_payload(scene: Scene) -> None:
    await scene.deliver()
    await scene.redis.delete(keys.payload(scene.job))
    await scene.redis.zrem(keys.ACCEPTED, scene.job)


async def held_by_its_breaker(scene: Scene) -> None:
    await scene.deliver(b"other")
    (other,) = await scene.hand.claim()
    await scene.hand.transitions.settle([Settlement(other, "retry", (3_600_000, BREAKER))])
    await scene.deliver()
    await scene.hand.claim()


async def cool_off(scene: Scene) -> None:
    await scene.redis.zadd(keys.BREAKERS, {"org_a": 1})
    await scene.hand.promote()


async def renew(scene: Scene) -> None:
    raw = await scene.redis.hget(keys.CLAIMS, scene.job)
    assert raw is not None
    claim = Claim(scene.job, raw.decode().partition(":")[0])
    before = await scene.redis.zscore(keys.QUEUE, scene.job)
    assert await beat(scene.hand.transitions, "w1", 5, [claim], lease=99) == []
    assert await scene.redis.zscore(keys.QUEUE, scene.job) != before


async def beat(
    transitions: Transitions, worker: str, slots: int, claims: list[Claim], lease: float = 30
) -> list[Claim]:
    renewed = await transitions.renew(worker, claims, description=b"{}", slots=slots, lease=lease)
    return renewed.lost


async def parked_by_the_default_cap(scene: Scene) -> None:
    await beat(scene.hand.transitions, "w1", 1, [])
    await scene.deliver(b"other")
    await scene.hand.claim()
    await scene.deliver()
    assert await scene.hand.claim() == []


async def mark_again(scene: Scene) -> None:
    raw = await scene.redis.hget(keys.CLAIMS, scene.job)
    assert raw is not None
    await scene.hand.mark(Claim(scene.job, raw.decode().partition(":")[0]))
    assert await mark_of(scene.redis, "evt_1") == f"pending:{scene.job}"


async def free_the_slot(scene: Scene) -> None:
    (other,) = [
        Claim(job.decode(), claim.decode().partition(":")[0])
        for job, claim in (await scene.redis.hgetall(keys.CLAIMS)).items()
        if not claim.startswith(b":")
    ]
    await scene.hand.dead(other)


async def other_bytes(scene: Scene) -> None:
    await scene.deliver(b"K")
    (other,) = await scene.hand.claim()
    await scene.hand.mark(other)


async def marked_with_a_key(
    scene: Scene, claim: Claim, event_id: str, *, latest: str = "", quiet: int = 0
) -> None:
    transitions = Transitions(Partition.only(scene.redis), has_turns=True)
    await transitions.mark([MarkRequest(claim, event_id, turn=Turn("k", latest, quiet))])


async def behind_another(scene: Scene) -> Claim:
    """The other has the turn, and J is claimed."""
    await scene.deliver(b"other")
    (other,) = await scene.hand.claim()
    await marked_with_a_key(scene, other, "evt_2", latest="h")
    await scene.take()
    return other


def ask_for_its_turn(event_id: str = "evt_1", *, latest: str = "", quiet: int = 0) -> Step:
    async def step(scene: Scene) -> None:
        raw = await scene.redis.hget(keys.CLAIMS, scene.job)
        assert raw is not None
        claim = Claim(scene.job, raw.decode().partition(":")[0])
        await marked_with_a_key(scene, claim, event_id, latest=latest, quiet=quiet)

    return step


async def in_turn(scene: Scene) -> None:
    await behind_another(scene)
    await ask_for_its_turn(latest="h")(scene)


async def a_newer_one_asks(scene: Scene) -> None:
    await scene.deliver(b"newer")
    (newer,) = await scene.hand.claim()
    await marked_with_a_key(scene, newer, "evt_3", latest="h")


async def older_than_who_has_the_turn(scene: Scene) -> None:
    await scene.take()
    await a_newer_one_asks(scene)


async def a_duplicate_of_it_is_found(scene: Scene) -> None:
    """The payload of whoever has the turn is gone; its event comes in other bytes."""
    await scene.redis.delete(keys.payload(job_id("org_a", b"other")))
    await scene.deliver(b"other, again")
    (again,) = await scene.hand.claim()
    await scene.hand.mark(again, "evt_2")


async def lost_over_a_value(scene: Scene) -> None:
    """Another has the turn of the value, and J has read it before that one writes."""
    await scene.deliver(b"other")
    (other,) = await scene.hand.claim()
    await scene.hand.mark(other, "evt_2")
    await scene.take_marked()
    await conflict(scene, other)


async def conflict(scene: Scene, claim: Claim) -> None:
    details = (60_000, (("v", "a digest of what is no more"),), ())
    await scene.hand.transitions.settle([Settlement(claim, "done", details)])


async def lose_a_commit(scene: Scene) -> None:
    raw = await scene.redis.hget(keys.CLAIMS, scene.job)
    assert raw is not None
    await conflict(scene, Claim(scene.job, raw.decode().partition(":")[0]))


async def waiting_for_a_value(scene: Scene) -> None:
    await lost_over_a_value(scene)
    await lose_a_commit(scene)


async def the_lease_before_it_is_over(scene: Scene) -> None:
    await scene.hand.come_due(job_id("org_a", b"other"))
    await scene.hand.promote()


async def somebody_takes_away_who_is_before_it(scene: Scene) -> None:
    other = job_id("org_a", b"other")
    await scene.redis.hdel(keys.TURNS, other)
    await beat(scene.hand.transitions, "w1", 5, [])


async def expire(scene: Scene) -> None:
    assert await revival.expire(Partition.only(scene.redis), "org_a", died_before=2**52) == 1


SCENARIOS: dict[tuple[str, str, str], Script] = {
    ("absent", "queued", "enqueue"): (nothing, Scene.deliver),
    ("absent", "deferred", "restore"): (
        without_place,
        lambda scene: anext(upkeep.restored(Partition.only(scene.redis), lease=30)),
    ),
    ("done", "queued", "enqueue"): (handle, Scene.deliver),
    ("dead", "queued", "enqueue"): (Scene.bury, Scene.deliver),
    ("queued", "leased", "claim"): (Scene.deliver, lambda scene: scene.hand.claim()),
    ("queued", "leased", "adopt"): (
        Scene.deliver,
        lambda scene: scene.hand.transitions.adopt(scene.job, lease=30),
    ),
    ("queued", "parked", "claim"): (Scene.deliver, pause_and_claim),
    ("queued", "absent", "claim"): (without_payload, lambda scene: scene.hand.claim()),
    ("deferred", "queued", "claim"): (retried, due),
    ("leased", "queued", "claim"): (Scene.take, due),
    ("parked", "queued", "claim"): (held_by_its_breaker, cool_off),
    ("leased", "leased", "renew"): (Scene.take, renew),
    ("leased", "leased", "mark"): (Scene.take, mark_again),
    ("leased", "done", "settle"): (Scene.take_marked, settle("done")),
    ("leased", "deferred", "settle"): (Scene.take, settle("retry")),
    ("leased", "dead", "settle"): (Scene.take, settle("dead")),
    ("leased", "absent", "settle"): (Scene.take, settle("remove")),
    ("leased", "queued", "settle"): (Scene.take, settle("release")),
    ("leased", "in_turn", "mark"): (behind_another, ask_for_its_turn()),
    ("leased", "in_turn", "settle"): (lost_over_a_value, lose_a_commit),
    ("leased", "deferred", "mark"): (Scene.take, ask_for_its_turn(latest="h", quiet=1000)),
    ("leased", "done", "mark"): (older_than_who_has_the_turn, ask_for_its_turn(latest="h")),
    ("in_turn", "done", "mark"): (in_turn, a_newer_one_asks),
    ("in_turn", "queued", "settle"): (in_turn, free_the_slot),
    ("in_turn", "queued", "mark"): (in_turn, a_duplicate_of_it_is_found),
    ("in_turn", "queued", "claim"): (waiting_for_a_value, the_lease_before_it_is_over),
    ("in_turn", "queued", "renew"): (in_turn, somebody_takes_away_who_is_before_it),
    ("parked", "queued", "settle"): (Scene.park, free_the_slot),
    ("parked", "queued", "resume"): (
        paused,
        lambda scene: organizations.resume(Partition.only(scene.redis), "org_a"),
    ),
    ("parked", "queued", "profile"): (Scene.park, lambda scene: scene.hand.cap(2)),
    ("parked", "queued", "renew"): (
        parked_by_the_default_cap,
        lambda scene: beat(scene.hand.transitions, "w2", 10, []),
    ),
    ("dead", "queued", "replay"): (Scene.bury, lambda scene: scene.hand.replay(scene.job)),
    ("dead", "done", "discard"): (
        Scene.bury,
        lambda scene: revival.discard(Partition.only(scene.redis), scene.job, retention=60),
    ),
    ("dead", "absent", "expire"): (Scene.bury, expire),
    ("dead", "absent", "mark"): (Scene.bury, other_bytes),
}


def test_every_row_of_the_page_has_its_scenario_here() -> None:
    assert sorted(ROWS) == sorted(SCENARIOS)


@pytest.mark.parametrize("row", ROWS, ids="-".join)
async def test_a_row_of_the_page_happens(redis: Redis, row: tuple[str, str, str]) -> None:
    before, after, _ = row
    lead_up, step = SCENARIOS[row]
    scene = Scene(redis)
    await lead_up(scene)
    assert await scene.state() == before
    await step(scene)
    assert await scene.state() == after


def test_every_script_is_on_the_page() -> None:
    scripts = {path.stem for path in (ROOT / "shared" / "queue" / "scripts").glob("*.lua")}
    named = (
        {script for _, _, script in ROWS}
        | PEOPLES
        | {"leave", "disown", "recount", "index"}
        | CLOCK
        | MOVES
    )
    assert scripts == named
    assert all(f"`{script}`" in PAGE for script in scripts)


def test_the_diagram_draws_what_the_table_says() -> None:
    drawn = set()
    for before, after, label in re.findall(r"^    (\S+) --> (\S+): (.+)$", PAGE, re.MULTILINE):
        for script in re.sub(r" \([^)]*\)", "", label).split(", "):
            drawn.add((before.replace("[*]", "absent"), after.replace("[*]", "absent"), script))
    drawn.discard(("done", "absent", "retention"))  # Redis's own expiry, no script's
    # The diagram leaves out what stays where it is, stock arq, and what redeliveries do.
    left_out = {
        row
        for row in ROWS
        if row[0] == row[1]
        or row[2] == "adopt"
        or (row[0] in ("done", "dead") and row[2] == "enqueue")
    } | {("queued", "absent", "claim")}
    assert drawn == set(ROWS) - left_out
