"""Every word of a script counts: without the one rule in any one place, say, a race is lost."""

from collections.abc import Awaitable, Callable
from hashlib import sha1

import pytest
from redis.asyncio import Redis

from shared.queue import scripts
from shared.redis.wire import Script
from tests.conftest import StartRedis
from tests.integration import test_claim as claims
from tests.integration import test_fence as fence
from tests.integration import test_races as races
from tests.integration import test_redelivered as redelivered
from tests.integration import test_suspects as suspects
from tests.integration.by_hand import Hand
from tests.integration.test_transition_properties import take_steps

HELD = "held_claim(ARGV[i], ARGV[i + 1])"
ANYBODYS = "read_claim(ARGV[i])"
HELD_BY_WHO_SETTLES = "held_claim(each.job, each.token)"

Race = Callable[[Redis, Hand], Awaitable[None]]


def mutant(name: str, old: str, new: str) -> Script:
    """A script with one thing in it changed."""
    text = scripts.load(name).text
    assert text.count(old) == 1
    text = text.replace(old, new)
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def unfenced(verb: str) -> tuple[str, str, str]:
    """``settle``, with one verb for anybody."""
    anybodys = f"(each.verb == '{verb}' and read_claim(each.job) or {HELD_BY_WHO_SETTLES})"
    return "settle", HELD_BY_WHO_SETTLES, anybodys


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
        ("claim", "held_claim(ARGV[13], ARGV[14])", "read_claim(ARGV[13])"),
        lambda _, hand: suspects.test_who_lost_the_lease_ends_nobodys_loneliness(hand),
    ),
}

ANY_TOKEN = ("token ~= '' and claim.token == token", "claim.token == token")
KEPT_TOKEN = ("claim.token = redis.sha1hex(claim.token)", "claim.token = claim.token")

CHANGED: dict[str, tuple[tuple[str, str, str], Race]] = {
    "mark, of nobody's event": (
        ("mark", *ANY_TOKEN),
        fence.test_an_event_that_nobody_holds_is_not_finished_buried_or_put_off,
    ),
    "settle, of nobody's event": (
        ("settle", *ANY_TOKEN),
        fence.test_an_event_that_nobody_holds_is_not_finished_buried_or_put_off,
    ),
    "renew, of nobody's event": (
        ("renew", *ANY_TOKEN),
        fence.test_an_event_that_nobody_holds_is_not_finished_buried_or_put_off,
    ),
    "claim, beside nobody's event": (
        ("claim", *ANY_TOKEN),
        fence.test_an_event_that_nobody_holds_is_no_suspect_that_others_run_beside,
    ),
    "retry, its token kept": (
        ("settle", *KEPT_TOKEN),
        fence.test_in_order_a_retry_that_is_sent_again_does_not_cost_two_attempts,
    ),
    "retry, its lease kept": (
        ("settle", *KEPT_TOKEN),
        fence.test_in_order_an_event_that_waits_for_its_retry_is_not_committed_behind_its_back,
    ),
    "revived, its attempts kept": (
        ("mark", "claim.attempts = 0\n", "\n"),
        redelivered.test_an_event_that_a_redelivery_revives_has_all_its_attempts,
    ),
}
MUTANTS = UNFENCED | CHANGED


@pytest.mark.parametrize("where", MUTANTS)
async def test_a_race_is_lost_by_a_script_in_which_one_thing_is_changed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    change, race = MUTANTS[where]
    monkeypatch.setattr(f"worker.pipeline.transitions._{change[0].upper()}", mutant(*change))
    hand = Hand(redis)
    await hand.cap(1)
    with pytest.raises(AssertionError):
        await race(redis, hand)


@pytest.mark.parametrize("where", MUTANTS)
async def test_the_same_race_is_won_by_the_script_as_it_is(redis: Redis, where: str) -> None:
    """Or else the test above would say nothing."""
    _, race = MUTANTS[where]
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
