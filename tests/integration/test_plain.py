"""What a script does plainly it would do in the same way without its plain part."""

import functools
import random
import re
from collections.abc import Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from shared.queue import keys, scripts
from shared.redis.wire import Script
from tests.integration.books import Books
from tests.integration.by_hand import RETENTION, Hand
from tests.integration.jobs import delivery, enqueue, enqueued
from tests.integration.test_mutants import mutant
from worker.pipeline.transitions import Claim, Mark, MarkRequest, Settled, Settlement

ORGANIZATIONS: Final = ("org_a", "org_b", "org_c")
RUNS, STEPS = 12, 80
BREAKER: Final = (2, 0, 10, 60_000)
WHERE: Final = {
    "enqueue": "shared.queue.writer._ENQUEUE",
    "claim": "worker.pipeline.transitions._CLAIM",
    "mark": "worker.pipeline.transitions._MARK",
    "settle": "worker.pipeline.transitions._SETTLE",
}
PLAIN: Final = Path(scripts.__file__).parent / "plain"
_LASTING: Final = """
local lasting = {}
for _, name in ipairs(KEYS) do
  if redis.call('TTL', name) == -1 then lasting[#lasting + 1] = name end
end
return lasting
"""
_MOMENT: Final = re.compile(r"\b1[78]\d{11}(\.0)?\b")
"""Two runs of the same steps are some milliseconds apart."""


@functools.lru_cache(2000)  # most values stay as they are for many steps
def _timeless(text: str) -> str:
    return _MOMENT.sub("then", text)


def _sorted(value: dict[str, Any]) -> list[tuple[str, Any]]:
    """A hash, without a dead letter's history, for the same reason."""
    return sorted((name, it) for name, it in value.items() if name != "history")


def never_plain(name: str) -> Script:
    """A script whose plain part is there, and is never called."""
    part = keys.in_place((PLAIN / f"{name}.lua").read_text())
    calls = part[part.rindex("\n\n") :]
    text = scripts.load(name, allow_oom=name != "enqueue").text
    assert text.count(calls) == 1
    text = text.replace(calls, "\n\n")
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Scene:
    """The same steps for the same seed, as long as Redis answers the same.

    Attributes:
        told: what Redis has answered and held, step by step.
    """

    def __init__(self, redis: Redis, seed: int) -> None:
        self._redis, self._seed = redis, seed
        self._random = random.Random(seed)  # nothing is protected by it
        self._hand = Hand(redis)
        self._claims: list[Claim] = []
        self._bases = 0
        self.told: list[Any] = []

    async def play(self) -> None:
        """Take some steps, most of which are what events mostly do."""
        often = [self._enqueue, self._claim, self._mark, self._mark, self._settle, self._settle]
        seldom = [self._come_due, self._come_due, self._forget, self._replay, self._cap]
        if self._seed % 3 == 0:  # what is resumed begins slowly: there are rates then
            seldom += [self._pause, self._resume, self._open]
        for _ in range(STEPS):
            step = self._random.choice(often if self._random.random() < 0.8 else seldom)
            answer = await step()
            self.told.append((step.__name__, repr(answer), await self._held()))

    async def _held(self) -> Any:
        values = (await Books.read(self._redis)).values
        marks = [name for name in sorted(values) if name.startswith(keys.EVENT)]
        lasting = await self._redis.execute_command("EVAL", _LASTING, len(marks), *marks)
        return lasting, {
            name: _timeless(repr(_sorted(value) if type(value) is dict else value))
            for name, value in values.items()
            if name != keys.FAILURES  # each with its moments, packed
        }

    def _some(self, of: Sequence[Any], most: int) -> list[Any]:
        return self._random.sample(of, min(len(of), self._random.randint(1, most))) if of else []

    async def _enqueue(self) -> Any:
        bodies = self._random.choices(range(40), k=self._random.randint(1, 6))
        return await enqueue(
            self._redis,
            *(
                delivery(b"%d" % body * (4000 if body % 2 else 1), ORGANIZATIONS[body % 3])
                for body in bodies
            ),
            organization=self._random.choice((0, 8)),
        )

    async def _claim(self) -> Any:
        self._bases += 1
        claimed = await self._hand.transitions.claim(
            "w1",
            most=self._random.choice((1, 2, 6)),
            lease=30,
            holding=0,
            slots=8,
            base=f"{self._bases:016x}",
            most_bytes=self._random.choice((1 << 20, 10_000)),
        )
        given = [claim for claim, _ in claimed.jobs]
        self._claims += given
        due = claimed.next_due
        return (
            [(each.job, each.token, each.attempts, each.claims, each.size) for each in given],
            [payload for _, payload in claimed.jobs],
            (claimed.more, claimed.quiet, claimed.suspects, claimed.patience),
            due if due is None else round(due, -1),
        )

    async def _mark(self) -> Any:
        # Of two jobs that bring one event both may be in a batch, or one twice.
        some = self._some(self._claims, 8)
        some += some[: self._random.choice((0, 0, 1))]
        answers = await self._hand.transitions.mark([_asked(each) for each in some])
        return [getattr(each, "mark", str(each)) for each in answers]

    async def _settle(self) -> Any:
        verb = self._random.choice(("done",) * 6 + ("retry", "dead", "release"))
        some = self._some(self._claims, self._random.choice((1, 5)))
        some += some[: self._random.choice((0, 0, 1))]
        if self._random.random() < 0.6:  # or somebody who has lost it says so once more
            self._claims = [each for each in self._claims if each not in some]
        settlements = [self._settlement(each, verb) for each in some]
        if verb == "retry":
            others = [each for each in self._claims if each not in some]
            settlements = [self._settlement(each, "done") for each in others] + settlements
        return await self._hand.transitions.settle(settlements)

    def _settlement(self, claim: Claim, verb: str) -> Settlement:
        has_worked = not claim.token.endswith("3")
        writes = [("put", "name", 0, "1")] if claim.token.endswith("2") else []
        details: dict[str, tuple[Any, ...]] = {
            "done": (RETENTION, (), writes, has_worked, 0),
            "retry": (60_000, BREAKER if self._seed % 3 == 0 else None, False, ("why", "")),
            "dead": ("rejected", "why", "order.updated", "acme", 1, True),
            "release": (),
        }
        return Settlement(claim, verb, details[verb])

    async def _come_due(self) -> Any:
        later = await self._redis.zrangebyscore(keys.QUEUE, keys.DEFERRED_FROM, "+inf")
        some = self._some(sorted(later), 3) if later else []
        if some:
            await self._redis.zadd(keys.QUEUE, dict.fromkeys(some, keys.DEFERRED_FROM))
        return some

    async def _pause(self) -> Any:
        return await self._redis.hset(keys.ORGANIZATIONS, keys.PAUSE + "org_a", "1")

    async def _resume(self) -> Any:
        return await self._redis.hdel(keys.ORGANIZATIONS, keys.PAUSE + "org_a")

    async def _cap(self) -> Any:
        await self._hand.cap(self._random.choice((None, 1, 2)), "org_b")

    async def _open(self) -> Any:
        """Let what is open try one, as it does when its time is over."""
        names = await self._redis.zrange(keys.BREAKERS, 0, -1)
        if names:
            await self._redis.zadd(keys.BREAKERS, dict.fromkeys(names, 1))
        return names

    async def _forget(self) -> Any:
        """Let marks be older than they may become, or let somebody's hand take them."""
        names = self._some(sorted(await self._redis.keys(keys.EVENT + "*")), 20)
        return [await self._redis.delete(name) for name in names]

    async def _replay(self) -> Any:
        """Let some dead letters live again."""
        names = await self._redis.keys(keys.DEAD_LETTER + "*")
        jobs = [name.decode().removeprefix(keys.DEAD_LETTER) for name in sorted(names)]
        return [await self._hand.replay(job) for job in jobs[:2]]


def _asked(claim: Claim) -> MarkRequest:
    number = int(claim.job[-3:], 16) % 15
    return MarkRequest(claim, f"evt:{number}:", 1 if number == 7 else None)


async def told(redis: Redis, seed: int) -> list[Any]:
    """What is answered and held in a run of random steps."""
    await redis.flushall()
    scene = Scene(redis, seed)
    await scene.play()
    return scene.told


_AS_IT_IS: Final[dict[int, list[Any]]] = {}
"""What was told with the scripts as they are, by seed: it is the same for every test."""


async def as_it_is(redis: Redis, seed: int) -> list[Any]:
    """What is told with the scripts as they are."""
    if seed not in _AS_IT_IS:
        _AS_IT_IS[seed] = await told(redis, seed)
    return _AS_IT_IS[seed]


async def differs(redis: Redis, patch: Callable[[], None], unpatch: Callable[[], None]) -> Any:
    """The first step of some runs after which it is not the same with scripts that are patched."""
    for seed in range(RUNS):
        expected = await as_it_is(redis, seed)
        patch()
        changed = await told(redis, seed)
        unpatch()
        for one, other in zip(expected, changed, strict=True):
            if one != other:
                return seed, one, other
    return None


@pytest.mark.parametrize("name", sorted(path.stem for path in PLAIN.glob("*.lua")))
async def test_without_its_plain_part_a_script_does_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    script = never_plain(name)
    found = await differs(redis, lambda: monkeypatch.setattr(WHERE[name], script), monkeypatch.undo)
    assert found is None, _difference(found)


def _difference(found: Any) -> Any:
    seed, (step, answer, (lasting, values)), (_, other_answer, (other_lasting, others)) = found
    names = {name for name in values.keys() | others.keys() if values.get(name) != others.get(name)}
    kept = [(name, values.get(name), others.get(name)) for name in sorted(names)]
    return seed, step, (answer, other_answer), (lasting, other_lasting), kept


MUTANTS: Final = {
    "enqueue, of one that comes twice": ("enqueue", "if seen[job] then return false end", ""),
    "enqueue, of what is there": ("enqueue", "if none_is_known() then", "if true then"),
    "settle, of one that comes twice": ("settle", "not seen[job] and ARGV", "ARGV"),
    "settle, without a mark": ("settle", "leaving and mark == 'pending:' .. job", "leaving"),
    "settle, of what is written": ("settle", "#details[3] == 0 and details[4]", "details[4]"),
    "settle, of who hasn't worked": ("settle", "#details[3] == 0 and details[4]", "true"),
    "settle, where a breaker counts": ("settle", "if said[i] then by_org", "if false then by_org"),
    "settle, of one with a past": ("settle", "is_its and not asked.has_past[at]", "is_its"),
    "mark, of nobody's": (
        "mark",
        "token ~= '' and knows_none and string.sub(claim, 1, #token) == token",
        "knows_none",
    ),
    "mark, too late": ("mark", "now <= tonumber(until_when)", "true"),
    "mark, of one that knows its event": ("mark", "'^:%d+:%d+:[^:]*:$'", "'^:.*:$'"),
    "claim, of what is due": ("claim", "if next_due <= now then", "if false then"),
    "claim, of who waits": ("claim", "and not must_wait(organization)\n    if", "\n    if"),
    "claim, beyond a cap": ("claim", "then_running > cap_of(organization)", "false"),
    "claim, of more bytes than it may": (
        "claim",
        "if is_large or bytes > most_bytes",
        "if is_large",
    ),
}


@pytest.mark.parametrize("where", MUTANTS)
async def test_it_is_noticed_where_a_plain_part_does_more_than_it_may(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    name, old, new = MUTANTS[where]
    script = mutant(name, keys.in_place(old), new)
    found = await differs(redis, lambda: monkeypatch.setattr(WHERE[name], script), monkeypatch.undo)
    assert found is not None


async def test_what_is_parked_is_in_line_once_a_slot_is_free(redis: Redis) -> None:
    hand = Hand(redis)
    await hand.cap(1)
    first, second = await enqueued(redis, delivery(b"1"), delivery(b"2"))
    claim = await hand.claim_only(first)
    assert await hand.mark(claim) is Mark.FRESH
    done = Settlement(claim, "done", (RETENTION, (), (), True, 0))
    assert await hand.transitions.settle([done]) == [Settled.DONE]
    await hand.claim_only(second)


async def test_of_one_event_in_one_call_the_first_is_fresh(redis: Redis) -> None:
    hand = Hand(redis)
    await enqueued(redis, delivery(b"1"), delivery(b"2"))
    answers = await hand.transitions.mark([MarkRequest(each, "e") for each in await hand.claim()])
    assert [getattr(each, "mark", each) for each in answers] == [Mark.FRESH, Mark.CONFLICTING]


async def test_while_a_breaker_tries_one_no_other_is_given(redis: Redis) -> None:
    hand = Hand(redis)
    await redis.hset(keys.ORGANIZATIONS, keys.BREAKER + "org_a", "trying:")
    await enqueued(redis, delivery(b"1"), delivery(b"2"))
    assert len(await hand.claim()) == 1


async def test_who_has_given_one_back_ends_it_no_more(redis: Redis) -> None:
    hand = Hand(redis)
    (job,) = await enqueued(redis, delivery(b"1"))
    before = await hand.claim_only(job)
    await hand.mark(before)
    await hand.release(before)
    await hand.claim_only(job)
    done = Settlement(before, "done", (RETENTION, (), (), True, 0))
    assert await hand.transitions.settle([done]) == [Settled.LOST]


async def test_of_who_was_thrown_back_nothing_is_left(redis: Redis) -> None:
    hand = Hand(redis)
    (job,) = await enqueued(redis, delivery(b"1"))
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    await redis.hset(keys.THROTTLED, job, "1")
    done = Settlement(claim, "done", (RETENTION, (), (), True, 0))
    assert await hand.transitions.settle([done]) == [Settled.DONE]
    assert not await redis.exists(keys.THROTTLED)


async def test_who_lives_again_without_its_mark_leaves_no_dead_letter_once_it_is_done(
    redis: Redis,
) -> None:
    hand = Hand(redis)
    (job,) = await enqueued(redis, delivery(b"1"))
    claim = await hand.claim_only(job)
    await hand.mark(claim)
    burial = ("rejected", "why", "order.updated", "acme", 1, True)
    assert await hand.transitions.settle([Settlement(claim, "dead", burial)]) == [Settled.DEAD]
    await redis.delete(*await redis.keys(keys.EVENT + "*"))
    assert await hand.replay(job) == "queued"
    claim = await hand.claim_only(job)
    assert await hand.mark(claim) is Mark.FRESH
    # Nothing else of what is seldom there would have it looked for.
    assert not await redis.exists(keys.FAILURES, keys.SUSPECTS, keys.UNHANDLED, keys.THROTTLED)
    done = Settlement(claim, "done", (RETENTION, (), (), True))
    assert await hand.transitions.settle([done]) == [Settled.DONE]
    assert not await redis.exists(keys.DEAD_LETTER + job, keys.DEAD + "org_a", keys.BURIED)


DIRECT: Final = {
    "settle, where there are records": (
        ("settle", "return redis.call('EXISTS', unpack(names)) > 0", "return false"),
        test_who_lives_again_without_its_mark_leaves_no_dead_letter_once_it_is_done,
    ),
    "settle, of what was thrown back": (
        ("settle", "if asked.has_seldom and", "if false and"),
        test_of_who_was_thrown_back_nothing_is_left,
    ),
    "settle, of nobody's": (
        ("settle", "id_from and token ~= '' and string.sub(claim, 1, #token) == token", "id_from"),
        test_who_has_given_one_back_ends_it_no_more,
    ),
    "settle, where somebody is parked": (
        ("settle", "redis.call('EXISTS', unpack(parked)) > 0", "false"),
        test_what_is_parked_is_in_line_once_a_slot_is_free,
    ),
    "mark, of an event that comes twice": (
        ("mark", " and not taken[name]", ""),
        test_of_one_event_in_one_call_the_first_is_fresh,
    ),
    "claim, of who is tried": (
        ("claim", "profile_of(organization).breaker == 'closed'", "true"),
        test_while_a_breaker_tries_one_no_other_is_given,
    ),
}


@pytest.mark.parametrize("where", DIRECT)
async def test_nor_is_it_hidden_where_random_steps_seldom_come(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    change, fact = DIRECT[where]
    monkeypatch.setattr(WHERE[change[0]], mutant(*change))
    with pytest.raises((AssertionError, ValueError)):
        await fact(redis)
