"""Whatever is done to the transitions in whatever order, the promises hold."""

import asyncio
import math
import os
import secrets
from collections.abc import Awaitable
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from redis.asyncio import Redis

from shared.queue import keys, scripts
from shared.queue.job import job_id
from shared.queue.partition import Partition
from shared.queue.writer import Accepted, BacklogLimits, Queue
from shared.redis.durability import Durability, Mode
from tests.conftest import StartRedis
from tests.integration.books import Books
from tests.integration.by_hand import LATER, RETENTION
from tests.integration.jobs import RECEIVED_AT, delivery, organization_of
from tests.integration.stepping import StepRunner, take_random_steps
from tests.integration.workplace import Lines
from worker.grouping import cause_of
from worker.operate import revival, upkeep
from worker.operate.organizations import pause, resume
from worker.pipeline.policy import Breaker
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Profile,
    Settled,
    Settlement,
    Transitions,
)

T = TypeVar("T")

EXAMPLES = int(os.environ.get("TRANSITION_EXAMPLES", "0"))
"""How many runs of random steps; 0 are the same few each time."""

IN_ORDER = "org_one"
"""Its cap is 1 from the beginning to the end, and its weight makes for fractions."""
WEIGHT = 4.0
ORGANIZATIONS = ("org_a", "org_b", IN_ORDER)
TRACEBACK = "Traceback (most recent call last):\nKeyError: 'as told'"
VERBS = ("done", "retry", "block", "dead", "duplicate", "hold", "release", "abandon", "throttle")
"""Those of the script; to block is to retry, too."""
HOLDS = (Mark.HELD, Mark.HELD_CONFLICTING)
HELD_NO_MORE = (Mark.LOST, Mark.IN_LINE, Mark.LATER, Mark.SUPERSEDED)
GOES_ON = (Settled.AGAIN, Settled.CONFLICT)
LEAVES_BY = {
    Mark.DUPLICATE: "duplicate",
    Mark.CONFLICTING: "duplicate",
    **dict.fromkeys(HOLDS, "hold"),
}
BREAKER = Breaker(failures=3, cool_off=LATER)
FAR = 2**62
SMALLEST = 1e-200
"""Below the system's time, places shrink each time: hundreds of times are no matter of years."""
ROSTER = b'{"organizations":"it alone"}'
RENUMBER = scripts.load("renumber")

organizations = st.sampled_from(ORGANIZATIONS)
workers = st.sampled_from(("w1", "w2", "w3"))
places = st.integers(0, 30)
event_ids = st.sampled_from(("evt_1", "evt_2"))
variants_in_turn = st.lists(st.integers(0, 1), min_size=3, max_size=4)


class Machine(RuleBasedStateMachine):
    """Sellfern, workers, operators and crashes, in any order.

    Args:
        runner: runs one step.
        redis: a real one, of the machine alone.
    """

    has_turns = False

    def __init__(self, runner: asyncio.Runner, redis: Redis, transitions: Transitions) -> None:
        super().__init__()
        self.runner = runner
        self.redis = redis
        self.transitions = transitions
        self.queue = Queue(
            Partition.only(redis), Durability(Mode.MEMORY), BacklogLimits()
        )  # it keeps a connection
        self.books = Books({})
        self.given: list[Claim] = []
        self.hands: dict[str, list[Claim]] = {}
        self.lone: dict[str, Claim] = {}
        self.event_of: dict[str, str] = {}
        self.accepted_events: set[tuple[str, str]] = set()
        self.given_up: set[tuple[str, str]] = set()
        self.robbed: set[str] = set()
        self.over: set[str] = set()
        self.order: dict[str, int] = {}
        self.accepted_so_far = 0

    def run(self, step: Awaitable[T]) -> T:
        """Take one step; what it left behind is looked at in ``whatever_happened``."""

        async def taken() -> T:
            return await step

        return self.runner.run(taken())

    def look(self) -> Books:
        """Everything that Redis holds."""
        return self.run(Books.read(self.redis))

    def event(self, job: str) -> tuple[str, str]:
        """What makes two jobs the same event."""
        return organization_of(job), self.event_of[job]

    # What happens

    @initialize()
    def begin(self) -> None:
        self.run(self.redis.flushall())
        self.run(self.transitions.publish([Profile(IN_ORDER, 1, WEIGHT), Profile("org_a", 2)]))

    @rule(organization=organizations, event_id=event_ids, variant=st.integers(0, 1))
    def deliver(self, organization: str, event_id: str, variant: int) -> None:
        weight = WEIGHT if organization == IN_ORDER else 1.0
        sent = delivery(f"{event_id} {variant}".encode(), organization, weight=weight)
        job = job_id(organization, sent.body)
        known = job in self.books.payloads
        (answer,) = self.run(self.queue.enqueue([sent]))
        assert answer is (Accepted.KNOWN if known else Accepted.NEW)
        self.event_of[job] = event_id
        self.accepted_events.add(self.event(job))
        if job not in self.books.accepted:
            self.accepted_so_far += 1
            self.order[job] = self.accepted_so_far

    @rule(
        worker=workers,
        most=st.integers(0, 5),
        slots=st.sampled_from((1, 100, 1_000_000)),
        tainted=st.booleans(),
        waits_for_none=st.booleans(),
    )
    def claim(
        self,
        worker: str,
        most: int,
        slots: int = 1,
        *,
        tainted: bool = False,
        waits_for_none: bool = False,
    ) -> None:
        self.put_down(worker)
        holding = len(self.hands.get(worker, []))
        lone = self.lone.get(worker)
        answer = self.run(
            self.transitions.claim(
                worker,
                most=most,
                lease=3600,
                holding=holding,
                slots=slots,
                tainted=tainted,
                waits_for_none=waits_for_none,
                no_more_alone=lone,
            )
        )
        claimed = answer.jobs
        after = self.look()
        assert not (answer.quiet and (waits_for_none or answer.suspects))
        assert not holding or not answer.suspects
        if answer.suspects:
            self.are_few_enough([claim for claim, _ in claimed], slots)
            if len(claimed) == 1:
                self.lone[worker] = claimed[0][0]
        alone = {claim.job for claim, _ in claimed} & after.alone
        assert bool(alone) is (answer.suspects and len(claimed) == 1 and not tainted)
        assert len(claimed) <= most
        for claim, _ in claimed:
            organization = organization_of(claim.job)
            before = self.books.tokens.get(claim.job)
            assert not before or self.books.queue[claim.job] == keys.DEFERRED_FROM
            assert after.is_held(claim.job, claim.token)
            assert after.running(organization) <= after.cap(organization)
            assert keys.PAUSE + organization not in after.values.get(keys.ORGANIZATIONS, {})
            assert (claim.claims >= 2) is answer.suspects
            assert claim.claims == self.claims_before(claim.job)
            assert claim.alone is (claim.job in self.books.alone)
            if organization == IN_ORDER:
                self.comes_first(claim.job)
            self.given.append(claim)
            self.hands.setdefault(worker, []).append(claim)

    def are_few_enough(self, group: list[Claim], slots: int) -> None:
        """The more claims of one have ended without an outcome, the fewer they are."""
        for claim in group:
            size = 1 if claim.alone else max(1, math.ceil(slots / 8 ** (claim.claims - 1)))
            assert len(group) <= size

    def claims_before(self, job: str) -> int:
        """The claims without an outcome, whoever ran beside."""
        return self.books.claims.get(job, 0) + self.books.grouped.get(job, 0)

    def put_down(self, worker: str) -> None:
        """A worker knows what it has settled; what it has lost, it hears when it renews."""
        held = self.hands.get(worker, [])
        self.hands[worker] = [each for each in held if each.token not in self.over]

    @rule(worker=workers, most=st.integers(1, 5), early=st.booleans())
    def lose_the_answer(self, worker: str, most: int, early: bool) -> None:  # noqa: FBT001  # drawn
        """A claim that nobody hears of makes no suspects, whenever Redis has it."""
        base = secrets.token_hex(8)
        steps = [
            self.transitions.claim(worker, most=most, lease=3600, holding=0, slots=8, base=base),
            self.transitions.disown(base, lease=3600),
        ]
        for step in reversed(steps) if early else steps:
            self.run(step)
        taken = [job for job, token in self.look().tokens.items() if token.startswith(base)]
        assert not (taken and early)
        before = {job: self.claims_before(job) for job in taken}
        for job in taken:
            self.run(self.redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM}))
        self.run(self.transitions.claim(worker, most=0, lease=3600, holding=0))
        self.books = self.look()
        assert before == {job: self.claims_before(job) for job in taken}
        assert not any(self.books.tokens[job] for job in taken)

    def comes_first(self, job: str) -> None:
        """One at a time means in order of acceptance; a replay has no part in that."""
        if job not in self.order:
            return
        for other in self.books.accepted:
            if organization_of(other) == IN_ORDER and other in self.order:
                assert self.order[other] >= self.order[job]

    @rule(worker=workers, noticed=st.booleans())
    def crash(self, worker: str, noticed: bool) -> None:  # noqa: FBT001  # drawn
        """A worker goes away; its leases are over at once, or when ``come_due`` says so."""
        held = self.hands.pop(worker, [])
        self.lone.pop(worker, None)
        jobs = [each.job for each in held if self.books.is_held(each.job, each.token)]
        if noticed and jobs:
            self.run(self.redis.zadd(keys.QUEUE, dict.fromkeys(jobs, keys.DEFERRED_FROM)))

    @rule(worker=workers, times=st.integers(2, 3), slots=st.sampled_from((100, 1_000_000)))
    def keep_crashing(self, worker: str, times: int, slots: int) -> None:
        """What suspects come from: some events, and a worker that goes away with them again."""
        for event_id in ("evt_1", "evt_2"):
            self.deliver("org_b", event_id, 0)
            self.books = self.look()
        for _ in range(times):
            self.crash(worker, noticed=True)
            self.books = self.look()
            self.claim(worker, 5, slots)
            self.books = self.look()
        self.crash(worker, noticed=True)

    @precondition(lambda self: any(s >= keys.DEFERRED_FROM for s in self.books.queue.values()))
    @rule(place=places)
    def come_due(self, place: int) -> None:
        """A lease, or a delay, is over."""
        jobs = [job for job, score in self.books.queue.items() if score > keys.DEFERRED_FROM]
        if jobs:
            self.run(self.redis.zadd(keys.QUEUE, {jobs[place % len(jobs)]: keys.DEFERRED_FROM}))

    @rule(worker=workers, slots=st.integers(0, 6))
    def renew(self, worker: str, slots: int) -> None:
        held = self.hands.get(worker, [])
        lost = self.renewed(worker, held, slots)
        self.hands[worker] = [each for each in held if each not in lost]

    def renewed(self, worker: str, claims: list[Claim], slots: int) -> list[Claim]:
        lost = self.run(
            self.transitions.renew(worker, claims, description=ROSTER, slots=slots, lease=3600)
        ).lost
        assert lost == [each for each in claims if not self.books.is_held(each.job, each.token)]
        return lost

    @rule(worker=workers)
    def leave(self, worker: str) -> None:
        self.run(self.transitions.leave(worker))

    @precondition(lambda self: self.given)
    @rule(place=places)
    def mark(self, place: int) -> None:
        self.marked(self.pick(place))

    def pick(self, place: int) -> Claim:
        """A claim that somebody has, or had; mostly one of the latest."""
        return self.given[-1 - place % len(self.given)]

    def marked(self, claim: Claim) -> Mark:
        held = self.books.is_held(claim.job, claim.token)
        (answer,) = self.run(self.transitions.mark([self.request(claim)]))
        assert isinstance(answer, Marked)
        assert (answer.mark is Mark.LOST) is not held
        self.unless_held(held)
        if answer.mark in HOLDS:
            self.is_one_too_many(claim.job)
        self.answered(claim, answer)
        return answer.mark

    def request(self, claim: Claim) -> MarkRequest:
        """What is asked at its mark."""
        return MarkRequest(claim, self.event_of[claim.job])

    def answered(self, claim: Claim, answer: Marked) -> None:
        """For machines that ask for more than the mark."""

    def is_one_too_many(self, job: str) -> None:
        """Its event's letter stands, nobody has replayed it, and it has been revived before."""
        event = self.event(job)
        state, _, holder = self.books.marks[event].partition(":")
        assert state == "dead"
        assert holder in self.books.records
        assert self.books.by_hand.isdisjoint({holder, job})
        assert self.books.revivals[event] > 0

    def unless_held(self, held: bool) -> None:  # noqa: FBT001  # a fact, not an option
        """The one rule: without the token nothing at all has changed."""
        if not held:
            assert self.look().values == self.books.values

    @precondition(lambda self: self.given)
    @rule(
        place=places,
        verb=st.sampled_from(VERBS),
        failed=st.booleans(),
    )
    def settle(self, place: int, verb: str, failed: bool) -> None:  # noqa: FBT001  # drawn
        self.settled(self.pick(place), verb, failed=failed)

    @precondition(lambda self: self.late())
    @rule(place=places)
    def come_too_late(self, place: int) -> None:
        """Whatever somebody says of a job that another has, or nobody, is said in vain."""
        claim = self.late()[place % len(self.late())]
        answers = self.run(
            self.transitions.settle([self.settlement(claim, verb, failed=True) for verb in VERBS])
        )
        assert answers == [Settled.LOST] * len(VERBS)
        assert self.marked(claim) is Mark.LOST
        scores = self.books.queue
        self.renewed("w1", [claim], 1)
        if claim.job in scores:  # one that is parked may be let go on by the slots of that worker
            assert self.look().queue.get(claim.job) == scores[claim.job]

    def late(self) -> list[Claim]:
        """The claims that hold no more, of jobs that are unfinished."""
        return [
            each
            for each in self.given
            if each.job in self.books.accepted and not self.books.is_held(each.job, each.token)
        ]

    @precondition(lambda self: self.given)
    @rule(some=st.lists(places, min_size=2, max_size=4))
    def settle_many(self, some: list[int]) -> None:
        """A batch, of which each is by itself."""
        claims = [self.pick(place) for place in some]
        held = [self.books.is_held(each.job, each.token) for each in claims]
        settlements = [
            self.settlement(each, VERBS[place % len(VERBS)], failed=False)
            for each, place in zip(claims, some, strict=True)
        ]
        answers = self.run(self.transitions.settle(settlements))
        for answer, was_held in zip(answers, held, strict=True):
            assert was_held or answer is Settled.LOST
        self.over.update(
            claim.token
            for claim, answer in zip(claims, answers, strict=True)
            if answer not in GOES_ON
        )

    @precondition(lambda self: self.given)
    @rule(place=places)
    def finish(self, place: int) -> None:
        """Do with a claim what the pipeline does."""
        self.finished(self.pick(place))

    def finished(self, claim: Claim) -> None:
        for _ in range(3):
            mark = self.marked(claim)
            if mark in HELD_NO_MORE:
                return
            if self.settled(claim, LEAVES_BY.get(mark, "done"), failed=False) not in GOES_ON:
                return
        raise AssertionError("its mark keeps changing hands")

    @precondition(lambda self: self.given)
    @rule(place=places)
    def bury(self, place: int) -> None:
        """Give up an event, once its mark is known."""
        claim = self.pick(place)
        if self.marked(claim) not in HELD_NO_MORE:
            self.settled(claim, "dead", failed=False)

    @rule(worker=workers, event_id=event_ids, variants=variants_in_turn)
    def keep_dying(self, worker: str, event_id: str, variants: list[int]) -> None:
        """What is held comes of this: an event that dies, and is delivered again at once."""
        for variant in variants:
            for claim in self.hands.get(worker, []):
                if self.event(claim.job) == ("org_b", event_id):
                    mark = self.marked(claim)
                    if mark not in HELD_NO_MORE:
                        self.settled(claim, LEAVES_BY.get(mark, "dead"), failed=False)
                    self.books = self.look()
            self.deliver("org_b", event_id, variant)
            self.books = self.look()
            self.claim(worker, 5)
            self.books = self.look()

    def settlement(self, claim: Claim, verb: str, *, failed: bool) -> Settlement:
        breaker = BREAKER.packed() if failed else None
        operation = ("increment", f"applied/{self.event_of[claim.job]}", -1, 1)
        details = {
            "done": (RETENTION, (), (operation,), True),
            "retry": (LATER, breaker, False, ("KeyError: 'as told'", TRACEBACK)),
            "block": (LATER, breaker, True),
            "throttle": (LATER, "429"),
        }
        if verb == "dead":
            # Of one cause: those of an event that have failed.
            reason, error = (
                ("exhausted", f"KeyError: {claim.token}") if failed else ("rejected", "")
            )
            error = error or f"no such thing as {self.event_of[claim.job]}, of its own"
            kind = f"order.{self.event_of[claim.job]}"
            cause = cause_of(reason, kind, error, TRACEBACK)
            told = (reason, error, kind, "acme", RECEIVED_AT, failed, breaker, TRACEBACK)
            return Settlement(claim, verb, (*told, None, cause))
        return Settlement(claim, verb.replace("block", "retry"), details.get(verb, ()))

    def settled(self, claim: Claim, verb: str, *, failed: bool) -> Settled:
        held = self.books.is_held(claim.job, claim.token)
        (answer,) = self.run(self.transitions.settle([self.settlement(claim, verb, failed=failed)]))
        assert isinstance(answer, Settled), answer
        assert (answer is Settled.LOST) is not held
        self.unless_held(held)
        if answer not in GOES_ON:
            self.over.add(claim.token)
        return answer

    # What operators do

    @rule(organization=organizations)
    def pause(self, organization: str) -> None:
        self.run(pause(Partition.only(self.redis), organization, "a test"))

    @rule(organization=organizations)
    def resume(self, organization: str) -> None:
        self.run(resume(Partition.only(self.redis), organization))

    @rule(
        organization=st.sampled_from(("org_a", "org_b")),
        cap=st.sampled_from((None, 1, 2, 3)),
        weight=st.sampled_from((0.5, 1.0, 4.0)),
    )
    def publish(self, organization: str, cap: int | None, weight: float) -> None:
        self.run(self.transitions.publish([Profile(organization, cap, weight)]))

    # What upkeep does

    @rule()
    def forget(self) -> None:
        self.run(upkeep.forget(Partition.only(self.redis)))
        flows = self.look().virtual_times
        gone = self.books.virtual_times.keys() - flows.keys()
        waiting = set(map(organization_of, self.books.accepted))
        assert waiting.isdisjoint(name.rpartition(":")[2] for name in gone)
        assert "*" not in gone

    @rule()
    def leave_the_file(self) -> None:
        """All but one are in no endpoints file any more."""
        before = self.books.values.get(keys.ORGANIZATIONS, {})
        listed = upkeep.Listed({IN_ORDER}, "it alone")
        self.run(upkeep.unlist(Partition.only(self.redis), lambda: listed, log=Lines().log))
        after = self.look().values.get(keys.ORGANIZATIONS, {})
        busy = set(map(organization_of, self.books.accepted | self.books.records.keys()))
        for name, raw in before.items():
            kind, _, organization = name.rpartition(":")
            is_state = bool(kind) and not raw.startswith("closed")
            if organization in {IN_ORDER, *busy} or is_state or self.books.must_wait(organization):
                assert after[name] == raw

    @precondition(lambda self: min(self.books.queue.values(), default=1) > SMALLEST)
    @rule()
    def renumber(self) -> None:
        """Virtual times begin anew; everybody keeps the place among the others."""
        before = self.books
        assert self.run(Partition.only(self.redis).run(RENUMBER, 0, FAR)) == b"renumbered"
        self.books = self.look()
        assert self.books.in_line == before.in_line
        for name, parked in before.values.items():
            if name.startswith(keys.PARKED):
                assert list(self.books.values[name]) == list(parked)
        system = self.books.virtual_times.get("*", 0)
        assert system <= 2
        for job, score in self.books.queue.items():
            old = before.queue[job] - before.virtual_times.get("*", 0)
            if score < keys.DEFERRED_FROM and old > 1:
                assert math.isclose(score - system, old)
        self.books.check(self.robbed)

    @precondition(lambda self: keys.BREAKERS in self.books.values)
    @rule()
    def cool_off(self) -> None:
        """The time of the breakers that are open is over."""
        for organization in self.books.values[keys.BREAKERS]:
            self.run(self.redis.zadd(keys.BREAKERS, {organization: 1}))

    @precondition(lambda self: keys.DUE in self.books.values)
    @rule()
    def hold_ends(self) -> None:
        """The time is over for which organizations were throttled."""
        for hold in self.books.values[keys.DUE]:
            self.run(self.redis.zadd(keys.DUE, {hold: 1}))

    @precondition(lambda self: self.books.records)
    @rule(place=places)
    def replay(self, place: int) -> None:
        job = sorted(self.books.records)[place % len(self.books.records)]
        known = job in self.books.payloads
        answer = self.run(revival.replay_one(Partition.only(self.redis), job))
        if not self.books.values[keys.dead_letter(job)]["payload"]:  # it had been robbed before
            assert answer == "absent"
            return
        assert answer == ("known" if known else "queued")
        assert job in self.look().by_hand
        if not known:
            self.order.pop(job, None)

    @precondition(lambda self: self.books.revivals)
    @rule(number=st.sampled_from((0, 18)))
    def a_minute_passes(self, number: int) -> None:
        """The next redelivery may revive its event, unless that has been done 20 times."""
        for (organization, event_id), revived in self.books.revivals.items():
            text = f"{min(20, revived + number)}:0"
            self.run(self.redis.set(keys.revivals(organization, event_id), text, xx=True))

    @precondition(lambda self: self.books.records)
    @rule(place=places)
    def discard(self, place: int) -> None:
        job = sorted(self.books.records)[place % len(self.books.records)]
        assert (
            self.run(revival.discard(Partition.only(self.redis), job, retention=RETENTION))
            == "discarded"
        )
        self.given_up.add(self.event(job))
        if self.books.records[job]:  # a late redelivery must not bring it back
            # What else it tells depends on whether a worker lives that reads no more.
            assert self.look().marks[self.event(job)].split()[0] == f"done:{job}"

    @precondition(lambda self: self.books.records)
    @rule(organization=organizations)
    def expire(self, organization: str) -> None:
        """Dead letters that nobody acted on go; one that waits for its replay stays."""
        gone = [
            job
            for job in self.books.records.keys() - self.books.payloads
            if organization_of(job) == organization
        ]
        assert self.run(
            revival.expire(Partition.only(self.redis), organization, died_before=FAR)
        ) == len(gone)
        self.given_up.update(map(self.event, gone))

    @precondition(lambda self: self.books.payloads)
    @rule(place=places)
    def rob(self, place: int) -> None:
        """Somebody deletes a payload by hand, which costs that event and no other."""
        jobs = sorted(job for job in self.books.payloads if organization_of(job) != IN_ORDER)
        if jobs:
            job = jobs[place % len(jobs)]
            self.run(self.redis.delete(keys.payload(job)))
            self.robbed.add(job)
            self.given_up.add(self.event(job))

    # What holds

    @invariant()
    def whatever_happened(self) -> None:
        before, self.books = self.books, self.look()
        self.books.check(self.robbed)
        system = self.books.virtual_times.get("*", 0)
        for name, virtual in before.virtual_times.items():
            # One that is gone says what the system's says; of an order, that nobody is there.
            if not name.startswith("order:"):
                assert self.books.virtual_times.get(name, system) >= virtual
        self.orders_rise()
        self.nothing_is_gone()
        self.who_is_alone_is_alone()

    def orders_rise(self) -> None:
        """Strictly, by acceptance, of those of one organization; a replay has no part in that."""
        orders = self.books.values.get(keys.ACCEPTED, {})
        last: dict[str, float] = {}
        for job in sorted(orders.keys() & self.order.keys(), key=self.order.__getitem__):
            assert orders[job] > last.get(organization_of(job), 0)
            last[organization_of(job)] = orders[job]

    def who_is_alone_is_alone(self) -> None:
        """Nothing runs beside a job of which Redis says so."""
        for hand in self.hands.values():
            held = [each.job for each in hand if self.books.is_held(each.job, each.token)]
            assert len(held) <= 1 or self.books.alone.isdisjoint(held)

    def nothing_is_gone(self) -> None:
        """Each event that was accepted is unfinished, done, or a dead letter."""
        there = {self.event(job) for job in self.books.accepted | self.books.records.keys()}
        done = {event for event, mark in self.books.marks.items() if mark.startswith("done:")}
        assert self.accepted_events <= there | done | self.given_up
        assert done <= self.books.applied.keys() | self.given_up

    def teardown(self) -> None:
        """Once everything is let go on, all of it comes to an end."""
        for organization in ORGANIZATIONS:
            self.run(resume(Partition.only(self.redis), organization, starts=1e6))
        self.hands.clear()
        self.lone.clear()
        for _ in range(200):
            self.whatever_happened()
            if not self.books.accepted:
                break
            queue = self.books.queue
            if late := [job for job, score in queue.items() if score > keys.DEFERRED_FROM]:
                self.run(self.redis.zadd(keys.QUEUE, dict.fromkeys(late, keys.DEFERRED_FROM)))
                self.whatever_happened()
            self.claim("w1", 5)
            self.whatever_happened()
            for claim in self.hands.pop("w1", []):
                self.finished(claim)
        names = (keys.QUEUE, keys.CLAIMS, keys.ACCEPTED, keys.WAITING, keys.RUNNING)
        in_turns = (keys.TURNS, keys.IN_TURN, keys.LATEST)
        assert not [name for name in names + in_turns if name in self.books.values]
        assert not self.books.payloads
        assert not self.books.turns
        assert not self.books.undecided


def take_steps(
    url: str,
    machine: type[Machine] = Machine,
    *,
    examples: int,
    random: bool = False,
    shrink: bool = True,
) -> None:
    """Take random steps; raises what is wrong after the fewest of them.

    Args:
        url: of a Redis, which is emptied.
        machine: which steps there are.
        examples: how many runs.
        random: whether they differ from those of the last time.
        shrink: whether to look for the fewest steps, which takes a minute.
    """
    with StepRunner() as runner:
        redis = Redis.from_url(url)
        # One for all: each keeps some connections.
        transitions = Transitions(Partition.only(redis), has_turns=machine.has_turns)

        class There(machine):  # type: ignore[valid-type]  # a class that is given
            def __init__(self) -> None:
                super().__init__(runner, redis, transitions)

        try:
            take_random_steps(There, steps=60, examples=examples, random=random, shrink=shrink)
        finally:
            runner.run(redis.aclose())


def test_the_promises_hold_in_any_order_of_steps(fresh_redis_server: StartRedis) -> None:
    """The same steps each time; TRANSITION_EXAMPLES=5000 takes so many others."""
    server = fresh_redis_server(appendfsync=None)
    take_steps(server.url, examples=EXAMPLES or 60, random=EXAMPLES > 0)


@pytest.mark.usefixtures("in_a_partition")
def test_they_hold_in_a_partition(fresh_redis_server: StartRedis) -> None:
    server = fresh_redis_server(appendfsync=None)
    take_steps(server.url, examples=EXAMPLES or 20, random=EXAMPLES > 0)
