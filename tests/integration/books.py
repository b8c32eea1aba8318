"""Everything that Redis holds, and what is true of it whatever has happened."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.asyncio import Redis

from shared.queue import keys
from tests.integration.jobs import full_mark, organization_of
from worker.grouping import CAUSE_FIELDS, cause_of

_DUMP = """
local dump = {}
for _, name in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', name).ok
  local value
  if kind == 'string' then value = redis.call('GET', name)
  elseif kind == 'hash' then value = redis.call('HGETALL', name)
  elseif kind == 'set' then
    value = redis.call('SMEMBERS', name)
    table.sort(value)
  elseif kind == 'zset' then value = redis.call('ZRANGE', name, 0, -1, 'WITHSCORES')
  else value = redis.call('LRANGE', name, 0, -1) end
  dump[#dump + 1] = { name, kind, value }
end
return dump
"""
_CLAIM = re.compile(r"([0-9a-f]*):(\d+):(\d+):([^:]*):(.*)", re.DOTALL)
_SUSPICION = re.compile(r"(\d+):(\d+):(\d+):(\d+):(\d+):([01])")


class Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is known of a job that is in a turn, as ``prelude/turns.lua`` has it."""

    key: str
    state: str
    kind: str
    waits: bool
    since: float
    starts: bool

    @property
    def line(self) -> str:
        """The turn in which it waits, if it does: that of a value comes after that of its key."""
        return self.state or self.key


_KEPT = 40
"""Digits of the token of one that keeps its slot, in order, while it waits for its retry."""

_entry = msgspec.msgpack.Decoder(Entry).decode


@dataclass
class Books:
    """Every key, by what it is for.

    Attributes:
        values: every key as it stands; two that are equal mean that nothing at all has changed.
        queue: of each job in the queue its score.
        parked: of each parked job its organization.
        tokens: of each job with a claim its token.
        claims: of the same its claims without an outcome that nobody ran beside.
        grouped: of each suspect those that others ran beside.
        alone: the suspects whose last claim was, or is, alone in its worker.
        marks: of each (organization, event id) the mark.
        records: of each dead letter its event id.
        by_hand: the jobs whose dead letter somebody has replayed, and nobody has judged since.
        revivals: of each (organization, event id) how often redeliveries have revived it.
        applied: of each (organization, event id) how often it has changed the state.
        turns: of each turn, by its full name, the order of each job that is in it; 0 has it.
        entries: of each job that is in a turn what is known of it.
        undecided: of each job that a worker with keys has claimed, and not marked yet, its order.
    """

    values: dict[str, Any]
    queue: dict[str, float] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    claims: dict[str, int] = field(default_factory=dict)
    grouped: dict[str, int] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    payloads: set[str] = field(default_factory=set)
    marks: dict[tuple[str, str], str] = field(default_factory=dict)
    records: dict[str, str] = field(default_factory=dict)
    by_hand: set[str] = field(default_factory=set)
    revivals: dict[tuple[str, str], int] = field(default_factory=dict)
    applied: dict[tuple[str, str], int] = field(default_factory=dict)
    turns: dict[str, dict[str, float]] = field(default_factory=dict)
    entries: dict[str, "Entry"] = field(default_factory=dict)
    undecided: dict[str, float] = field(default_factory=dict)

    @classmethod
    async def read(cls, redis: Redis) -> "Books":
        """Read all of it, at one moment."""
        raw = await redis.execute_command("EVAL", _DUMP, 0)
        told = {name.decode(): _value(kind, value) for name, kind, value in raw}
        for name in (keys.ACTIONS, keys.RUNS):  # what people have done, whatever came of it
            told.pop(name, None)
        books = cls(told)
        for name, value in books.values.items():
            books._file(name, value)
        books._suspect(books.values.get(keys.SUSPECTS, {}))
        # Or more slots would not reach them.
        assert set(books.parked.values()) <= set(books.values.get(keys.HELD_BACK, ()))
        return books

    def _file(self, name: str, value: Any) -> None:
        """Put one key where it belongs; there is no other kind of key."""
        if name.startswith(keys.JOB):
            self.payloads.add(name.removeprefix(keys.JOB))
        elif name.startswith(keys.PARKED):
            organization = name.removeprefix(keys.PARKED)
            for job in value:
                assert job not in self.parked
                assert organization_of(job) == organization
                self.parked[job] = organization
        elif name == keys.QUEUE:
            self.queue = value
        elif name == keys.CLAIMS:
            for job, claim in value.items():
                found = _CLAIM.fullmatch(claim)
                assert found, claim
                self.tokens[job], self.claims[job] = found[1], int(found[3])
        else:
            self._file_event(name, value)

    def _file_event(self, name: str, value: Any) -> None:
        if name.startswith(keys.EVENT):
            self.marks[_event(name, keys.EVENT)] = full_mark(value.partition("\n\udc93")[0])
        elif name.startswith(keys.STATE):
            if "applied/" in name:
                self.applied[_event(name.replace("applied/", ""), keys.STATE)] = int(value)
        elif name.startswith(keys.DEAD_LETTER):
            job = name.removeprefix(keys.DEAD_LETTER)
            self.records[job] = value["event_id"]
            if "by_hand" in value:
                self.by_hand.add(job)
        elif name.startswith(keys.REVIVALS):
            self.revivals[_event(name, keys.REVIVALS)] = int(value.partition(":")[0])
        else:
            self._file_turn(name, value)

    def _file_turn(self, name: str, value: Any) -> None:
        if name == keys.TURNS:
            self.entries = {
                job: _entry(raw.encode(errors="surrogateescape")) for job, raw in value.items()
            }
        elif name.startswith(keys.TURN):
            self.turns[name] = value
        elif name.startswith(keys.UNDECIDED):
            self.undecided |= value
        else:
            assert name.startswith((keys.DEAD, *_lists(), *_singles())), name

    def _suspect(self, suspicions: dict[str, str]) -> None:
        """Read what still holds of what is said of suspects, all of which are unfinished."""
        assert suspicions.keys() <= self.accepted
        claims = self.values.get(keys.CLAIMS, {})
        for job, suspicion in suspicions.items():
            found = _SUSPICION.fullmatch(suspicion)
            assert found, suspicion
            attempts, known, grouped, _, _, alone = map(int, found.groups())
            _, now_attempts, now_known, *_ = claims[job].split(":", 4)
            if attempts == int(now_attempts):
                self.grouped[job] = grouped
                if alone and known == int(now_known):
                    self.alone.add(job)

    @property
    def accepted(self) -> set[str]:
        """The unfinished jobs."""
        return set(self.values.get(keys.ACCEPTED, {}))

    @property
    def in_line(self) -> list[str]:
        """The jobs that a worker may have at once, in their order."""
        return [job for job, score in self.queue.items() if score < keys.DEFERRED_FROM]

    @property
    def virtual_times(self) -> dict[str, float]:
        """Of the system (``*``) and of each flow."""
        return {name: float(raw) for name, raw in self.values.get(keys.FLOWS, {}).items()}

    def running(self, organization: str) -> int:
        """The slots that an organization holds."""
        return int(self.values.get(keys.RUNNING, {}).get(organization, 0))

    def is_held(self, job: str, token: str) -> bool:
        """Whether that token is the job's."""
        return self.tokens.get(job) == token

    def must_wait(self, organization: str) -> bool:
        """Whether it is paused, throttled, or held by its breaker."""
        profiles = self.values.get(keys.ORGANIZATIONS, {})
        breaker = profiles.get(keys.BREAKER + organization, "closed")
        held = breaker.startswith(("open", "trying:org"))
        return held or bool({keys.PAUSE + organization, keys.HOLD + organization} & profiles.keys())

    def is_tried(self, organization: str) -> bool:
        """Whether its breaker lets events through one at a time."""
        profiles = self.values.get(keys.ORGANIZATIONS, {})
        return str(profiles.get(keys.BREAKER + organization, "")).startswith("trying")

    def cap(self, organization: str) -> float:
        """How many slots the organization may hold."""
        own = self.values.get(keys.ORGANIZATIONS, {}).get(organization, ":1").partition(":")[0]
        slots = int(self.values.get(keys.SLOTS, 0))
        default = max(1, slots * 8 // 10) if slots > 0 else math.inf
        return int(own) if own else default

    def check(self, robbed: set[str]) -> None:
        """What holds between any two steps.

        Args:
            robbed: jobs whose payload somebody has deleted by hand.
        """
        self._check_places(robbed)
        self._check_counts()
        self._check_turns()
        self._check_latest()
        self._check_holds()
        self._check_bytes(robbed)
        self._check_marks(robbed)
        self._check_lists()
        self._check_nothing_waits_for_nobody()

    def _check_places(self, robbed: set[str]) -> None:
        accepted = self.accepted
        places = [*self.queue, *self.parked, *self.waits]
        assert len(places) == len(set(places))
        assert set(places) == accepted
        assert self.payloads <= accepted
        assert accepted - self.payloads <= robbed
        assert self.tokens.keys() <= accepted
        for job, token in self.tokens.items():
            assert not token or self.queue[job] >= keys.DEFERRED_FROM, job
        assert all(score > 0 for score in self.queue.values())
        assert len(self.values.get(keys.WAKE, [])) <= 1

    def _check_turns(self) -> None:
        """One has a turn, who waits does so for somebody, and nobody is in it who is gone."""
        orders = self.values.get(keys.ACCEPTED, {})
        for name, members in self.turns.items():
            assert list(members.values()).count(0) <= 1, name
            for job, order in members.items():
                entry = self.entries[job]
                assert name in {entry.key, entry.state}, (name, job)
                assert order in {0, orders[job]}
                assert order or not entry.waits or entry.line != name
                if name == entry.state and not order:  # nobody has that of a value while it rests
                    assert len(self.tokens[job]) not in {0, _KEPT}
            first = next(iter(members))
            assert not self.entries[first].waits or members[first] == 0, (name, first)
        for job, entry in self.entries.items():
            assert job in self.accepted
            assert entry.key or entry.state
            assert all(job in self.turns[name] for name in (entry.key, entry.state) if name)
            if entry.waits:
                assert self.tokens[job] == ""
        for job, order in self.undecided.items():
            assert self.tokens[job]
            assert order == orders[job]

    def _check_latest(self) -> None:
        """Of a kind at most one waits for its key's turn, and that one is found by it."""
        waiting = {
            entry.kind: job
            for job, entry in self.entries.items()
            if entry.waits and entry.kind and not entry.state
        }
        assert self.values.get(keys.LATEST, {}) == waiting
        standing_for = {
            name.removeprefix(keys.SUPERSEDED)
            for name in self.values
            if name.startswith(keys.SUPERSEDED)
        }
        assert standing_for <= self.entries.keys()

    @property
    def waits(self) -> set[str]:
        """The jobs that wait for their turn."""
        return {job for job, entry in self.entries.items() if entry.waits}

    def _check_holds(self) -> None:
        """Each hold has its end, and only unfinished jobs have asked for one."""
        profiles = self.values.get(keys.ORGANIZATIONS, {})
        holds = {name for name in profiles if name.startswith(keys.HOLD)}
        assert holds == self.values.get(keys.DUE, {}).keys()
        for name, state in profiles.items():
            if name.startswith(keys.BREAKER) and state.startswith(("trying:org", "trying:{")):
                assert self.tokens[state.removeprefix("trying:")]
        for name in (keys.THROTTLED, keys.FAILURES, keys.REDELIVERED):
            assert self.values.get(name, {}).keys() <= self.accepted

    def _check_counts(self) -> None:
        assert self._numbers(keys.WAITING) == _tally(self.accepted)
        held = {job for job, token in self.tokens.items() if token}
        assert self._numbers(keys.RUNNING) == _tally(held)
        assert self._numbers(keys.BURIED) == _tally(self.records)
        assert self._numbers(keys.IN_TURN) == _tally(self.waits)
        listed = {
            job
            for name, value in self.values.items()
            if name.startswith(keys.DEAD)
            for job in value
        }
        assert listed == self.records.keys()

    def _check_bytes(self, robbed: set[str]) -> None:
        """What was taken away by hand, Redis goes on counting until the next recount."""
        held = self._numbers(keys.BYTES)
        assert all(number > 0 for number in held.values())
        robbed_of = {f"{organization_of(job)}:waiting" for job in robbed}
        truly = {name: n for name, n in self.bytes_held().items() if name not in robbed_of}
        assert {name: n for name, n in held.items() if name not in robbed_of} == truly

    def bytes_held(self) -> dict[str, int]:
        """What organizations hold by kind, as a budget should count it."""
        held: dict[str, int] = {}
        for name, value in self.values.items():
            for kind, prefix, size in _kinds():
                if name.startswith(prefix):
                    rest = name.removeprefix(prefix)
                    field = f"{rest.partition(':')[0]}:{kind}"
                    held[field] = held.get(field, 0) + size(rest, value)
        for field, size_of_it in self._attempts():
            held[field] = held.get(field, 0) + size_of_it
        return held

    def _attempts(self) -> Iterator[tuple[str, int]]:
        """What is kept of attempts, which counts as waiting."""
        for job, history in self.values.get(keys.FAILURES, {}).items():
            if history.startswith("\udc93"):
                yield f"{organization_of(job)}:waiting", _history_cost(history[1:])
        for job in self.values.get(keys.REDELIVERED, ()):
            yield f"{organization_of(job)}:waiting", 200

    def _numbers(self, name: str) -> dict[str, int]:
        return {key: int(value) for key, value in self.values.get(name, {}).items()}

    def _check_marks(self, robbed: set[str]) -> None:
        for (organization, event_id), mark in self.marks.items():
            state, _, job = mark.partition(":")
            assert organization_of(job) == organization
            if state == "dead":
                assert self.records.get(job) == event_id
            if state == "pending":
                assert job in self.accepted | robbed
        for job, event_id in self.records.items():
            if event_id:
                assert self.marks[organization_of(job), event_id] == f"dead:{job}"
        for event, times in self.applied.items():
            assert times == 1, event
            assert self.marks[event].startswith("done:")

    def _check_lists(self) -> None:
        """Each letter that was buried with its cause is in the group of that, and of its kind."""
        groups, kinds = dict[str, dict[str, float]](), dict[str, dict[str, float]]()
        for job in self.records:
            record = self.values[keys.dead_letter(job)]
            if "group" not in record:
                continue
            organization, died_at = organization_of(job), float(record["died_at"])
            told = [record.get(name, "") for name in CAUSE_FIELDS]
            name = f"{organization}:{cause_of(*told).key}"
            groups.setdefault(name, {})[job] = died_at
            kinds.setdefault(":".join(told[:2]), {})[job] = died_at
        assert self._under(keys.DEAD_GROUP) == groups
        assert self._under(keys.DEAD_KIND) == kinds
        labels = self._under(keys.DEAD_LABELS)
        named = {f"{organization}:{key}" for organization in labels for key in labels[organization]}
        assert named == groups.keys()
        numbers: dict[str, dict[str, int]] = {}
        for name, jobs in groups.items():
            reason = self.values[keys.dead_letter(next(iter(jobs)))]["reason"]
            numbers.setdefault(reason, {})[name] = len(jobs)
        assert self._under(keys.DEAD_GROUPS) == numbers
        assert self._numbers(keys.DEAD_KINDS) == {n: len(jobs) for n, jobs in kinds.items()}

    def _under(self, prefix: str) -> dict[str, Any]:
        found = ((name, value) for name, value in self.values.items() if name.startswith(prefix))
        return {name.removeprefix(prefix): value for name, value in found}

    def _check_nothing_waits_for_nobody(self) -> None:
        """Who is parked is brought back in line by somebody's end, or by a resume."""
        coming = _tally(self.in_line)
        for organization in set(self.parked.values()):
            if not self.must_wait(organization):
                cap = self.cap(organization)  # infinite while no worker has said that it lives
                least = 1 if self.is_tried(organization) or math.isinf(cap) else cap
                on_their_way = self.running(organization) + coming.get(organization, 0)
                assert on_their_way >= least, organization


def cost(size: int, places: int) -> int:
    """What a text is counted as that takes so many keys or places."""
    return math.ceil(size * 1.3) + 200 * places


def _size(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _mark_cost(rest: str, mark: str) -> int:
    _, is_there, history = mark.partition("\n\udc93")
    return cost(len(rest.partition(":")[2]), 1) + (_history_cost(history) if is_there else 0)


def _history_cost(text: str) -> int:
    """Without its first byte."""
    return cost(_size(text) + 1, 0) + 100


def _record_cost(_: str, record: Any) -> int:
    large = ("payload", "error", "traceback", "history")
    texts = (record.get(each, "") for each in large)
    return cost(sum(map(_size, texts)), 7 if "group" in record else 5)


def _kinds() -> Iterator[tuple[str, str, Callable[[str, Any], int]]]:
    """What counts as bytes held, by what the names of its keys begin with."""
    yield "waiting", keys.UNTAGGED.payloads, lambda _, payload: cost(_size(payload), 2)
    yield "dead", keys.DEAD_LETTER + keys.UNTAGGED.job_prefix, _record_cost
    yield "marks", keys.EVENT, _mark_cost
    yield "state", keys.STATE, lambda rest, value: cost(len(keys.STATE + rest + value), 1)


def _lists() -> tuple[str, ...]:
    """Names of what dead letters are found by, and what these begin with."""
    return (
        keys.DEAD_GROUP,
        keys.DEAD_GROUPS,
        keys.DEAD_LABELS,
        keys.DEAD_KIND,
        keys.DEAD_KINDS,
        keys.DEAD_LISTED,
    )


def _singles() -> tuple[str, ...]:
    """Names that stand by themselves."""
    return (
        keys.BYTES,
        keys.RECOUNT,
        keys.RATES,
        keys.FLOWS,
        keys.RUNNING,
        keys.ORGANIZATIONS,
        keys.ACCEPTED,
        keys.WAITING,
        keys.COUNTERS,
        keys.BURIED,
        keys.WORKERS,
        keys.SLOTS,
        keys.DUTY,
        keys.WAKE,
        keys.DUE,
        keys.HELD_BACK,
        keys.THROTTLED,
        keys.FAILURES,
        keys.REDELIVERED,
        keys.BREAKERS,
        keys.SUSPECTS,
        keys.UNREAD,
        keys.IN_TURN,
        keys.LATEST,
        keys.SUPERSEDED,
        keys.UNHANDLED,
        keys.KNOWN,
        keys.TOLD_MARKS,
    )


def _event(name: str, prefix: str) -> tuple[str, str]:
    organization, _, event_id = name.removeprefix(prefix).partition(":")
    return organization, event_id


def _value(kind: bytes, value: Any) -> Any:
    if kind == b"string":
        return value.decode(errors="surrogateescape")
    texts = [each.decode(errors="surrogateescape") for each in value]
    if kind in {b"list", b"set"}:
        return texts
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return {name: float(score) for name, score in pairs} if kind == b"zset" else dict(pairs)


def _tally(jobs: Any) -> dict[str, int]:
    tally: dict[str, int] = {}
    for job in jobs:
        organization = organization_of(job)
        tally[organization] = tally.get(organization, 0) + 1
    return tally
