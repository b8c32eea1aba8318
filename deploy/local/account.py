"""Compares what became of the events of a plan with what had to become of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.local.demo_handlers import FAILURES
from deploy.local.plan import ACCEPTED, DEAD, KNOWN, REFUSED, Event, Kind, Order, Plan, accepted
from deploy.local.system import System
from shared.queue.partition import home

Name = tuple[str, str]
"""An organization's id, and the id of an event or an order of it."""

_MOST_NAMED: Final = 10
_ENDS: Final = ("handled", "duplicate", "held", "dead")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as the worker's command lists it.

    Attributes:
        name: whose it is, and the event's id, or the job's where the body gave none.
        reason: why.
    """

    name: Name
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the events in the end, each part from another source.

    Attributes:
        answers: the sender's: the answer to each delivery by its number.
        unanswered: the sender's: requests that it had to send again.
        ingress: the metrics of the ingress: requests by outcome.
        counters: Redis's: what the transitions counted.
        waiting: Redis's: accepted events that are not finished.
        dead: the dead letters.
        applied: the state: how often each event was applied.
        attempts: the state: how many attempts an event needed, where more than one.
        orders: the state: the projection of each order, as it stands there.
        partitions: how many dead letters each of several partitions says that it has.
    """

    answers: Mapping[int, str]
    unanswered: int
    ingress: Mapping[str, int]
    counters: Mapping[str, int]
    waiting: int
    dead: Sequence[DeadLetter]
    applied: Mapping[Name, int]
    attempts: Mapping[Name, int]
    orders: Mapping[Name, Mapping[str, Any]]
    partitions: Sequence[int] = ()

    @property
    def accepted(self) -> int:
        """Deliveries that the sender was told are accepted, new or known."""
        return accepted(Counter(self.answers.values()))

    @property
    def stored(self) -> int:
        """Deliveries that Redis was given, new or known."""
        return accepted(self.counters)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the account.

    Attributes:
        name: what was counted.
        expected: by the plan.
        got: by the first of those who told.
        note: who told it; of a part, what was sent.
        is_part: whether it is a part of the row above.
    """

    name: str
    expected: int
    got: int
    note: str = ""
    is_part: bool = False

    @property
    def balances(self) -> bool:
        """Whether it is as expected."""
        return self.expected == self.got


@dataclass(frozen=True, slots=True)
class Account:
    """The whole account.

    Attributes:
        rows: expected and got.
        complaints: what doesn't agree, with the events that it is about.
    """

    rows: Sequence[Row]
    complaints: Sequence[str]

    @property
    def balances(self) -> bool:
        """Whether everything is as expected, to the last event."""
        return not self.complaints and all(row.balances for row in self.rows)

    def got(self, name: str) -> int:
        """What was counted."""
        return next(row.got for row in self.rows if row.name == name)


def evidence(
    plan: Plan,
    system: System,
    answers: Mapping[int, str],
    unanswered: int,
    ingress: Mapping[str, int],
) -> Evidence:
    """Put together what is known already, and what the worker's commands tell.

    Args:
        plan: what was sent.
        system: where to.
        answers: as in `Evidence`.
        unanswered: as in `Evidence`.
        ingress: as in `Evidence`.

    Raises:
        ProgramError: a command failed.
    """
    # One more than there can be, so that one too many is seen.
    most = str(len(plan.deliveries) + 1)
    names = [organization.id for organization in plan.organizations]
    (status,), letters, partitions, *states = system.ask_worker(
        ("status",),
        ("dead-letters", "list", "--limit", most),
        ("partitions",),
        *(("state", name) for name in names),
    )
    by_organization = dict(zip(names, states, strict=True))
    return Evidence(
        answers=answers,
        unanswered=unanswered,
        ingress=ingress,
        counters=status["counters"],
        waiting=status["waiting"],
        dead=[_dead_letter(each) for each in letters],
        applied=under("applied/", by_organization),
        attempts=under("attempts/", by_organization),
        orders=under("orders/", by_organization),
        partitions=[each["dead"] for each in partitions] if system.partitions > 1 else (),
    )


def _dead_letter(line: Mapping[str, Any]) -> DeadLetter:
    # What is no envelope has no id, and is named by its bytes: a job's id, which the tag of its
    # partition stands in front of.
    named = line["event_id"] or line["job"].rpartition("}")[2]
    return DeadLetter((line["organization"], named), line["reason"])


def under(prefix: str, states: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[Name, Any]:
    """What the state of organizations holds under a prefix, by organization and rest of the key."""
    return {
        (organization, line["key"].removeprefix(prefix)): line["value"]
        for organization, lines in states.items()
        for line in lines
        if line["key"].startswith(prefix)
    }


def account(plan: Plan, evidence: Evidence) -> Account:
    """Draw up the account."""
    return Account(
        rows=[*_ingress_rows(plan, evidence), *_worker_rows(plan, evidence)],
        complaints=[
            *_about_answers(plan, evidence),
            *_about_sources(evidence),
            *_about_applied(plan, evidence),
            *_about_attempts(plan, evidence),
            *_about_dead(plan, evidence),
            *_about_partitions(plan, evidence),
            *_about_orders(plan, evidence),
        ],
    )


def _ingress_rows(plan: Plan, evidence: Evidence) -> Iterator[Row]:
    expected = Counter(_expected_answer(each.event) for each in plan.deliveries)
    to_accept = expected.pop(ACCEPTED)
    got = Counter(evidence.answers.values())
    refused = {code: got[code] for code in sorted({*expected, *got} - {ACCEPTED, KNOWN})}
    yield Row("sent", len(plan.deliveries), len(evidence.answers), "sender")
    yield Row("refused", expected.total(), sum(refused.values()), "sender, metrics")
    for code, number in refused.items():
        yield Row(code, expected[code], number, _kinds(REFUSED, code), is_part=True)
    yield Row("accepted", to_accept, evidence.accepted, "sender, metrics, worker status")


def _worker_rows(plan: Plan, evidence: Evidence) -> Iterator[Row]:
    applied = [event for event in plan.events if event.is_applied]
    dead = Counter(DEAD[event.kind] for event in plan.events if event.kind in DEAD)
    found = Counter(letter.reason for letter in evidence.dead)
    again = sum(each.is_again and each.event.kind not in REFUSED for each in plan.deliveries)
    counted = evidence.counters
    handled, retried = counted.get("handled", 0), counted.get("retried", 0)
    failures = plan.kinds[Kind.FLAKY] * FAILURES
    yield Row("handled", len(applied), handled, "worker status, counter per event")
    yield Row("duplicates", again, _duplicates(evidence), _duplicates_note(evidence))
    yield Row("retried", failures, retried, "worker status, worker state")
    yield Row("dead", dead.total(), len(evidence.dead), "worker status, dead-letters list")
    for reason in sorted({*dead, *found}):
        yield Row(reason, dead[reason], found[reason], _kinds(DEAD, reason), is_part=True)
    yield Row("waiting", 0, evidence.waiting, "worker status")


def _duplicates(evidence: Evidence) -> int:
    """Redeliveries that did no work twice, wherever that was noticed.

    At the ingress (known), by a worker (duplicate, or held where the event is dead), or by dying a
    second time of the same cause.
    A request that was sent again for want of an answer may be stored twice; it is none.
    """
    # Such a request may have been stored before its answer was lost: then it is known the second
    # time.
    doubtful = max(0, evidence.stored - evidence.accepted)
    return evidence.counters.get("known", 0) + _noticed_by_worker(evidence) - doubtful


def _duplicates_note(evidence: Evidence) -> str:
    known, by_worker = evidence.counters.get("known", 0), _noticed_by_worker(evidence)
    return f"at ingress {known:,}, at worker {by_worker:,}"


def _noticed_by_worker(evidence: Evidence) -> int:
    counted = evidence.counters
    died_again = counted.get("dead", 0) - len(evidence.dead)
    return counted.get("duplicate", 0) + counted.get("held", 0) + died_again


def _kinds(ends: Mapping[Kind, str], end: str) -> str:
    return ", ".join(kind.value for kind, its_end in ends.items() if its_end == end)


def _about_answers(plan: Plan, evidence: Evidence) -> Iterator[str]:
    wrong: dict[tuple[str, str], list[Name]] = defaultdict(list)
    for delivery in plan.deliveries:
        expected = _expected_answer(delivery.event)
        got = evidence.answers.get(delivery.number, "no answer")
        # A redelivery in the same bytes is known, but only where the first was faster: both are
        # right.
        if got != expected and (expected, got) != (ACCEPTED, KNOWN):
            wrong[expected, got].append(_name(delivery.event))
    for (expected, got), names in wrong.items():
        yield f"answered {got} instead of {expected}: {listed(names)}"


def _expected_answer(event: Event) -> str:
    return REFUSED.get(event.kind, ACCEPTED)


def _about_sources(evidence: Evidence) -> Iterator[str]:
    """Two who have counted the same must agree; only what wasn't answered is in doubt."""
    seen = Counter(evidence.answers.values())
    pairs = [
        ("accepted", "Redis", evidence.accepted, evidence.stored),
        ("accepted", "the ingress", evidence.accepted, accepted(evidence.ingress)),
        *(
            (code, "the ingress", number, evidence.ingress.get(code, 0))
            for code, number in sorted(seen.items())
            if code not in {ACCEPTED, KNOWN}
        ),
    ]
    for what, who, answered, counted in pairs:
        # Without an answer nobody can tell whether the other side has counted; but there can't be
        # more of those than requests that went unanswered.
        if not answered <= counted <= answered + evidence.unanswered:
            yield f"the sender saw {answered:,} {what}, but {who} counted {counted:,}"
    ended = sum(evidence.counters.get(name, 0) for name in _ENDS)
    taken = evidence.counters.get("accepted", 0)
    # The conservation law: what Redis took has ended once, or waits. It holds whatever the plan
    # was.
    if taken != ended + evidence.waiting:
        yield (
            f"Redis took {taken:,} new deliveries, but {ended:,} ended and "
            f"{evidence.waiting:,} wait"
        )


def _about_applied(plan: Plan, evidence: Evidence) -> Iterator[str]:
    expected = {_name(event) for event in plan.events if event.is_applied}
    by_times: dict[int, list[Name]] = defaultdict(list)
    for name in sorted(expected):
        by_times[evidence.applied.get(name, 0)].append(name)
    for times, names in by_times.items():
        if times == 0:
            yield f"accepted, but never applied: {listed(names)}"
        elif times != 1:
            yield f"applied {times} times: {listed(names)}"
    if surplus := sorted(evidence.applied.keys() - expected):
        yield f"applied, though it must not be: {listed(surplus)}"


def _about_attempts(plan: Plan, evidence: Evidence) -> Iterator[str]:
    needed = FAILURES + 1
    expected = {_name(event): needed for event in plan.events if event.kind is Kind.FLAKY}
    # Those that were never applied are told of already.
    applied = expected.keys() & evidence.applied.keys()
    if wrong := sorted(n for n in applied if evidence.attempts.get(n, 1) != needed):
        yield f"handled by another than attempt {needed}: {listed(wrong)}"
    if surplus := sorted(evidence.attempts.keys() - expected.keys()):
        yield f"needed more than one attempt: {listed(surplus)}"


def _about_dead(plan: Plan, evidence: Evidence) -> Iterator[str]:
    expected = {_name(event): DEAD[event.kind] for event in plan.events if event.kind in DEAD}
    found: dict[Name, list[str]] = defaultdict(list)
    for letter in evidence.dead:
        found[letter.name].append(letter.reason)
    wrong: dict[str, list[Name]] = defaultdict(list)
    for name in sorted(expected.keys() | found.keys()):
        reasons = found.get(name, [])
        if reasons != [expected.get(name)]:
            should = expected.get(name, "handled")
            wrong[f"{' and '.join(reasons) or 'no'} dead letter, expected {should}"].append(name)
    for what, names in wrong.items():
        yield f"{what}: {listed(names)}"


def _about_partitions(plan: Plan, evidence: Evidence) -> Iterator[str]:
    """Each organization's dead letters have to be where it lives."""
    dead = Counter(
        home(each.organization, len(evidence.partitions))
        for each in plan.events
        if each.kind in DEAD and evidence.partitions
    )
    for number, found in enumerate(evidence.partitions):
        if found != dead[number]:
            yield f"partition {number}: {found:,} dead letters, expected {dead[number]:,}"


def _about_orders(plan: Plan, evidence: Evidence) -> Iterator[str]:
    found = {name: _order(value) for name, value in evidence.orders.items()}
    names = plan.orders.keys() | found.keys()
    if wrong := sorted(n for n in names if plan.orders.get(n) != found.get(n)):
        yield f"orders whose projection is not what their events make: {listed(wrong)}"


def _order(value: Mapping[str, Any]) -> Order:
    return Order(value["status"], tuple(entry["event_id"] for entry in value["timeline"]))


def _name(event: Event) -> Name:
    return event.organization, event.name


def listed(names: Sequence[Name]) -> str:
    """The first of some events, for people."""
    shown = ", ".join(f"{name} of {organization}" for organization, name in names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else "")
