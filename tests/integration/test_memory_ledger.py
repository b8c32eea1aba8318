"""The ledger that tests of handlers use and the scripts are two of the same: driven alike."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, Final, TypeVar

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

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.job import job_id
from shared.queue.partition import Partition
from tests.integration.books import Books
from tests.integration.jobs import RECEIVED_AT, delivery, enqueue
from tests.integration.stepping import StepRunner, take_random_steps
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
    Transitions,
)
from worker.testing import ledger as ledgers
from worker.testing.ledger import MemoryLedger
from worker.value import Value

T = TypeVar("T")

EXAMPLES: Final = int(os.environ.get("LEDGER_EXAMPLES", "0"))
"""How many runs of random steps; 0 are the same few each time."""

LIFE: Final = 3_600_000
RETENTION: Final = 7 * 86_400_000
PAST: Final = 1
FAR: Final = 2**53
ORGANIZATIONS: Final = ("org_a", "org_b")
NAMES: Final = ("m", "n")
VERBS: Final = ("retry", "dead", "duplicate", "hold", "release", "abandon", "throttle", "wait")
LEAVES_BY: Final = {
    Mark.DUPLICATE: "duplicate",
    Mark.CONFLICTING: "duplicate",
    Mark.HELD: "hold",
    Mark.HELD_CONFLICTING: "hold",
}

# Two organizations of two events each, so that most steps meet what others have left.
_organizations = st.sampled_from(ORGANIZATIONS)
_event_ids = st.sampled_from(("evt_2", "evt_10"))
_many_event_ids = st.integers(2, 12).map(lambda number: f"evt_{number}")
_variants = st.integers(0, 1)
_reasons = st.sampled_from(("rejected", "rejected", "undecodable"))
_names = st.sampled_from(NAMES)
_places = st.integers(0, 30)
_expire = st.sampled_from((0, LIFE))
_versions = st.integers(0, 1)
_json = st.sampled_from(('"x"', "1", "0.5", "null", '{"a":[1]}', "9007199254740991"))
_operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _names, _expire, _json),
        st.tuples(st.just("put_if_newer"), _names, _expire, _json, _versions),
        st.tuples(
            st.just("increment"),
            _names,
            st.sampled_from((-1, LIFE)),
            st.sampled_from((1.0, -2.0, 0.1)),
        ),
        st.tuples(st.just("delete"), _names, st.just(LIFE), st.none() | _versions),
    ),
    max_size=4,
)


class Both(RuleBasedStateMachine):
    """Deliveries, marks and settlements in any order, to the scripts and to the memory alike."""

    def __init__(self, runner: asyncio.Runner, redis: Redis, transitions: Transitions) -> None:
        super().__init__()
        self.runner = runner
        self.redis = redis
        self.transitions = transitions
        self.ledger = MemoryLedger(lambda: round(time.time() * 1000), retention=RETENTION)
        self.bodies: dict[str, bytes] = {}
        self.claims: list[tuple[Claim, Claim]] = []
        self.seen: dict[str, dict[str, tuple[str, str]]] = {each: {} for each in ORGANIZATIONS}

    def run(self, step: Awaitable[T]) -> T:
        async def taken() -> T:
            return await step

        return self.runner.run(taken())

    @initialize()
    def begin(self) -> None:
        self.run(self.redis.flushall())

    # What happens

    @rule(organization=_organizations, event_id=_event_ids, variant=_variants)
    def deliver(self, organization: str, event_id: str, variant: int) -> None:
        self.delivered(organization, event_id, variant)

    def delivered(self, organization: str, event_id: str, variant: int) -> str:
        sent = delivery(f"{event_id} {variant}".encode(), organization)
        job = job_id(organization, sent.body)
        self.run(enqueue(self.redis, sent))
        assert self.ledger.accept(job, sent).body == sent.body
        self.bodies[job] = sent.body
        return job

    @precondition(lambda self: self.ledger._jobs)
    @rule(place=_places)
    def claim(self, place: int) -> None:
        """A job that somebody has is taken from him, as when its lease was over."""
        jobs = sorted(self.ledger._jobs)
        self.claimed(jobs[place % len(jobs)])

    def claimed(self, job: str) -> tuple[Claim, Claim]:
        theirs = self.run(self.transitions.adopt(job, lease=3600))
        assert theirs is not None
        ours = self.ledger.claim(job)
        assert theirs.attempts == ours.attempts
        self.claims.append((theirs, ours))
        return theirs, ours

    @precondition(lambda self: self.claims)
    @rule(place=_places, until=st.sampled_from((None, PAST, FAR)))
    def mark(self, place: int, until: int | None) -> None:
        self.marked(*self.pick(place), until)

    def marked(self, theirs: Claim, ours: Claim, until: int | None = None) -> Mark:
        event_id = self.bodies[ours.job].split()[0].decode()
        (expected,) = self.run(self.transitions.mark([MarkRequest(theirs, event_id, until)]))
        found = self.told(self.ledger.post_mark, MarkRequest(ours, event_id, until))
        assert isinstance(expected, Marked)
        assert isinstance(found, Marked)
        assert found.mark is expected.mark
        assert abs(found.now - expected.now) < 60_000
        return found.mark

    @rule(
        place=st.none() | _places,
        event=st.tuples(_organizations, _event_ids, _variants),
        is_marked=st.booleans(),
        verb=st.sampled_from(VERBS),
        reason=_reasons,
        attempted=st.booleans(),
        patience=st.sampled_from((None, 0, LIFE)),
    )
    def settle(
        self,
        place: int | None,
        event: tuple[str, str, int],
        is_marked: bool,  # noqa: FBT001  # drawn
        verb: str,
        reason: str,
        attempted: bool,  # noqa: FBT001  # same
        patience: int | None,
    ) -> None:
        """One of those that were claimed before, or one that is claimed now."""
        if place is None or not self.claims:
            claims = self.claimed(self.delivered(*event))
        else:
            claims = self.pick(place)
        if is_marked:
            self.marked(*claims)
        details: dict[str, tuple[Any, ...]] = {
            "retry": (LIFE, None),
            "throttle": (LIFE, "429"),
            "wait": ("no_handler", patience),
            "dead": (reason, "why", "t", "acme", RECEIVED_AT, attempted, None),
        }
        self.settled(*claims, verb, details.get(verb, ()))

    @rule(
        organization=_organizations,
        event_id=_event_ids,
        lives=st.lists(st.tuples(_variants, _reasons, st.booleans()), min_size=1, max_size=4),
    )
    def keep_dying(
        self, organization: str, event_id: str, lives: list[tuple[int, str, bool]]
    ) -> None:
        """What is held comes of this: an event that dies, and is delivered again at once."""
        for variant, reason, is_known in lives:
            claims = self.claimed(self.delivered(organization, event_id, variant))
            mark = self.marked(*claims) if is_known else Mark.FRESH
            verb = LEAVES_BY.get(mark, "dead")
            dead = (reason, "why", "t", "acme", RECEIVED_AT, is_known, None)
            self.settled(*claims, verb, dead if verb == "dead" else ())

    @rule(
        organization=_organizations,
        event_id=_many_event_ids,
        variant=_variants,
        reads=st.sets(_names),
        operations=_operations,
        received_at=st.sampled_from((0, RECEIVED_AT, RECEIVED_AT + 1)),
    )
    def handle(
        self,
        organization: str,
        event_id: str,
        variant: int,
        reads: set[str],
        operations: list[tuple[Any, ...]],
        received_at: int,
    ) -> None:
        """Mark and commit; who has read what is no more reads again at once, and writes nothing.

        He has the turn of the value meanwhile, of which the memory knows nothing.
        """
        claims = self.claimed(self.delivered(organization, event_id, variant))
        self.marked(*claims)
        seen = self.seen[organization]
        old = {name: seen[name] for name in sorted(reads & seen.keys())}
        found = self.commit(*claims, old, operations, received_at)
        if found is Settled.CONFLICT:
            new = {name: self.digests(organization, name) for name in old}
            assert self.commit(*claims, new, [], received_at) is Settled.DONE

    def commit(
        self,
        theirs: Claim,
        ours: Claim,
        reads: dict[str, tuple[str, str]],
        operations: list[tuple[Any, ...]],
        received_at: int,
    ) -> Settled | Exception:
        rest = (tuple(operations), True, received_at)
        expected, found = [
            (RETENTION, tuple((name, each[side]) for name, each in reads.items()), *rest)
            for side in (0, 1)
        ]
        return self.settled(theirs, ours, "done", expected, found)

    def settled(
        self,
        theirs: Claim,
        ours: Claim,
        verb: str,
        details: tuple[Any, ...],
        of_ours: tuple[Any, ...] | None = None,
    ) -> Settled | Exception:
        (expected,) = self.run(self.transitions.settle([Settlement(theirs, verb, details)]))
        settlement = Settlement(ours, verb, details if of_ours is None else of_ours)
        found = self.told(self.ledger.post_settlement, settlement)
        assert isinstance(found, Settled | Refused)
        if isinstance(expected, Settled):
            assert found is expected
        else:  # each says why in words of its own
            assert isinstance(found, Refused), expected
        return found

    @rule(organization=_organizations, name=_names)
    def read(self, organization: str, name: str) -> None:
        """What is read now is checked at a commit, sooner or later."""
        self.seen[organization][name] = self.digests(organization, name)

    @rule(number=st.sampled_from((0, 18, 20)))
    def a_minute_passes(self, number: int) -> None:
        """The next redelivery may revive its event, unless that has been done 20 times."""
        for event, (revived, _, until) in self.ledger._revivals.items():
            many = min(20, revived + number)
            self.run(self.redis.set(keys.revivals(*event), f"{many}:0", keepttl=True))
            self.ledger._revivals[event] = (many, 0, until)

    @rule(organization=_organizations)
    def everything_expires(self, organization: str) -> None:
        """The time is over of values and of marks that don't stay for ever."""
        for name in NAMES:
            cell = self.ledger._state.get(organization, {}).get(name)
            if cell is not None and cell.until is not None:
                self.run(self.redis.pexpire(keys.state(organization, name), 0))
                self.ledger._state[organization][name] = ledgers._Cell(cell.value, PAST)
        for event, (state, holder, until) in self.ledger._marks.items():
            if event[0] == organization and until is not None:
                self.run(self.redis.pexpire(keys.event(*event), 0))
                self.ledger._marks[event] = (state, holder, PAST)

    # Both, beside each other

    def pick(self, place: int) -> tuple[Claim, Claim]:
        return self.claims[-1 - place % min(3, len(self.claims))]

    def told(self, ask: Callable[[Any, Callable[[Any], None]], None], what: object) -> object:
        answers: list[object] = []
        ask(what, answers.append)
        (answer,) = answers
        return answer

    def digests(self, organization: str, name: str) -> tuple[str, str]:
        theirs = self.run(self.redis.get(keys.state(organization, name)))
        ours = self.run(self.ledger.read_state(organization, name))
        return _digest(theirs), _digest(ours)

    @invariant()
    def both_hold_the_same(self) -> None:
        books, ledger = self.run(Books.read(self.redis)), self.ledger
        assert set(ledger._jobs) == books.payloads
        marks = {
            event: ":".join(ledger._marked(event))
            for event in ledger._marks
            if ledger._marked(event)[0]
        }
        assert marks == books.marks
        assert {job: each.event_id for job, each in ledger._letters.items()} == books.records
        for organization in ORGANIZATIONS:
            self.state_is_the_same(organization, books.values)

    def state_is_the_same(self, organization: str, values: Mapping[str, str]) -> None:
        for name in NAMES:
            full = keys.state(organization, name)
            raw = values[full].encode() if full in values else None
            ours = self.run(self.ledger.read_state(organization, name))
            assert (raw is None) is (ours is None)
            assert _plain(raw) == _plain(ours)
            expires = self.ledger._cell(organization, name).until is not None
            assert raw is None or (self.run(self.redis.pttl(full)) != -1) is expires


def _digest(raw: bytes | None) -> str:
    return "" if raw is None else sha1(raw, usedforsecurity=False).hexdigest()


def _plain(raw: bytes | None) -> tuple[object, ...]:
    """A value by what it means: each writes a fraction in its own way."""
    value = Value.parse(raw)
    decoded = value.decoded("") if value.json else ()
    return decoded, value.version, value.writer, value.received_at


def take_steps(url: str, *, examples: int, random: bool = False, shrink: bool = True) -> None:
    """Take random steps; raises where the two differ."""
    with StepRunner() as runner:
        redis = Redis.from_url(url)
        transitions = Transitions(Partition.only(redis), retention=RETENTION / 1000)

        class There(Both):
            def __init__(self) -> None:
                super().__init__(runner, redis, transitions)

        try:
            take_random_steps(There, steps=40, examples=examples, random=random, shrink=shrink)
        finally:
            runner.run(redis.aclose())


def test_the_memory_answers_as_the_scripts_do(redis_server: EmbeddedRedis) -> None:
    """The same steps each time; LEDGER_EXAMPLES=2000 takes so many others."""
    take_steps(redis_server.url, examples=EXAMPLES or 30, random=EXAMPLES > 0)


# The property would hold as well if the steps never came to what can differ: each of these is seen.


@contextmanager
def changed(place: object, name: str, other: object) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, name, other)
        yield


def _never(*_: object) -> bool:
    return False


def _forever(_ledger: MemoryLedger, before: Any, operation: tuple[Any, ...]) -> int | None:
    return before.until if operation[2] < 0 else None


def _patient(_ledger: MemoryLedger, _name: str, job: Any, _details: tuple[Any, ...]) -> Settled:
    job.token = ""
    return Settled.WAITING


MUTANTS: Final[dict[str, tuple[object, str, object]]] = {
    "redeliveries revive at once": (ledgers, "_SHORTEST_PAUSE", 0),
    "redeliveries revive for ever": (ledgers, "_MOST_REVIVALS", 10**9),
    "a dead event is never held": (MemoryLedger, "_must_hold", _never),
    "harmed letters are held, too": (ledgers, "_HARMED", ()),
    "what was read isn't checked": (ledgers, "_digest", lambda _: ""),
    "whoever waits does so for ever": (MemoryLedger, "_wait", _patient),
    "nothing expires": (MemoryLedger, "_until", _forever),
    "what has expired is there": (MemoryLedger, "_is_over", _never),
    "tokens aren't asked for": (
        MemoryLedger,
        "_held",
        lambda ledger, claim: ledger._jobs.get(claim.job),
    ),
    "a letter outlives its event": (
        MemoryLedger,
        "_remove",
        lambda ledger, job: ledger._jobs.pop(job),
    ),
    "equal versions go by the order": (
        Value,
        "is_older",
        lambda value, version, *_: value.version is None or version >= value.version,
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_memory_that_answers_otherwise_is_seen(mutant: str, redis_server: EmbeddedRedis) -> None:
    with changed(*MUTANTS[mutant]), pytest.raises((AssertionError, KeyError)):
        take_steps(redis_server.url, examples=150, shrink=False)
