"""The one rule carries the correctness: without it in any one place, a race is lost."""

from collections.abc import Awaitable, Callable
from hashlib import sha1

import pytest
from redis.asyncio import Redis

from shared.queue import scripts
from shared.redis.wire import Script
from tests.conftest import StartRedis
from tests.integration import test_claim as claims
from tests.integration import test_races as races
from tests.integration import test_redelivered as redelivered
from tests.integration import test_suspects as suspects
from tests.integration.by_hand import Hand
from tests.integration.test_transition_properties import take_steps

HELD = "held_claim(ARGV[i], ARGV[i + 1])"
ANYBODYS = "read_claim(ARGV[i])"

Race = Callable[[Redis, Hand], Awaitable[None]]


def mutant(name: str, old: str, new: str) -> Script:
    """A script with one thing in it changed."""
    text = scripts.load(name).text
    assert text.count(old) == 1
    text = text.replace(old, new)
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def unfenced(verb: str) -> tuple[str, str, str]:
    """``settle``, with one verb for anybody."""
    return "settle", HELD, f"(ARGV[i + 2] == '{verb}' and {ANYBODYS} or {HELD})"


UNFENCED: dict[str, tuple[tuple[str, str, str], Race]] = {
    "done": (unfenced("done"), races.test_2_a_slot_that_the_expiry_freed_is_not_freed_again),
    "retry": (unfenced("retry"), claims.test_who_lost_the_lease_asks_for_no_retry),
    "dead": (unfenced("dead"), races.test_1_who_lost_the_lease_cannot_bury_what_another_has),
    "duplicate": (
        unfenced("duplicate"),
        races.test_7_a_duplicate_that_was_revived_is_not_removed_by_its_first_holder,
    ),
    "hold": (
        unfenced("hold"),
        redelivered.test_who_lost_the_lease_holds_nothing_back,
    ),
    "release": (unfenced("release"), races.test_9_who_lost_the_lease_gives_nothing_back),
    "mark": (("mark", HELD, ANYBODYS), claims.test_who_lost_the_lease_marks_nothing),
    "renew": (("renew", HELD, "true"), claims.test_who_lost_the_lease_renews_nothing),
    "abandon": (
        unfenced("abandon"),
        lambda _, hand: suspects.test_who_lost_the_lease_abandons_nothing(hand),
    ),
    "no more alone": (
        ("claim", "held_claim(ARGV[11], ARGV[12])", "read_claim(ARGV[11])"),
        lambda _, hand: suspects.test_who_lost_the_lease_ends_nobodys_loneliness(hand),
    ),
}


@pytest.mark.parametrize("where", UNFENCED)
async def test_a_race_is_lost_without_the_token_check(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    change, race = UNFENCED[where]
    monkeypatch.setattr(f"worker.pipeline.transitions._{change[0].upper()}", mutant(*change))
    hand = Hand(redis)
    await hand.cap(1)
    with pytest.raises(AssertionError):
        await race(redis, hand)


@pytest.mark.parametrize("where", UNFENCED)
async def test_the_same_race_is_won_with_it(redis: Redis, where: str) -> None:
    """Or else the test above would say nothing."""
    _, race = UNFENCED[where]
    hand = Hand(redis)
    await hand.cap(1)
    await race(redis, hand)


@pytest.mark.parametrize("where", ["done", "mark", "renew"])
def test_steps_in_any_order_find_that_the_token_check_is_gone(
    fresh_redis_server: StartRedis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    change, _ = UNFENCED[where]
    monkeypatch.setattr(f"worker.pipeline.transitions._{change[0].upper()}", mutant(*change))
    server = fresh_redis_server(appendfsync=None)
    with pytest.raises(AssertionError):
        take_steps(server.url, examples=100, shrink=False)
