"""Every word of turns counts: each of these one-word changes loses a race."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from tests.integration import test_latest as latest
from tests.integration import test_state_turns as state_turns
from tests.integration import test_turns as turns
from tests.integration import test_turns_kept as kept
from tests.integration.by_hand import Hand
from tests.integration.test_mutants import mutant

Race = Callable[[Redis, Hand], Awaitable[None]]

WHERE = {
    "enqueue": "shared.queue.writer._ENQUEUE",
    "replay": "worker.operate.revival._REPLAY",
}
LEAVES = ("  if any_turns() then leave_turns(job) end\n", "")
HAS_PLACE = ("return turn and turn.waits and '0'", "return nil")
FREES = ("freed[claim.organization] = true\n  let_another_try(claim)", "let_another_try(claim)")
TRIES = ("let_another_try(claim)\n  if any_turns()", "if any_turns()")
GIVES_BACK = (
    "let_another_try(claim)\n  if any_turns() then give_back_state_turn(claim.job) end",
    "let_another_try(claim)",
)
BY_TOKEN = (
    "let_another_try(claim)\n  if any_turns() then give_back_state_turn(claim.job) end",
    "if any_turns() then leave_turns(claim.job) end",
)
LETS_GO = "  clear_token(claim)\n  write_turn"
UNCOUNTS = (f"  uncount(claim)\n{LETS_GO}", LETS_GO)

MUTANTS: dict[str, tuple[tuple[str, str, str], Race]] = {
    "who is decoded is not waited for": (
        ("mark", "if may_be_overtaking(claim, turn, order, now) then", "if false then"),
        turns.test_t1_who_asks_before_an_earlier_one_has_been_decoded_asks_again,
    ),
    "who is not decoded is waited for again and again": (
        ("mark", "redis.call('ZREMRANGEBYSCORE', undecided, '-inf', '(' .. order)", "0"),
        turns.test_t2_a_worker_that_dies_before_it_has_decoded_costs_a_second_once,
    ),
    "in order of asking": (
        ("settle", "'ZADD', name, order, claim.job", "'ZADD', name, now_ms(), claim.job"),
        state_turns.test_in_line_for_a_value_an_earlier_event_goes_first,
    ),
    "in one call, in order of the call": (
        ("mark", "return one.order < other.order", "return one.place < other.place"),
        kept.test_in_one_call_the_earlier_one_asks_first,
    ),
    "who is woken is overtaken": (
        ("mark", "its_order < tonumber(order)", "its_order == 0"),
        turns.test_t11_who_is_woken_parks_while_its_organization_is_paused,
    ),
    "the holder is the token, at a retry": (
        ("settle", *BY_TOKEN),
        turns.test_t4_a_retrying_one_keeps_its_turn_and_holds_up_no_other_key,
    ),
    "the holder is the token, at a crash": (
        ("claim", *BY_TOKEN),
        turns.test_t3_an_expired_lease_loses_no_turn,
    ),
    "settle passes nothing on": (
        ("settle", *LEAVES),
        turns.test_t10_a_replayed_event_goes_before_one_that_was_woken,
    ),
    "what is taken over passes nothing on": (
        ("mark", *LEAVES),
        lambda redis, hand: turns.test_t9_an_event_that_other_bytes_take_over_leaves_its_turn(
            redis, hand, has_it=True
        ),
    ),
    "what claim drops passes nothing on": (
        ("claim", *LEAVES),
        turns.test_t9_an_event_that_claim_drops_leaves_its_turn,
    ),
    "who leaves stays in the turn": (
        ("mark", "  redis.pcall('ZREM', name, job)\n  pass_on(name)", "  pass_on(name)"),
        lambda redis, hand: turns.test_t9_an_event_that_other_bytes_take_over_leaves_its_turn(
            redis, hand, has_it=False
        ),
    ),
    "a redelivery knows no turn": (
        ("enqueue", *HAS_PLACE),
        lambda redis, hand: turns.test_t7_who_waits_has_a_place(redis, hand, "redelivered"),
    ),
    "a replay knows no turn": (
        ("replay", *HAS_PLACE),
        lambda redis, hand: turns.test_t7_who_waits_has_a_place(redis, hand, "replayed"),
    ),
    "a replay has another order": (
        ("replay", "order or received_at", "received_at"),
        turns.test_t10_a_replayed_event_goes_before_one_that_was_woken,
    ),
    "who waits unparks nobody": (
        ("mark", *FREES),
        turns.test_t12_one_at_a_time_who_waits_frees_the_slot_for_whom_it_waits,
    ),
    "who waits keeps the breaker's try": (
        ("mark", *TRIES),
        turns.test_t13_an_event_that_a_breaker_lets_through_and_that_must_wait_tries_nothing,
    ),
    "who waits for its key has spent a claim": (
        ("mark", *UNCOUNTS),
        turns.test_t4_a_retrying_one_keeps_its_turn_and_holds_up_no_other_key,
    ),
    "who waits for a value has spent a claim": (
        ("settle", *UNCOUNTS),
        state_turns.test_who_loses_a_commit_to_a_value_that_another_has_the_turn_of_waits,
    ),
    "several values at once": (
        ("settle", "  give_back_state_turn(job)\n  turn = turn_of(job) or no_turn()\n", ""),
        state_turns.test_t14_two_who_read_two_values_never_wait_while_they_have_one,
    ),
    "a retry keeps the turn of a value": (
        ("settle", *GIVES_BACK),
        lambda redis, hand: state_turns.test_t16_a_value_is_held_by_nobody_who_does_not_run(
            redis, hand, "retries"
        ),
    ),
    "a newcomer waits for nobody": (
        ("settle", "changed = changed or key_in_turn(claim, details[2])", ""),
        state_turns.test_t17_a_newcomer_waits_for_whom_its_commit_would_make_run_again,
    ),
    "who waits for its key keeps a value": (
        ("mark", "  if name == turn.state then\n", "  if turn.state ~= '' then\n"),
        kept.test_an_event_that_gets_a_key_while_it_waits_for_a_value_gives_that_up,
    ),
    "what is superseded isn't done": (
        ("mark", "redis.call('SET', mark, done_mark(", "tostring(mark, done_mark("),
        latest.test_t18_who_waits_ends_when_a_newer_one_gets_in_line,
    ),
    "a newer one that has the turn supersedes nobody": (
        ("mark", "if has_turn and", "if false and"),
        latest.test_t19_who_asks_while_a_newer_one_has_the_turn_ends,
    ),
    "the newest may be superseded before it starts": (
        ("mark", "    if is_next then\n", "    if false then\n"),
        latest.test_t20_those_that_are_gathered_end_and_the_newest_starts_at_once,
    ),
    "any that waits ends": (
        ("mark", "asked.handler ~= '' and name .. '\\n' .. asked.handler or ''", "name"),
        latest.test_t22_another_handlers_event_is_neither_superseded_nor_overtaken,
    ),
    "nobody looks after an older version": (
        ("renew", "    leave_turns(job)\n", ""),
        lambda redis, hand: turns.test_t23_who_was_ended_by_an_older_version_is_found(
            redis, hand, waits=False
        ),
    ),
    "who is twice in a call waits twice": (
        ("mark", "held_claim(each.job, each.token)", "read_claim(each.job)"),
        kept.test_one_that_is_twice_in_a_call_waits_once,
    ),
}


@pytest.mark.parametrize("where", MUTANTS)
async def test_a_race_is_lost_by_a_script_in_which_one_thing_is_changed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """By a wrong answer, or by an event that isn't where it is looked for."""
    change, race = MUTANTS[where]
    place = WHERE.get(change[0], f"worker.pipeline.transitions._{change[0].upper()}")
    monkeypatch.setattr(place, mutant(*change))
    with pytest.raises((AssertionError, ValueError)):
        await race(redis, Hand(redis, has_turns=True))
