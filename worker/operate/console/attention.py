"""Says what an operator should look at first: is anything stuck, whose, why, what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal
from urllib.parse import quote

from shared.display import counted, roughly, size
from shared.queue.marker import unwatched_since
from shared.queue.reach import sentences
from worker.operate.history import History
from worker.operate.organizations import MOVES, Trouble
from worker.operate.overview import OrganizationOverview, Overview
from worker.operate.workers import sentence, troubles

_OLD_SECONDS: Final = 300.0
_FAILURES_IN_A_ROW: Final = 5
_MOST_ORGANIZATIONS: Final = 5
_MOST_PAUSED: Final = 3
_MOST_TROUBLES: Final = 3
_LATELY: Final = 900.0
_NEARLY_FULL: Final = 0.7
_MORE: Final = ("more organization is", "more organizations are")
_DIED: Final = ("event became a dead letter", "events became dead letters")

Level = Literal["bad", "warn", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    Attributes:
        level: how bad it is.
        what: a short sentence.
        advice: what to do about it.
        link: where to do it; empty where it isn't done here.
        verb: what the link says.
        about: the organization that it acts on, if on one.
        other_verb: what else may be done to that; empty where there is nothing.
        other_link: where to do that.
    """

    level: Level
    what: str
    advice: str
    link: str = ""
    verb: str = ""
    about: str = ""
    other_verb: str = ""
    other_link: str = ""


def findings(overview: Overview, history: History) -> list[Finding]:
    """What there is to look at, the worst first; empty when all is well."""
    found = [
        *_missing(overview),
        *_incidents(overview),
        *_workers(overview),
        *_organizations(overview),
        *_dead(history),
        *_memory(overview),
        *_age(overview),
    ]
    order = {"bad": 0, "warn": 1, "info": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _missing(overview: Overview) -> Iterator[Finding]:
    for each in sentences(overview.left_out):
        yield Finding(
            "bad",
            _sentence(each),
            "What is there waits, and new events of its organizations are refused meanwhile.",
        )


def _incidents(overview: Overview) -> Iterator[Finding]:
    for each in overview.incidents or ():
        yield Finding(
            "bad",
            _sentence(each.sentence),
            "deploy/recovery.md says what that means, and what can be had back.",
        )
    if overview.unwatched_since:
        yield Finding(
            "warn",
            _sentence(unwatched_since(overview.unwatched_since)),
            "No ingress and no worker runs; or they are of an earlier version.",
        )


def _workers(overview: Overview) -> Iterator[Finding]:
    slots = sum(worker.slots for worker in overview.workers)
    if not overview.workers and overview.waiting:
        yield Finding(
            "bad",
            f"No worker is alive, and {_waiting(overview.waiting)}.",
            "Start one: python -m worker",
        )
    elif overview.ready > slots and overview.running >= slots:
        busy = "The only slot is busy" if slots == 1 else f"All {slots:,} slots are busy"
        yield Finding(
            "warn",
            f"{busy}, and {counted(overview.ready, 'event is', 'events are')} in line.",
            "Start more workers, or give them more slots.",
            "/workers",
            "Workers",
        )
    yield from _troubles(overview)
    if overview.unhandled:
        yield Finding(
            "warn",
            f"{_waiting(overview.unhandled)} for a worker that has a handler.",
            "Their type has no handler, or a newer version wrote them: start workers that know.",
        )
    if overview.undivided:
        yield Finding(
            "bad",
            f"{_waiting(overview.undivided)} undivided, where no worker of partitions looks.",
            "An ingress with PARTITIONS=1 has accepted them; python -m worker check says where.",
        )
    versions = sorted({worker.version for worker in overview.workers})
    if len(versions) > 1:
        yield Finding(
            "info",
            f"Workers of {len(versions)} versions are alive: {', '.join(versions)}.",
            "That is fine during a deployment, and not for long.",
            "/workers",
            "Workers",
        )


def _troubles(overview: Overview) -> Iterator[Finding]:
    """What is stuck, or blocks a worker; which ones are lost."""
    found = [*troubles(overview.workers)]
    for each in found[:_MOST_TROUBLES]:
        text = sentence(each, overview.at)
        where = f"It is at {each.stack.rpartition(' > ')[2]}. " if each.stack else ""
        is_blocked = each.state == "blocking"
        advice = (
            "Nothing else of that worker runs meanwhile; beyond HANDLER_TIMEOUT it ends by itself."
            if is_blocked
            else "Its event is settled; restart the worker to be rid of it."
        )
        level: Level = "bad" if is_blocked else "warn"
        yield Finding(level, _sentence(text), where + advice, "/running", "Running now")
    told = sum(each.state == "stuck" for each in found[:_MOST_TROUBLES])
    stuck = sum(worker.stuck for worker in overview.workers) - told
    if stuck > 0:
        more = " more" if told else ""
        goes_on = (
            "handler goes on though it was" if stuck == 1 else "handlers go on though they were"
        )
        yield Finding(
            "warn",
            f"{stuck:,}{more} {goes_on} cancelled and no longer waited for.",
            "The log says where (handler_stuck); restart the workers that have them.",
            "/running",
            "Running now",
        )
    yield from _lost(overview)


def _lost(overview: Overview) -> Iterator[Finding]:
    lost = overview.lost or []
    for each in lost[:_MOST_TROUBLES]:
        ago = roughly(max(0.0, overview.at - each.at))
        level: Level = "warn" if overview.at - each.at < _LATELY else "info"
        advice = "It was killed, or cut off from Redis, or its machine is gone: see its log."
        what = f"{_sentence(each.sentence)} It counts as gone for {ago}."
        yield Finding(level, what, advice, "/workers", "Workers")
    if more := len(lost[_MOST_TROUBLES:]):
        what = f"{counted(more, 'more worker')} went without a word within the last hour."
        yield Finding("warn", what, "", "/workers", "Workers")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _memory(overview: Overview) -> Iterator[Finding]:
    memory = overview.fullest or overview.memory
    used, limit = memory.used, memory.limit
    if not limit or used < _NEARLY_FULL * limit:
        return
    worst = max(overview.organizations, key=lambda each: each.bytes_held, default=None)
    most = f" {worst.organization} holds {size(worst.bytes_held)}." if worst else ""
    yield Finding(
        "bad" if used >= limit else "warn",
        f"Redis is {used / limit:.0%} full, {size(used)} of {size(limit)}.{most}",
        "Whoever holds most is refused first: export and discard its dead letters, or raise "
        "maxmemory.",
        "/organizations?sort=bytes",
        "Organizations",
    )


def _organizations(overview: Overview) -> Iterator[Finding]:
    # Few are told, so those that have the most to lose by it.
    worst = sorted(overview.organizations, key=lambda each: -each.waiting)
    told = [finding for each in worst if (finding := _organization(each, overview.at)) is not None]
    yield from told[:_MOST_ORGANIZATIONS]
    if len(told) > _MOST_ORGANIZATIONS:
        yield Finding(
            "warn",
            f"{counted(len(told) - _MOST_ORGANIZATIONS, *_MORE)} held or failing.",
            "",
            "/organizations?show=held",
            "Show all that are held",
        )
    # By themselves: somebody wanted it so, and they are to hide none that fails.
    yield from _paused([each for each in worst if each.paused is not None], overview.at)


def _paused(paused: Sequence[OrganizationOverview], at: float) -> Iterator[Finding]:
    if len(paused) > _MOST_PAUSED:
        yield Finding(
            "info",
            f"{len(paused):,} organizations are paused. "
            f"{_waiting(sum(each.waiting for each in paused))}.",
            "Nothing of them is handled until they are resumed.",
            "/organizations?show=paused",
            "Show all that are paused",
        )
        return
    for each in paused:
        breaker = f", and its breaker is {each.breaker}" if each.breaker else ""
        yield Finding(
            "info",
            f"{each.organization} is paused ({each.pause_told(at)}){breaker}. "
            f"{_waiting(each.waiting)}.",
            "Nothing of it is handled until it is resumed.",
            _address(each, "resume"),
            "Resume",
            each.organization,
        )


def _organization(each: OrganizationOverview, at: float) -> Finding | None:
    """What holds or fails one that isn't paused."""
    name, verb = each.organization, "resume"
    level: Level = "warn"
    if each.paused is not None:
        return None
    if each.throttled == MOVES:
        what, advice = f"{name} moves to another partition", "Its events go on there, or here."
        level, verb = "info", ""
    elif each.throttled is not None:
        level, what = "info", f"{name}'s own system asks for fewer calls ({each.throttled})"
        advice = f"They go on by themselves: {each.next_try(at)}."
    elif each.breaker is not None:
        what = f"{name}: its handlers kept failing, so its breaker is {each.breaker}"
        advice = (
            "One event is tried by itself; pause it to let none be, resume once the cause is gone."
        )
    elif each.failures >= _FAILURES_IN_A_ROW:
        what, verb = f"{name}: {each.failures:,} handlers failed in a row", "pause"
        advice = "The log says why; pause it to spend no more attempts."
    elif (trouble := _unbroken(each)) is not None:
        verb = "pause"
        what, advice = {
            "a": (f"{name}: its events are put off", "Their handler has it so."),
            "w": (f"{name}: its events are put off", "Start workers that have a handler for them."),
        }.get(trouble.kind, (f"{name}: none of its handlers has worked", "The log says why."))
        advice += "" if trouble.kind == "w" else " Pause it to spend no more attempts."
    else:
        return None
    if each.trouble is not None and each.throttled is None:
        told = each.failing(at)
        what = f"{what}. {told[:1].upper()}{told[1:]}"
    other = ("Pause", _address(each, "pause")) if each.breaker else ("", "")
    what = f"{what}. {_waiting(each.waiting)}."
    address = _address(each, verb) if verb else ""
    return Finding(level, what, advice, address, verb.capitalize(), name, *other)


def _unbroken(each: OrganizationOverview) -> Trouble | None:
    """Where many have failed, or asked for another attempt, and none has worked since: of what."""
    trouble = each.trouble
    if trouble is None or trouble.worked or not each.waiting:
        return None
    return trouble if trouble.failed >= _FAILURES_IN_A_ROW else None


def _address(each: OrganizationOverview, verb: str) -> str:
    return f"/organizations/{quote(each.organization, safe='')}/{verb}"


def _waiting(number: int) -> str:
    return counted(number, "event waits", "events wait")


def _dead(history: History) -> Iterator[Finding]:
    samples = [each for each in history.since(_LATELY) if each.rates]
    if len(samples) > 1:
        number = round(
            sum(
                # A rate by the time between two looks is the number again.
                sample.rates["dead"] * (sample.at - before.at)
                for before, sample in pairwise(samples)
            )
        )
        if number:
            yield Finding(
                "warn",
                f"{counted(number, *_DIED)} within the last 15 minutes.",
                "See of what, fix the cause, and replay a sample before all of them.",
                "/dead-letters/groups",
                "Failure groups",
            )


def _age(overview: Overview) -> Iterator[Finding]:
    oldest = overview.oldest_seconds
    if oldest is not None and oldest > _OLD_SECONDS and overview.workers:
        yield Finding(
            "info",
            f"The oldest unfinished event was accepted {roughly(oldest)} ago.",
            "It may wait for its next attempt, for a resume, or for a slot.",
            "/events",
            "Oldest events",
        )
