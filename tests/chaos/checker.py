"""Holds what was accepted against what was done. It shares no code with the product.

It reads the sender's ledger, the files of the handlers, and what `kept` has read in Redis.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from tests.chaos import others
from tests.chaos.kept import Kept, read
from tests.chaos.others import Bounds, Others
from tests.chaos.verdict import BROKEN, HELD, NOT_EXERCISED, Finding

# What has to become of an accepted event of each kind.
_APPLIED: Final = frozenset({"good", "flaky", "hostile"})
_BURIED: Final = {
    "reject": "rejected",
    "mismatch": "organization_mismatch",
    "stale": "stale",
    "rubbish": "malformed",
}


@dataclass(slots=True)
class Event:
    """One event, from every witness."""

    id: str
    kind: str
    organization: str
    at: float
    accepted: float | None = None
    answers: Counter[str] = field(default_factory=Counter)
    bodies: set[str] = field(default_factory=set)
    handled: list[Mapping[str, Any]] = field(default_factory=list)
    applied: int = 0
    dead: str | None = None


@dataclass(slots=True)
class Period:
    """From the beginning of a fault to the beginning of the next one."""

    fault: str
    began: float
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All that was found."""

    periods: list[Period]
    findings: list[Finding]
    totals: Mapping[str, int]

    @property
    def holds(self) -> bool:
        """Whether nothing is broken and nothing is not exercised."""
        return all(finding.verdict == HELD for finding in self.findings)

    @property
    def is_broken(self) -> bool:
        """Whether anything is broken."""
        return any(finding.verdict == BROKEN for finding in self.findings)


class Witnesses:
    """What everybody says, gathered by event.

    Args:
        folder: with the ledger and the files of the handlers.
    """

    def __init__(self, folder: Path) -> None:
        self.events: dict[str, Event] = {}
        self.periods: list[Period] = [Period("(none)", 0.0)]
        self.problems: list[str] = []
        self.last_fault_ended = 0.0
        self.quiet_at = 0.0
        self.ended_in_time = False
        self.workers_left = 0
        self.unknown_handled: list[str] = []
        self.others = Others()
        for line in _lines(folder / "ledger.jsonl"):
            self._take(line)
        for path in sorted(folder.glob("handled-*.jsonl")):
            for line in _lines(path):
                event = self.events.get(line["id"])
                if event is None:
                    self.unknown_handled.append(line["id"])
                else:
                    event.handled.append(line)
        for event in self.events.values():
            if event.accepted is not None:
                self._period_at(event.accepted).events.append(event)

    def _take(self, line: Mapping[str, Any]) -> None:
        self.others.take(line)
        match line["what"]:
            case "event":
                self.events[line["id"]] = Event(
                    line["id"], line["kind"], line["organization"], line["at"]
                )
            case "answer":
                self._answer(self.events[line["id"]], line)
            case "fault began":
                self.periods.append(Period(line["fault"], line["at"]))
            case "fault ended":
                self.last_fault_ended = line["at"]
            case "problem":
                self.problems.append(line["text"])
            case "workers left":
                self.workers_left = line["number"]
            case "all ended":
                self.quiet_at, self.ended_in_time = line["at"], line["in_time"]

    def _answer(self, event: Event, line: Mapping[str, Any]) -> None:
        status = line["status"]
        event.answers[str(status) if status is not None else line["code"]] += 1
        if status is not None and 200 <= status < 300:
            event.bodies.add(line["sha"])
            if event.accepted is None:
                event.accepted = line["at"]

    def _period_at(self, moment: float) -> Period:
        return [period for period in self.periods if period.began <= moment][-1]


async def check(
    folder: Path,
    primaries: Sequence[Redis],
    required: Iterable[str],
    quiet_within: float,
    bounds: Bounds | None = None,
) -> Verdict:
    """Draw up the account.

    Args:
        folder: with the ledger and the files of the handlers.
        primaries: all that have anything, after everything has ended.
        required: the faults that had to be exercised.
        quiet_within: seconds after the last fault in which everything had to end.
        bounds: what a fault of some organizations may cost others; ``None`` where all have one
            primary.
    """
    seen = Witnesses(folder)
    kept = await read(primaries)
    _take_kept(kept, seen)
    accepted = [event for event in seen.events.values() if event.accepted is not None]
    findings = [
        _zero("nothing accepted is missing", accepted, _is_missing),
        _zero("nothing is applied twice", seen.events.values(), lambda event: event.applied > 1),
        _zero("nothing stale is applied", _of(accepted, "stale"), _did_something),
        _zero("nothing crosses organizations", accepted, _crossed),
        _zero(
            "what is signed for another organization is buried",
            _of(accepted, "mismatch"),
            lambda event: event.dead != "organization_mismatch",
        ),
        _zero(
            "rubbish that is signed is buried",
            _of(accepted, "rubbish"),
            lambda event: event.dead != "malformed",
        ),
        _zero(
            "what is rejected is buried",
            _of(accepted, "reject"),
            lambda event: event.dead != "rejected",
        ),
        _zero(
            "what fails and then works is applied",
            _of(accepted, "flaky"),
            lambda event: event.applied != 1,
        ),
        _zero(
            "what misbehaves and then works is applied",
            _of(accepted, "hostile"),
            lambda event: event.applied != 1,
        ),
        _zero(
            "no event sees another's context",
            [event for event in accepted if event.handled],
            _saw_another,
        ),
        _zero(
            "what is not signed is refused",
            _of(seen.events.values(), "unsigned"),
            lambda event: event.accepted is not None or _did_something(event),
        ),
        _zero(
            "the sender sees 202, 503 and broken connections, nothing else",
            seen.events.values(),
            _odd_answer,
        ),
        _zero(
            "redelivered bytes change nothing",
            [e for e in accepted if e.answers["202"] > 1 and e.kind in _APPLIED],
            lambda event: event.applied != 1,
        ),
        _zero(
            "other bytes of an event change nothing",
            [e for e in accepted if len(e.bodies) > 1 and e.kind in _APPLIED],
            lambda event: event.applied != 1,
        ),
        _orders_are_newest(kept, accepted),
        _nothing_is_left(kept),
        _all_faults(seen.periods, required),
        _quiet(seen, quiet_within),
        Finding(
            "programs stop as they are told",
            BROKEN if seen.problems else HELD,
            "; ".join(seen.problems),
        ),
        Finding(
            "handlers see only what was sent",
            BROKEN if seen.unknown_handled else HELD,
            ", ".join(seen.unknown_handled[:5]),
        ),
    ]
    if bounds is not None:
        findings += [_each_lives_in_one_place(kept), *others.findings(seen.others, bounds)]
    return Verdict(seen.periods, findings, _totals(seen, accepted))


def _is_missing(event: Event) -> bool:
    if event.kind in _APPLIED:
        return event.applied == 0
    return event.kind in _BURIED and event.dead is None


def _did_something(event: Event) -> bool:
    return bool(event.applied or event.handled)


def _crossed(event: Event) -> bool:
    return any(
        line["organization"] != event.organization or line["claimed"] != event.organization
        for line in event.handled
    )


def _saw_another(event: Event) -> bool:
    """Whether its handler began in a context that another event, or another attempt, had left."""
    return any(line.get("context") for line in event.handled)


def _odd_answer(event: Event) -> bool:
    expected = {"202", "503"} if event.kind != "unsigned" else {"401", "503"}
    return any(answer.isdigit() and answer not in expected for answer in event.answers)


def _of(events: Iterable[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def _zero(invariant: str, events: Iterable[Event], breaks: Any) -> Finding:
    looked_at = list(events)
    broken = [event for event in looked_at if breaks(event)]
    if broken:
        shown = ", ".join(_shown(event) for event in broken[:5])
        return Finding(invariant, BROKEN, f"{len(broken)} of {len(looked_at)}: {shown}")
    return Finding(invariant, HELD if looked_at else NOT_EXERCISED, f"{len(looked_at)} events")


def _shown(event: Event) -> str:
    return (
        f"{event.id} ({event.kind}, {event.organization}, answers {dict(event.answers)}, "
        f"handled {len(event.handled)}, applied {event.applied}, dead {event.dead})"
    )


def _take_kept(kept: Kept, seen: Witnesses) -> None:
    """What Redis says of each event: how often it changed any state, and why it is dead."""
    for organization, event_id, times in kept.applied:
        event = seen.events.get(event_id)
        if event is not None:
            event.applied += times
            if organization != event.organization:
                event.handled.append({"organization": organization, "claimed": event.organization})
    by_body = {sha: event for event in seen.events.values() for sha in event.bodies}
    for sha, reason in kept.dead:
        event = by_body.get(sha)
        if event is not None:
            event.dead = reason


def _orders_are_newest(kept: Kept, accepted: list[Event]) -> Finding:
    """Each order's value is one whose version no other write was newer than.

    The handlers write the time at which the event happened, as value and as version.
    """
    invariant = "an older event never replaces a newer one"
    broken = [
        f"{order} of {organization} holds {value} as version {version}"
        for (organization, order), (value, version) in kept.orders.items()
        if value * 1000 != int(version)
    ]
    for order, want in _newest_by_order(accepted).items():
        got, _ = kept.orders.get(order, (0, 0.0))
        if got < want:
            broken.append(f"{order}: {got} rather than {want}")
    if broken:
        return Finding(invariant, BROKEN, "; ".join(broken[:5]))
    return Finding(invariant, HELD if kept.orders else NOT_EXERCISED, f"{len(kept.orders)} orders")


def _newest_by_order(accepted: list[Event]) -> dict[tuple[str, str], int]:
    """By each order the newest event that was applied to it."""
    wanted: dict[tuple[str, str], int] = defaultdict(int)
    for event in accepted:
        for line in event.handled if event.applied else ():
            if "order" in line:
                order = (event.organization, line["order"])
                wanted[order] = max(wanted[order], int(line["number"]))
    return wanted


def _nothing_is_left(kept: Kept) -> Finding:
    """No job, no claim, no slot, no count of what is not there."""
    verdict = BROKEN if kept.left else HELD
    return Finding("in the end nothing is left half done", verdict, ", ".join(kept.left[:5]))


def _each_lives_in_one_place(kept: Kept) -> Finding:
    """What a move has taken along is nowhere else."""
    split = [
        f"{organization} in {', '.join(sorted(tags))}"
        for organization, tags in kept.places.items()
        if len(tags) > 1
    ]
    verdict = BROKEN if split else HELD if kept.places else NOT_EXERCISED
    tags = {tag for each in kept.places.values() for tag in each}
    detail = "; ".join(split[:5]) or f"{len(kept.places)} in {len(tags)}"
    return Finding("each organization is in one partition", verdict, detail)


def _all_faults(periods: list[Period], required: Iterable[str]) -> Finding:
    """A fault is exercised when events were accepted from its beginning to the next one's."""
    exercised = Counter(period.fault for period in periods if period.events)
    missing = [fault for fault in required if not exercised[fault]]
    detail = f"without events: {', '.join(missing)}" if missing else f"{len(periods) - 1} faults"
    return Finding("every kind of fault", NOT_EXERCISED if missing else HELD, detail)


def _quiet(seen: Witnesses, within: float) -> Finding:
    invariant = f"all has ended {within:g} s after the last fault"
    if not seen.ended_in_time:
        return Finding(invariant, BROKEN, "it had not when the run was given up")
    took = seen.quiet_at - seen.last_fault_ended
    return Finding(invariant, HELD if took <= within else BROKEN, f"{took:.1f} s")


def _totals(seen: Witnesses, accepted: list[Event]) -> Mapping[str, int]:
    answers: Counter[str] = Counter()
    for event in seen.events.values():
        answers.update(event.answers)
    return {
        "sent": len(seen.events),
        "accepted": len(accepted),
        "faults": len(seen.periods) - 1,
        "workers left": seen.workers_left,
        "missing": sum(map(_is_missing, accepted)),
        "applied twice": sum(event.applied > 1 for event in seen.events.values()),
        "applied stale": sum(event.kind == "stale" and _did_something(event) for event in accepted),
        "crossed": sum(map(_crossed, accepted)),
        **{f"answer {name}": number for name, number in sorted(answers.items())},
    }


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """The JSON lines of a file; the last one of a killed process may be cut."""
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(text)
            except ValueError:
                continue
