"""Keeps marks and state in memory, by the same rules as the scripts: a second implementation.

`tests/integration/test_memory_ledger.py` drives both alike. It has no turns, rates or leases,
and nobody harms a payload: whoever delivers an event has it until the event is settled.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from itertools import count
from typing import Any, Final, final

import msgspec

from shared.errors import StateError
from shared.queue.group_commit import Tell
from shared.queue.job import Delivery, organization_of
from worker.pipeline.settling import Details
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Refused,
    Settled,
    Settlement,
)
from worker.value import Operation, Value, apply, checked_key, encoded

_MOST_REVIVALS: Final = 20
_SHORTEST_PAUSE: Final = 60_000
"""Milliseconds between two revivals, as in ``mark.lua``."""

_HARMED: Final = ("payload_lost", "payload_changed", "undecodable")

Event = tuple[str, str]
"""An organization and an event id."""


@final
class _Cell(msgspec.Struct, frozen=True):
    """A value of the state, and when it goes (epoch milliseconds); ``None`` is never."""

    value: Value = Value()
    until: int | None = None

    def raw(self) -> bytes | None:
        """The value as Redis would have it."""
        value = self.value
        if value.version is not None:
            written = f"{value.json}\n{value.version}\n{value.writer} {value.received_at}"
            return written.encode()
        return value.json.encode() if value.json else None


@final
class _Job(msgspec.Struct):
    """An event on its way; one whose token is empty is nobody's."""

    delivery: Delivery
    token: str = ""
    attempts: int = 0
    event_id: str = ""
    waits_since: int | None = None


@final
class _Letter(msgspec.Struct, frozen=True):
    """What is known of a dead job."""

    reason: str
    event_id: str


class MemoryLedger:
    """What Redis keeps of events' marks and organizations' state.

    Args:
        now: the time in epoch milliseconds; it decides what has expired.
        retention: milliseconds for which revivals of an event are counted.
    """

    def __init__(self, now: Callable[[], int], *, retention: int = 7 * 86_400_000) -> None:
        self._now = now
        self._retention = retention
        self._jobs: dict[str, _Job] = {}
        self._marks: dict[Event, tuple[str, str, int | None]] = {}
        self._letters: dict[str, _Letter] = {}
        self._revivals: dict[Event, tuple[int, int, int]] = {}
        self._state: dict[str, dict[str, _Cell]] = {}
        self._tokens = count(1)

    # What there is

    def accept(self, job: str, delivery: Delivery) -> Delivery:
        """Take a delivery in; where it waits already, the one that came first stays."""
        return self._jobs.setdefault(job, _Job(delivery)).delivery

    def claim(self, job: str, attempts: int | None = None) -> Claim:
        """Have a job that was accepted; whoever had it has lost it.

        Args:
            job: its id.
            attempts: how many there were before; without it, those that there were here.
        """
        known = self._jobs[job]
        known.attempts = known.attempts if attempts is None else attempts
        known.token = f"{next(self._tokens):016x}"
        return Claim(job, known.token, known.attempts)

    def put(self, organization: str, values: Mapping[str, Any]) -> None:
        """Let an organization's state have these values, as if a handler had put them.

        Raises:
            StateError: one of them can't be kept.
        """
        cells = {checked_key(key): _Cell(Value(encoded(key, values[key]))) for key in values}
        self._state.setdefault(organization, {}).update(cells)

    def values(self, organization: str) -> dict[str, Any]:
        """An organization's state in plain Python values."""
        cells = {key: self._cell(organization, key) for key in self._state.get(organization, {})}
        return {key: cell.value.decoded(key) for key, cell in cells.items() if cell.value.json}

    async def read_state(self, organization: str, key: str) -> bytes | None:
        """A raw value of an organization's state."""
        return self._cell(organization, key).raw()

    def _cell(self, organization: str, key: str) -> _Cell:
        cell = self._state.get(organization, {}).get(key)
        return cell if cell and not self._is_over(cell.until) else _Cell()

    def _is_over(self, until: int | None) -> bool:
        return until is not None and until <= self._now()

    # Marks, as in ``mark.lua``

    def post_mark(self, request: MarkRequest, tell: Tell[Marked]) -> None:
        """Set, or find, the mark of an event id."""
        tell(Marked(self._mark(request), self._now()))

    def _mark(self, request: MarkRequest) -> Mark:
        job = self._held(request.claim)
        if job is None:
            return Mark.LOST
        name, event = request.claim.job, (organization_of(request.claim.job), request.event_id)
        job.event_id = request.event_id
        state, holder = self._marked(event)
        match state:
            case "":
                until = request.provable_until
                if until is not None and self._now() > until:
                    return Mark.UNPROVABLE
                self._marks[event] = ("pending", name, None)
                return Mark.FRESH
            case "dead":
                return self._mark_dead(job, name, event, holder)
            case "pending" if holder == name:
                return Mark.OWN
        return Mark.DUPLICATE if holder == name else Mark.CONFLICTING

    def _mark_dead(self, job: _Job, name: str, event: Event, holder: str) -> Mark:
        if self._must_hold(event, holder):
            return Mark.HELD if holder == name else Mark.HELD_CONFLICTING
        self._letters.pop(holder, None)
        job.attempts = 0
        self._marks[event] = ("pending", name, None)
        return Mark.REVIVED

    def _marked(self, event: Event) -> tuple[str, str]:
        """The state of an event and its job; empty where there is no mark."""
        state, holder, until = self._marks.get(event, ("", "", None))
        return ("", "") if self._is_over(until) else (state, holder)

    def _must_hold(self, event: Event, holder: str) -> bool:
        """Whether one more redelivery of a dead event is one too many; if it isn't, it counts."""
        letter = self._letters.get(holder)
        if letter is None or letter.reason in _HARMED:
            self._revivals.pop(event, None)
            return False
        now = self._now()
        number, last, until = self._revivals.get(event, (0, 0, now))
        if until <= now:
            number, last = 0, 0
        if number >= _MOST_REVIVALS or last <= now < last + _SHORTEST_PAUSE:
            return True
        self._revivals[event] = (number + 1, now, now + self._retention)
        return False

    # Settlements, as in ``settle.lua``

    def post_settlement(self, settlement: Settlement, tell: Tell[Settled]) -> None:
        """Make a job what its settlement says."""
        tell(self._settle(settlement))

    def _settle(self, settlement: Settlement) -> Settled | Exception:
        job = self._held(settlement.claim)
        if job is None:
            return Settled.LOST
        verb = settlement.verb
        if verb in _LEFT:
            job.attempts += verb == "retry"
            job.token = ""
            return _LEFT[verb]
        ends = {
            "done": self._done,
            "dead": self._dead,
            "duplicate": self._duplicate,
            "hold": self._hold,
            "wait": self._wait,
        }
        return ends[verb](settlement.claim.job, job, settlement.details)

    def _held(self, claim: Claim) -> _Job | None:
        job = self._jobs.get(claim.job)
        return job if job is not None and job.token == claim.token else None

    def _done(self, name: str, job: _Job, details: Details) -> Settled | Refused:
        retention, reads, operations, *rest = details
        received_at = rest[1] if len(rest) > 1 else 0
        event = (organization_of(name), job.event_id)
        if self._marked(event) != ("pending", name):
            return Settled.AGAIN
        if any(_digest(self._cell(event[0], key).raw()) != digest for key, digest in reads):
            return Settled.CONFLICT
        try:
            changed = self._changed(event, operations, received_at)
        except StateError as exc:
            return Refused(str(exc))
        self._state.setdefault(event[0], {}).update(changed)
        self._marks[event] = ("done", name, self._now() + retention)
        self._remove(name)
        return Settled.DONE

    def _changed(
        self, event: Event, operations: Sequence[Operation], received_at: int
    ) -> dict[str, _Cell]:
        """All of the values that change, or an error and none."""
        organization, event_id = event
        changed: dict[str, _Cell] = {}
        for operation in operations:
            key = operation[1]
            before = changed.get(key) or self._cell(organization, key)
            after = apply(before.value, operation, event_id, received_at)
            if after is not before.value:
                changed[key] = _Cell(after, self._until(before, operation))
        return changed

    def _until(self, before: _Cell, operation: Operation) -> int | None:
        name, _, expire, *_ = operation
        if name == "increment" and expire < 0:
            # A number that begins anew stays: the expiry that is set is its tombstone's.
            return before.until if before.value.json else None
        return self._now() + expire if expire else None

    def _dead(self, name: str, job: _Job, details: Details) -> Settled:
        reason, _error, _type, _endpoint, _received_at, attempted, *_ = details
        former = self._letters.get(name)
        job.event_id = job.event_id or (former.event_id if former else "")
        event = (organization_of(name), job.event_id)
        state, holder = self._marked(event)
        if state and not (holder == name and state != "done"):
            return self._leave_as_duplicate(name)
        job.attempts += attempted
        self._letters[name] = _Letter(reason, job.event_id)
        if job.event_id:
            self._marks[event] = ("dead", name, None)
        del self._jobs[name]
        return Settled.DEAD

    def _duplicate(self, name: str, job: _Job, _details: Details) -> Settled:
        state, holder = self._marked((organization_of(name), job.event_id))
        if state in {"", "dead"} or (state == "pending" and holder == name):
            return Settled.AGAIN
        return self._leave_as_duplicate(name)

    def _hold(self, name: str, job: _Job, _details: Details) -> Settled:
        state, holder = self._marked((organization_of(name), job.event_id))
        letter = self._letters.get(holder) if state == "dead" else None
        if letter is None or letter.reason in _HARMED:
            return Settled.AGAIN
        del self._jobs[name]
        return Settled.HELD

    def _wait(self, _name: str, job: _Job, details: Details) -> Settled:
        patience, now = details[1], self._now()
        first = now if job.waits_since is None else job.waits_since
        if patience is not None and first + patience <= now:
            return Settled.OVERDUE
        job.waits_since, job.token = first, ""
        return Settled.WAITING

    def _leave_as_duplicate(self, name: str) -> Settled:
        self._remove(name)
        return Settled.DUPLICATE

    def _remove(self, name: str) -> None:
        """A job that is over takes the letter of an earlier life with it."""
        self._letters.pop(name, None)
        del self._jobs[name]


_LEFT: Final = {
    "retry": Settled.RETRIED,
    "release": Settled.RELEASED,
    "abandon": Settled.ABANDONED,
    "throttle": Settled.THROTTLED,
}


def _digest(raw: bytes | None) -> str:
    # It names the value that was read; nothing is protected by it.
    return "" if raw is None else sha1(raw, usedforsecurity=False).hexdigest()
