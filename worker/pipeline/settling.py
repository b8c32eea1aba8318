"""What Redis is asked of an outcome: a verb of ``settle.lua``, with its details."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from shared.queue import told
from worker.grouping import cause_of
from worker.masking import Masks
from worker.outcomes import Busy, Dead, Done, Duplicate, Held, Later, Outcome, Released, Waiting
from worker.pipeline.policy import Policy
from worker.pipeline.transitions import Settlement, pack
from worker.pipeline.work import Work
from worker.state import State
from worker.tracebacks import compressed

Details: TypeAlias = tuple[Any, ...]
"""Of a settlement, as its verb has them."""

_NotDone: TypeAlias = Busy | Dead | Duplicate | Held | Later | Released | Waiting

_MOST_OF_AN_ERROR: Final = 200
_MOST_OF_A_NAME: Final = 80
"""Bytes of a text in a job's history, of which there are ten attempts."""

_MOST_AT_LENGTH: Final = 420
"""Bytes of what is kept of the last attempt's traceback, compressed."""


@dataclass(frozen=True, slots=True)
class Settlements:
    """Says what becomes of a job by what its handler came to.

    Attributes:
        policy: the rules.
        worker: that handles it, by its name.
        masks: hide secrets in what is said of failures.
        random: draws evenly from 0 to 1.
        code: that stands for the worker in a mark.
    """

    policy: Policy
    worker: str
    masks: Masks
    random: Callable[[], float]
    code: str = field(init=False)
    _nothing: Details = field(init=False, repr=False)
    _packed_nothing: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find out what is the same for all."""
        nothing = (self.retention, (), (), True)
        for name, value in (
            ("code", told.code_of(self.worker)),
            ("_nothing", nothing),
            ("_packed_nothing", pack(nothing)),
        ):
            object.__setattr__(self, name, value)

    @property
    def retention(self) -> int:
        """For how long the mark of a finished event is kept, in milliseconds."""
        return round(self.policy.limits.dedupe_retention * 1000)

    def final(self, work: Work, outcome: Outcome) -> Outcome:
        """The outcome that counts: a last attempt, or a second one that blocked, buries it."""
        if type(outcome) is Done:
            return outcome
        if type(outcome) is Released:  # a handler that was cancelled doesn't say why
            return Released(in_doubt=outcome.in_doubt or work.in_doubt)
        if not isinstance(outcome, Later | Dead):
            return outcome
        # Without the environment's secrets: types of the author's say why data isn't theirs.
        outcome = replace(outcome, error=self.masks.own.hide(outcome.error))
        if type(outcome) is Dead:
            return outcome
        return self._of_failure(work, outcome)

    def _of_failure(self, work: Work, outcome: Later) -> Later | Dead:
        if outcome.blocked and work.claim.blocked:
            return _given_up("blocked", outcome)
        if work.claim.attempts + 1 >= self.policy.max_attempts:
            return _given_up("exhausted", outcome)
        if outcome.after is None:
            after = self.policy.backoff.delay(work.claim.attempts + 1, self.random)
            return replace(outcome, after=after)
        return outcome

    def of(self, work: Work, outcome: Outcome) -> Settlement:
        """What Redis is asked for an outcome that is `final`."""
        if isinstance(outcome, Done):
            return self._done(work)
        verb, details = _verb_of(work, outcome, self.policy, self.worker)
        # Packed here, since batches are bounded by bytes.
        return Settlement(work.claim, verb, details, pack(details))

    def _done(self, work: Work) -> Settlement:
        details, packed = self._committed(work.state)
        took, attempts = round(work.seconds * 1000), work.claim.attempts + 1
        tail = told.handled(work.handler, self.code, attempts, took) + told.aged(_age(work))
        return Settlement(work.claim, "done", details, packed, tail)

    def _committed(self, state: State | None) -> tuple[Details, bytes]:
        if state is None:
            details: Details = (self.retention, (), (), False)
        elif state.reads or state.operations:
            reads, operations = tuple(state.reads.items()), tuple(state.operations)
            # What changes nothing needs no received-at, and is mostly as another's of its batch.
            received_at = state.received_at if operations else 0
            details = (self.retention, reads, operations, True, received_at)
        else:
            return self._nothing, self._packed_nothing  # as most leave their state
        return details, pack(details)


def _verb_of(work: Work, outcome: _NotDone, policy: Policy, worker: str) -> tuple[str, Details]:
    """The verb with its details.

    Args:
        work: whose outcome it is.
        outcome: the one that counts.
        policy: the rules.
        worker: that has handled it, by its name.
    """
    match outcome:
        case Later(after=after):
            told = _told(work, outcome, worker)
            milliseconds = round((after or 0.0) * 1000)
            return "retry", (milliseconds, _breaker(outcome, policy), outcome.blocked, told)
        case Dead():
            # What is judged never reaches a handler: that is no attempt.
            last = _told(work, outcome, worker) if outcome.attempted else None
            traceback, burial = printable(outcome.fault.traceback), _burial(work, outcome)
            reason, error, event_type, *_ = burial
            cause = cause_of(reason, event_type, error, traceback)
            return "dead", (*burial, _breaker(outcome, policy), traceback, last, cause)
        case Busy(error=error, after=after):
            details = (math.ceil(after * 1000), printable(error))
            # What a stock arq worker has is its by adoption, without a look at the payload.
            return "throttle", (*details, True) if work.claim.size is None else details
        case Waiting(error=error, patience=patience):
            return "wait", (printable(error), None if patience is None else round(patience * 1000))
        case Duplicate() | Held():
            return ("hold" if type(outcome) is Held else "duplicate"), _begun(work)
        case Released(in_doubt=in_doubt):
            return ("abandon", ()) if in_doubt else ("release", _begun(work))


def printable(text: str) -> str:
    """A text without what UTF-8 can't say: bytes of a header that were none, for one."""
    return text.encode(errors="backslashreplace").decode()


def _given_up(reason: str, outcome: Later) -> Dead:
    failed, fault = outcome.failed, outcome.fault
    return Dead(reason, outcome.error, attempted=True, failed=failed, fault=fault)


def _breaker(outcome: Later | Dead, policy: Policy) -> tuple[Any, ...] | None:
    """What the script needs to judge the organization by; nothing unless a handler failed."""
    return policy.breaker.packed() if outcome.failed else None


def _begun(work: Work) -> tuple[bool, ...]:
    """Whether a handler has begun, in whichever round; nothing unless it has."""
    return (True,) if work.handler else ()


def _burial(work: Work, dead: Dead) -> Details:
    delivery = work.delivery
    return (
        dead.reason,
        printable(dead.error),  # Lua takes no half of a surrogate
        work.type,
        delivery.endpoint if delivery else "",
        delivery.received_at if delivery else 0,
        dead.attempted,
    )


def _age(work: Work) -> int | None:
    """Whole seconds since its acceptance; ``None`` where nobody knows when that was."""
    received_at = work.delivery.received_at if work.delivery else 0
    # Of two whole numbers: so the end, told without its fraction, gives the acceptance's second.
    return int(time.time()) - received_at // 1000 if received_at > 0 else None


def _told(work: Work, outcome: Later | Dead, worker: str) -> Details:
    """What its history keeps of an attempt that came to nothing."""
    error, traceback = outcome.error, outcome.fault.traceback
    short = _cut(error, _MOST_OF_AN_ERROR)
    # The letter has all of it.
    is_cut = type(outcome) is Later and (traceback or short != printable(error))
    return (
        _kind(outcome),
        round(work.seconds * 1000),
        _cut(worker, _MOST_OF_A_NAME),
        _cut(work.handler, _MOST_OF_A_NAME),
        short,
        compressed(traceback or error, _MOST_AT_LENGTH) if is_cut else "",
    )


def _kind(outcome: Later | Dead) -> str:
    """As ``prelude/attempts.lua`` names it."""
    if type(outcome) is Dead and outcome.reason == "rejected":
        return "x"
    if outcome.reason == "blocked" if type(outcome) is Dead else outcome.blocked:
        return "b"
    return "f" if outcome.failed else "a"


def _cut(text: str, most: int) -> str:
    """As much of it as so many bytes hold."""
    raw = text.encode(errors="backslashreplace")
    # By bytes, as Redis counts them, and no half of a character at the end.
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode(errors="ignore") + "…"
