"""Whatever is done to events that have turns, in whatever order, the promises hold."""

import asyncio
import os
from hashlib import sha1

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from redis.asyncio import Redis

from shared.queue import keys
from tests.conftest import StartRedis
from tests.integration.books import Books
from tests.integration.by_hand import RETENTION
from tests.integration.jobs import organization_of
from tests.integration.test_transition_properties import (
    FAR,
    GOES_ON,
    IN_ORDER,
    Machine,
    organizations,
    places,
    take_steps,
    workers,
)
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Settled,
    Settlement,
    Transitions,
)
from worker.turns import Turn

EXAMPLES = int(os.environ.get("TRANSITION_EXAMPLES", "0"))
"""As in ``test_transition_properties``."""

EVENTS = ("evt_1", "evt_2", "evt_3", "evt_4", "evt_5", "evt_6")
LATEST = ("evt_3", "evt_4", "evt_5")
"""Of these, which share a handler, only the newest runs."""
READS = {
    "evt_1": ("x",),
    "evt_2": ("x", "y"),
    "evt_3": ("x",),
    "evt_4": ("y",),
    "evt_6": ("y", "x"),
}
WRITES = {"evt_1": ("x",), "evt_2": ("y",), "evt_3": ("x",), "evt_4": ("y",), "evt_6": ("x", "y")}
"""The values of their organization that handlers read and change; they have these in common."""
STARTS = (Mark.FRESH, Mark.OWN, Mark.TAKEN_OVER, Mark.REVIVED)
QUIET = 60_000

event_ids = st.sampled_from(EVENTS)


class TurnMachine(Machine):
    """The same, with keys and values that events have in common.

    Args:
        runner: runs one step.
        redis: a real one, of the machine alone.
        transitions: of workers with keys.
    """

    has_turns = True

    def __init__(self, runner: asyncio.Runner, redis: Redis, transitions: Transitions) -> None:
        super().__init__(runner, redis, transitions)
        self.key_of: dict[str, str | None] = dict.fromkeys(EVENTS, "k")
        self.key_of |= dict.fromkeys(("evt_2", "evt_6"))
        self.quiet = 0
        self.number = 0
        self.read: dict[str, list[tuple[str, str]]] = {}

    @rule(organization=organizations, event_id=event_ids, variant=st.integers(0, 1))
    def deliver(self, organization: str, event_id: str, variant: int) -> None:
        super().deliver(organization, event_id, variant)

    @rule(worker=workers, organization=organizations, kinds=st.permutations(EVENTS))
    def deliver_and_claim(self, worker: str, organization: str, kinds: list[str]) -> None:
        """Several events at once, which nobody has seen before."""
        self.number += 1
        for kind in kinds:
            super().deliver(organization, f"{kind}, number {self.number}", 0)
            self.books = self.look()
        self.claim(worker, 5)
        self.books = self.look()

    @rule(event_id=event_ids, key=st.sampled_from((None, "k", "k", "other")))
    def deploy(self, event_id: str, key: str | None) -> None:
        """A handler gets another key, or none."""
        self.key_of[event_id] = key

    @rule(quiet=st.sampled_from((0, QUIET)))
    def gather(self, quiet: int) -> None:
        """The newest runs once those before it have been gathered for a while, or at once."""
        self.quiet = quiet

    @precondition(lambda self: any(entry.since for entry in self.books.entries.values()))
    @rule(worker=workers)
    def doubt_is_over(self, worker: str) -> None:
        """Whoever asks again and again has done so for a second."""
        asking = [job for job, entry in self.books.entries.items() if entry.since]
        for job in asking:
            self.doubt_since(job, 1)
            if self.books.queue.get(job, 0) > keys.DEFERRED_FROM and not self.books.tokens[job]:
                self.run(self.redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM}))
        self.books = self.look()
        self.claim(worker, 5)
        for claim in self.hands.get(worker, []):
            if claim.job in asking:
                self.marked(claim)

    @rule(
        worker=workers,
        other=workers,
        organization=organizations,
        kinds=st.permutations(EVENTS),
        order=st.permutations(range(10)),
        twice=st.booleans(),
    )
    def handle_together(
        self,
        worker: str,
        other: str,
        organization: str,
        kinds: list[str],
        order: list[int],
        *,
        twice: bool,
    ) -> None:
        """Two workers' handlers run at once, and end in any order; or their events have to wait."""
        self.deliver_and_claim(worker, organization, kinds)
        self.claim(other, 5)
        hands = {worker: self.hands.get(worker, []), other: self.hands.get(other, [])}
        claims = [claim for hand in hands.values() for claim in hand]
        running = self.marked_together(claims + claims[:1] * twice)
        for _ in range(5):
            again = []
            for claim in [running[place] for place in order if place < len(running)]:
                self.books = self.look()
                if self.settled(claim, "done", failed=False) in GOES_ON:
                    again.append(claim)
            self.whatever_happened()
            running = [claim for claim in again if self.marked(claim) in STARTS]

    def marked_together(self, claims: list[Claim]) -> list[Claim]:
        """Ask for several in one call; those whose handlers start."""
        self.books = self.look()
        had, held = self.books.turns, [self.books.is_held(each.job, each.token) for each in claims]
        answers = self.run(self.transitions.mark([self.request(each) for each in claims]))
        running = []
        for claim, answer, was_held in zip(claims, answers, held, strict=True):
            assert isinstance(answer, Marked)
            assert was_held or answer.mark is Mark.LOST
            self.answered(claim, answer, had)
            if answer.mark in STARTS and claim not in running:
                running.append(claim)
        return running

    def doubt_since(self, job: str, since: float) -> None:
        """Let it be then that the event asked first, whatever the clock says."""
        entry = msgspec.structs.replace(self.books.entries[job], since=since)
        raw = msgspec.msgpack.encode(entry)
        self.run(self.redis.execute_command("HSET", keys.TURNS, job, raw))

    @precondition(lambda self: self.books.in_line)
    @rule(place=places)
    def adopt(self, place: int) -> None:
        """A stock arq worker takes one; in order, nobody should have any."""
        jobs = [job for job in self.books.in_line if organization_of(job) != IN_ORDER]
        if jobs:
            job = jobs[place % len(jobs)]
            claim = self.run(self.transitions.adopt(job, lease=3600))
            assert (claim is None) is (job not in self.books.payloads)
            if claim is not None:
                self.given.append(claim)

    # What a worker asks and says

    def request(self, claim: Claim) -> MarkRequest:
        return MarkRequest(claim, self.event_of[claim.job], turn=self.turn_of(claim.job))

    def kind(self, job: str) -> str:
        """Which handler it has."""
        return self.event_of[job].partition(",")[0]

    def turn_of(self, job: str) -> Turn | None:
        """What the event's handler asks for."""
        key = self.key_of[self.kind(job)]
        if key is None:
            return None
        return Turn(key, "newest", self.quiet) if self.kind(job) in LATEST else Turn(key)

    def marked(self, claim: Claim) -> Mark:
        self.books = self.look()
        entry = self.books.entries.get(claim.job)
        if entry is not None and entry.since > 1:
            self.doubt_since(claim.job, FAR)  # which the script takes for now
            self.books = self.look()
        return super().marked(claim)

    def answered(
        self, claim: Claim, answer: Marked, had: dict[str, dict[str, float]] | None = None
    ) -> None:
        job, before, self.books = claim.job, self.books, self.look()
        if had is None:
            had = before.turns
            if answer.mark is not Mark.LOST:
                assert (job in self.books.waits) is (answer.mark is Mark.IN_LINE)
            if answer.mark in {Mark.IN_LINE, Mark.LATER}:
                spent = before.claims[job] + before.grouped.get(job, 0)
                assert self.claims_before(job) == max(0, spent - 1)
        if answer.mark is Mark.LATER:  # when `come_due` says so
            self.run(self.redis.zadd(keys.QUEUE, {job: FAR}, xx=True))
        ended = [self.event(job)] if answer.mark is Mark.SUPERSEDED else []
        if answer.mark is Mark.IN_LINE:
            ended += [(organization_of(job), event_id) for event_id in answer.superseded]
        assert all(event_id.partition(",")[0] in LATEST for _, event_id in ended)
        self.given_up.update(ended)
        if answer.mark in STARTS:
            self.read[claim.token] = self.values_read(job)
            self.comes_first_of_its_key(job, had)

    def values_read(self, job: str) -> list[tuple[str, str]]:
        """What a handler reads, with its digest."""
        found = []
        for name in READS.get(self.kind(job), ()):
            raw = self.books.values.get(keys.state(organization_of(job), name))
            digest = sha1(raw.encode(), usedforsecurity=False).hexdigest() if raw else ""
            found.append((name, digest))
        return found

    def comes_first_of_its_key(self, job: str, had: dict[str, dict[str, float]]) -> None:
        """Who is given the turn of its key has nobody before it who has asked, or is about to."""
        key = self.key_of[self.kind(job)]
        if key is None:
            return
        name = f"{keys.TURN}{organization_of(job)}:key:{key}"
        order = self.books.values[keys.ACCEPTED][job]
        assert self.books.turns[name][job] == 0
        if had.get(name, {}).get(job) != 0:
            line = self.books.turns[name]
            assert all(other == job or line[other] >= order for other in line)
            for other, its_order in self.books.undecided.items():
                assert organization_of(other) != organization_of(job) or its_order >= order

    def settlement(self, claim: Claim, verb: str, *, failed: bool) -> Settlement:
        settlement = super().settlement(claim, verb, failed=failed)
        if verb != "done":
            return settlement
        event_id = self.event_of[claim.job]
        names = (f"applied/{event_id}", *WRITES.get(self.kind(claim.job), ()))
        operations = [("increment", name, -1, 1) for name in names]
        reads = self.read.get(claim.token, [])
        return Settlement(claim, verb, (RETENTION, reads, operations, True))

    def settled(self, claim: Claim, verb: str, *, failed: bool) -> Settled:
        spent = self.claims_before(claim.job)
        answer = super().settled(claim, verb, failed=failed)
        if answer is Settled.IN_LINE:
            after = self.look()
            now_spent = after.claims[claim.job] + after.grouped.get(claim.job, 0)
            assert now_spent == max(0, spent - 1)
        if answer is Settled.DONE and not self.has_a_value(claim.job):
            for name, _ in self.read.get(claim.token, []):
                line = self.books.turns.get(self.turn_of_value(claim.job, name), {"": 1})
                assert 0 not in line.values(), "it came before one that is about to write"
        return answer

    def has_a_value(self, job: str) -> bool:
        """Whether it has the turn of a value."""
        return job in self.books.entries and self.books.entries[job].state != ""

    def turn_of_value(self, job: str, name: str) -> str:
        """The full name of a value's turn."""
        return f"{keys.TURN}{organization_of(job)}:state:{name}"

    @precondition(lambda self: self.books.records)
    @rule(place=places)
    def replay(self, place: int) -> None:
        records = {job: self.books.values[keys.dead_letter(job)] for job in self.books.records}
        there = self.books.accepted
        super().replay(place)
        for job in self.look().accepted - there:
            orders = self.look().values[keys.ACCEPTED]
            record = records[job]
            assert orders[job] == float(record.get("order", record["received_at"]))

    # What holds

    def comes_first(self, job: str) -> None:
        """One at a time means in order of acceptance, but for whoever waits, or asks again soon."""
        waits = self.books.waits
        if job not in self.order:
            return
        for other in self.books.accepted - waits:
            deferred = self.books.queue.get(other, 0) > keys.DEFERRED_FROM
            if organization_of(other) == IN_ORDER and other in self.order and not deferred:
                assert self.order[other] >= self.order[job]

    @invariant()
    def whatever_happened(self) -> None:
        before = self.books
        super().whatever_happened()
        for name, line in before.turns.items():
            for job, order in line.items():
                if order == 0 and ":key:" in name:
                    self.keeps_its_turn(job, name, before)

    def keeps_its_turn(self, job: str, name: str, before: Books) -> None:
        """Who has the turn of its key has it to its end, or until a deploy gives it another key."""
        orders = [books.values.get(keys.ACCEPTED, {}).get(job) for books in (before, self.books)]
        if orders[0] == orders[1] and name.endswith(f":key:{self.key_of[self.kind(job)]}"):
            assert self.books.turns[name][job] == 0

    @invariant()
    def nobody_had_to_be_found(self) -> None:
        """No sign of life has found a turn that had to be mended."""
        assert "turns_mended" not in self.books.values.get(keys.COUNTERS, {})


def test_the_promises_of_turns_hold_in_any_order_of_steps(fresh_redis_server: StartRedis) -> None:
    """The same steps each time; TRANSITION_EXAMPLES=5000 takes so many others."""
    server = fresh_redis_server(appendfsync=None)
    take_steps(server.url, TurnMachine, examples=EXAMPLES or 60, random=EXAMPLES > 0)
