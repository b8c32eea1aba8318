"""Whatever is done to events that have turns, in whatever order, the promises hold."""

import asyncio
import os
from hashlib import sha1

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.job import organization_of
from tests.conftest import StartRedis
from tests.integration.by_hand import RETENTION
from tests.integration.test_transition_properties import (
    FAR,
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
    Settlement,
    Transitions,
)
from worker.turns import Turn

EXAMPLES = int(os.environ.get("TRANSITION_EXAMPLES", "0"))
"""As in ``test_transition_properties``."""

EVENTS = ("evt_1", "evt_2", "evt_3", "evt_4", "evt_5", "evt_6")
LATEST = ("evt_3", "evt_4", "evt_5")
"""Of these, which share a handler, only the newest runs."""
READERS = ("evt_2", "evt_3", "evt_6")
WRITERS = ("evt_2", "evt_4", "evt_6")
"""Events whose handler reads, or changes, a value of the organization that they have in common."""
VALUE = "x"
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
        self.key_of: dict[str, str | None] = dict.fromkeys(EVENTS[:5], "k") | {"evt_6": None}
        self.quiet = 0
        self.read: dict[str, str] = {}

    @rule(organization=organizations, event_id=event_ids, variant=st.integers(0, 1))
    def deliver(self, organization: str, event_id: str, variant: int) -> None:
        super().deliver(organization, event_id, variant)

    @rule(worker=workers, organization=organizations)
    def deliver_and_claim(self, worker: str, organization: str) -> None:
        """Several events of a key at once."""
        for event_id in EVENTS:
            super().deliver(organization, event_id, 0)
            self.books = self.look()
        self.claim(worker, 5)

    @rule(event_id=event_ids, key=st.sampled_from((None, "k", "k", "other")))
    def deploy(self, event_id: str, key: str | None) -> None:
        """A handler gets another key, or none."""
        self.key_of[event_id] = key

    @rule(quiet=st.sampled_from((0, QUIET)))
    def gather(self, quiet: int) -> None:
        """The newest runs once those before it have been gathered for a while, or at once."""
        self.quiet = quiet

    @precondition(lambda self: any(entry.since for entry in self.books.entries.values()))
    @rule()
    def doubt_is_over(self) -> None:
        """Whoever asks again and again has done so for a second."""
        for job, entry in self.books.entries.items():
            if entry.since:
                self.doubt_since(job, 1)

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
        event_id = self.event_of[claim.job]
        return MarkRequest(claim, event_id, turn=self.turn_of(event_id))

    def turn_of(self, event_id: str) -> Turn | None:
        """What the event's handler asks for."""
        key = self.key_of[event_id]
        if key is None:
            return None
        return Turn(key, "newest", self.quiet) if event_id in LATEST else Turn(key)

    def marked(self, claim: Claim) -> Mark:
        self.books = self.look()
        entry = self.books.entries.get(claim.job)
        if entry is not None and entry.since > 1:
            self.doubt_since(claim.job, FAR)  # which the script takes for now
            self.books = self.look()
        return super().marked(claim)

    def answered(self, claim: Claim, answer: Marked) -> None:
        organization = organization_of(claim.job)
        had = self.books.turns
        self.books = self.look()
        if answer.mark is not Mark.LOST:
            assert (claim.job in self.books.waits) is (answer.mark is Mark.IN_LINE)
        if answer.mark is Mark.LATER:  # when `come_due` says so
            self.run(self.redis.zadd(keys.QUEUE, {claim.job: FAR}))
        if answer.mark is Mark.SUPERSEDED:
            self.given_up.add(self.event(claim.job))
        if answer.mark is Mark.IN_LINE:
            self.given_up.update((organization, event_id) for event_id in answer.superseded)
        if answer.mark in STARTS:
            self.read[claim.token] = self.value(organization)
            self.comes_first_of_its_key(claim.job, had)

    def value(self, organization: str) -> str:
        """The digest of what a handler reads."""
        raw = self.books.values.get(keys.state(organization, VALUE))
        return sha1(raw.encode(), usedforsecurity=False).hexdigest() if raw else ""

    def comes_first_of_its_key(self, job: str, had: dict[str, dict[str, float]]) -> None:
        """Who is given the turn of its key has nobody before it who has asked, or is about to."""
        key = self.key_of[self.event_of[job]]
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
        reads, operations = [], [("increment", f"applied/{event_id}", -1, 1)]
        if event_id in READERS and claim.token in self.read:
            reads.append((VALUE, self.read[claim.token]))
        if event_id in WRITERS:
            operations.append(("increment", VALUE, -1, 1))
        return Settlement(claim, verb, (RETENTION, reads, operations, True))

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
    def nobody_had_to_be_found(self) -> None:
        """No sign of life has found a turn that had to be mended."""
        assert "turns_mended" not in self.books.values.get(keys.COUNTERS, {})


def test_the_promises_of_turns_hold_in_any_order_of_steps(fresh_redis_server: StartRedis) -> None:
    """The same steps each time; TRANSITION_EXAMPLES=5000 takes so many others."""
    server = fresh_redis_server(appendfsync=None)
    take_steps(server.url, TurnMachine, examples=EXAMPLES or 60, random=EXAMPLES > 0)
