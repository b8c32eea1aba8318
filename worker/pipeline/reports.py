"""Tells the log and the metrics how each event ended."""

import re
from dataclasses import dataclass, field
from typing import Final, Protocol

from shared.observe import metrics
from shared.observe.logs import FixedLine, get_logger
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.sellfern.envelope import Envelope
from worker.outcomes import Busy, Dead, Done, Fault, Later, Outcome, Waiting
from worker.pipeline.transitions import Claim, Mark, Marked, Settled
from worker.pipeline.work import Work

# Nearly every event: found without a look at a table, whose keys Python would have to hash.
_DONE: Final = Settled.DONE
_HANDLED: Final = "handled"
_COUNT_HANDLED: Final = metrics.EVENTS.labels(_HANDLED)
_ACCEPTED_TO_HANDLED: Final = metrics.ACCEPTED_TO_HANDLED.labels()

_ON_ITS_WAY: Final = {
    Settled.OVERDUE,
    Settled.REMOVED,
    Settled.AGAIN,
    Settled.CONFLICT,
    Settled.LATER,
}
"""Another round follows, or another look at its turn."""
_COUNTS: Final = {
    settled: metrics.EVENTS.labels(settled.value)
    for settled in Settled
    if settled not in {_DONE, *_ON_ITS_WAY}
}
_IN_LINE, _SUPERSEDED = _COUNTS[Settled.IN_LINE], _COUNTS[Settled.SUPERSEDED]
_CONFLICTING = metrics.EVENTS.labels("conflicting")
_FIELDS = ("job", "event_id", "type", "attempt", "seconds")

# msgspec quotes the value that is none of an enum's or a union's, and a field that it doesn't know.
_QUOTED = re.compile(r"'.*'|(?<=unknown field )`.*`", re.DOTALL)


class Reporter(Protocol):
    """Is told how each event ended, and what was odd about it on its way."""

    def conflicting(self, claim: Claim, envelope: Envelope) -> None:
        """An event id has come with other bytes than before."""

    def key_unread(self, work: Work, error: str) -> None:
        """An event goes without the turn that its handler asks for."""

    def not_its_turn(self, work: Work, marked: Marked) -> Settled:
        """A job has left its worker at its mark; what has become of it."""
        ...

    def settled(self, work: Work, outcome: Outcome, settled: Settled, *, now: float) -> None:
        """A job was settled, or was to be."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where the ends of events are told.

    Attributes:
        log: one line for each.
        handled: logs what nearly all lines say; without it `log` does that, too.
    """

    log: FilteringBoundLogger
    handled: FixedLine | None = None
    _odd: set[str] = field(default_factory=set)

    @classmethod
    def of_many(cls) -> "Report":
        """One for thousands of events a second; to be made after ``logs.configure``."""
        return cls(get_logger().bind(), FixedLine("event_handled", *_FIELDS))

    def conflicting(self, claim: Claim, envelope: Envelope) -> None:
        """An event id has come with other bytes than before."""
        _CONFLICTING.inc()
        self.log.warning("event_conflicting", job=claim.job, event_id=envelope.id)

    def key_unread(self, work: Work, error: str) -> None:
        """An event goes without the turn that its handler asks for."""
        metrics.KEYS_UNREAD.inc()
        self._line("warning", "event_key_unread", work, error=_QUOTED.sub("…", error))

    def not_its_turn(self, work: Work, marked: Marked) -> Settled:
        """A job has left its worker at its mark; what has become of it."""
        if marked.mark is Mark.LATER:
            return Settled.LATER  # it asks again in a moment, perhaps many times
        if marked.mark is Mark.SUPERSEDED:
            _SUPERSEDED.inc()
            self._line("info", "event_superseded", work)
            return Settled.SUPERSEDED
        _IN_LINE.inc()
        for event_id in marked.superseded:  # an older one that waited, which it has ended
            _SUPERSEDED.inc()
            by = work.envelope.id if work.envelope else None
            self.log.info("event_superseded", event_id=event_id, by=by)
        return Settled.IN_LINE

    def settled(self, work: Work, outcome: Outcome, settled: Settled, *, now: float) -> None:
        """A job was settled, or was to be.

        Args:
            work: the job, with what is known of it.
            outcome: what was asked.
            settled: what Redis made of it.
            now: seconds since the epoch.
        """
        if settled is _DONE:
            self._handled(work, outcome, now)
            return
        if settled in {Settled.CONFLICT, Settled.IN_LINE, Settled.LATER}:
            metrics.STATE_CONFLICTS.inc()
        if settled in _ON_ITS_WAY:
            return
        _COUNTS[settled].inc()
        _observe_duration(work, settled.value)
        match settled:
            case Settled.WAITING if isinstance(outcome, Waiting):
                self._line("warning", "event_waiting", work, error=outcome.error)
            case Settled.THROTTLED if isinstance(outcome, Busy):
                asked = {"error": outcome.error, "after": outcome.after}
                self._line("warning", "event_throttled", work, **asked)
            case Settled.RETRIED if isinstance(outcome, Later):
                self._line("warning", "event_retried", work, **_told(outcome.error, outcome.fault))
            case Settled.DEAD if isinstance(outcome, Dead):
                self._buried(work, outcome)
            case Settled.LOST | Settled.HELD:
                self._line("warning", f"event_{settled.value}", work)
            case _:
                self._line("info", f"event_{settled.value}", work)

    def _handled(self, work: Work, outcome: Outcome, now: float) -> None:
        _COUNT_HANDLED.inc()
        _observe_duration(work, _HANDLED)
        if work.delivery is not None:
            _ACCEPTED_TO_HANDLED.observe(max(0.0, now - work.delivery.received_at / 1000))
        if self.handled is None:
            self._line("info", "event_handled", work)
        else:
            self.handled(*_values(work))
        if type(outcome) is Done and outcome.returned:
            self._note_value(work, outcome.returned)

    def _note_value(self, work: Work, kind: str) -> None:
        """Say once of a handler that nobody reads what it returns."""
        if work.handler not in self._odd:
            self._odd.add(work.handler)
            self.log.warning("handler_returned_value", handler=work.handler, value=kind)

    def _buried(self, work: Work, outcome: Dead) -> None:
        metrics.DEAD_LETTERS.labels(outcome.reason).inc()
        if outcome.reason == "organization_mismatch":
            metrics.ORGANIZATION_MISMATCHES.inc()
            self._line("warning", "organization_mismatch", work)
        told = _told(_loggable(outcome), outcome.fault)
        self._line("error", "event_dead", work, reason=outcome.reason, **told)

    def _line(self, level: str, event: str, work: Work, **fields: object) -> None:
        known = dict(zip(_FIELDS, _values(work), strict=True))
        getattr(self.log, level)(event, **known, **fields)


def _observe_duration(work: Work, end: str) -> None:
    if work.seconds and work.envelope:  # only types of the reference reach a handler
        metrics.HANDLER_DURATION.labels(work.envelope.type, end).observe(work.seconds)


def _values(work: Work) -> tuple[str, str | None, str | None, int, float]:
    """What every line says, as `_FIELDS` names it."""
    claim, envelope = work.claim, work.envelope
    event_id, event_type = (envelope.id, envelope.type) if envelope else (None, None)
    return claim.job, event_id, event_type, claim.attempts + 1, round(work.seconds, 6)


def _told(error: str, fault: Fault) -> dict[str, object]:
    """What a line says of a failure."""
    return {"error": error, "traceback": fault.traceback} if fault.traceback else {"error": error}


def _loggable(dead: Dead) -> str:
    """The error without what it quotes of a body, which only the dead letter shows."""
    return _QUOTED.sub("…", dead.error) if dead.reason == "malformed" else dead.error
