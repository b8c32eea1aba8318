"""Holds what was accepted against what was done. It shares no code with the product.

It reads the sender's ledger, the files of the handlers, and the plain keys of Redis.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

HELD: Final = "held"
BROKEN: Final = "broken"
NOT_EXERCISED: Final = "not exercised"

# What has to become of an accepted event of each kind.
_APPLIED: Final = frozenset({"good", "flaky", "hostile"})
_BURIED: Final = {
    "reject": "rejected",
    "mismatch": "organization_mismatch",
    "stale": "stale",
    "rubbish": "malformed",
}
_PAGE: Final = 1000


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
class Finding:
    """One invariant and how it fared."""

    invariant: str
    verdict: str
    detail: str


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
    folder: Path, redis: Redis, required: Iterable[str], quiet_within: float
) -> Verdict:
    """Draw up the account.

    Args:
        folder: with the ledger and the files of the handlers.
        redis: the primary, after everything has ended.
        required: the faults that had to be exercised.
        quiet_within: seconds after the last fault in which everything had to end.
    """
    seen = Witnesses(folder)
    await _read_state(redis, seen)
    await _read_dead(redis, seen)
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
        await _orders_are_newest(redis, accepted),
        await _nothing_is_left(redis),
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


async def _read_state(redis: Redis, seen: Witnesses) -> None:
    """How often each event changed the state of any organization."""
    async for name in redis.scan_iter(match="sellfern:state:*:applied/*", count=_PAGE):
        head, _, event_id = name.decode().partition(":applied/")
        event = seen.events.get(event_id)
        if event is not None:
            event.applied += int(await redis.get(name))
            if head.rpartition(":")[2] != event.organization:
                event.handled.append(
                    {"organization": head.rpartition(":")[2], "claimed": event.organization}
                )


async def _read_dead(redis: Redis, seen: Witnesses) -> None:
    by_body = {sha: event for event in seen.events.values() for sha in event.bodies}
    async for name in redis.scan_iter(match="sellfern:dead-letter:*", count=_PAGE):
        record = await redis.hgetall(name)
        event = by_body.get(name.decode().rpartition(":")[2])
        if event is not None:
            event.dead = record[b"reason"].decode()


async def _orders_are_newest(redis: Redis, accepted: list[Event]) -> Finding:
    """Each order's value is one whose version no other write was newer than.

    The handlers write the time at which the event happened, as value and as version.
    """
    invariant = "an older event never replaces a newer one"
    looked_at, broken = 0, []
    async for name in redis.scan_iter(match="sellfern:state:*:orders/*", count=_PAGE):
        raw = (await redis.get(name)).decode()
        value, version, _ = raw.split("\n")
        looked_at += 1
        if int(value) * 1000 != int(float(version)):
            broken.append(f"{name.decode()} holds {value} as version {version}")
    newest = await _newest_by_order(redis, accepted)
    broken += [f"{name}: {got} rather than {want}" for name, got, want in newest if got < want]
    if broken:
        return Finding(invariant, BROKEN, "; ".join(broken[:5]))
    return Finding(invariant, HELD if looked_at else NOT_EXERCISED, f"{looked_at} orders")


async def _newest_by_order(redis: Redis, accepted: list[Event]) -> list[tuple[str, int, int]]:
    """What each order holds, beside the newest event that was applied to it."""
    wanted: dict[str, int] = defaultdict(int)
    for event in accepted:
        for line in event.handled if event.applied else ():
            if "order" in line:
                name = f"sellfern:state:{event.organization}:orders/{line['order']}"
                wanted[name] = max(wanted[name], int(line["number"]))
    found = []
    for name, want in wanted.items():
        raw = await redis.get(name)
        found.append((name, int(raw.decode().partition("\n")[0]) if raw else 0, want))
    return found


async def _nothing_is_left(redis: Redis) -> Finding:
    """No job, no claim, no slot, no count of what is not there."""
    left = []
    for name in ("queue", "claims", "running", "accepted", "waiting"):
        kind = (await redis.type(f"sellfern:{name}")).decode()
        if kind != "none":
            left.append(f"sellfern:{name}")
    for pattern in ("arq:job:*", "sellfern:parked:*"):
        left += [name.decode() async for name in redis.scan_iter(match=pattern, count=_PAGE)]
    left += [
        name.decode()
        async for name in redis.scan_iter(match="sellfern:event:*", count=_PAGE)
        if (await redis.get(name)).startswith(b"pending:")
    ]
    verdict = BROKEN if left else HELD
    return Finding("in the end nothing is left half done", verdict, ", ".join(left[:5]))


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
