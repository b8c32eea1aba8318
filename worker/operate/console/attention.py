"""Says what an operator should look at first: is anything stuck, whose, why, what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal
from urllib.parse import quote

from shared.display import size
from shared.queue.marker import unwatched_since
from shared.queue.reach import sentences
from worker.operate.history import History
from worker.operate.overview import OrganizationOverview, Overview

_OLD_SECONDS: Final = 300.0
_FAILURES_IN_A_ROW: Final = 5
_MOST_ORGANIZATIONS: Final = 5
_MOST_PAUSED: Final = 3
_LATELY: Final = 900.0
_NEARLY_FULL: Final = 0.7

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
    for sentence in sentences(overview.left_out):
        yield Finding(
            "bad",
            f"{sentence[:1].upper()}{sentence[1:]}.",
            "What is there waits, and new events of its organizations are refused meanwhile.",
        )


def _incidents(overview: Overview) -> Iterator[Finding]:
    for each in overview.incidents or ():
        sentence = each.sentence
        yield Finding(
            "bad",
            f"{sentence[:1].upper()}{sentence[1:]}.",
            "deploy/recovery.md says what that means, and what can be had back.",
        )
    if overview.unwatched_since:
        sentence = unwatched_since(overview.unwatched_since)
        yield Finding(
            "warn",
            f"{sentence[:1].upper()}{sentence[1:]}.",
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
        yield Finding(
            "warn",
            f"All {slots:,} slots are busy, and {overview.ready:,} events are in line.",
            "Start more workers, or give them more slots.",
            "/workers",
            "Workers",
        )
    stuck = sum(worker.stuck for worker in overview.workers)
    if stuck:
        yield Finding(
            "warn",
            f"{stuck:,} handlers go on though they were cancelled and their events settled.",
            "The log says where (handler_stuck); restart the workers that have them.",
            "/workers",
            "Workers",
        )
    if overview.unhandled:
        yield Finding(
            "warn",
            f"{overview.unhandled:,} events wait for a worker that can handle them.",
            "Their type has no handler, or a newer version wrote them: start workers that know.",
        )
    if overview.undivided:
        yield Finding(
            "bad",
            f"{overview.undivided:,} events wait undivided, where no worker of partitions looks.",
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
    told = [finding for each in worst if (finding := _organization(each)) is not None]
    yield from told[:_MOST_ORGANIZATIONS]
    if len(told) > _MOST_ORGANIZATIONS:
        yield Finding(
            "warn",
            f"{len(told) - _MOST_ORGANIZATIONS:,} more organizations are held or failing.",
            "",
            "/organizations?show=held",
            "Show them",
        )
    # By themselves: somebody wanted it so, and they are to hide none that fails.
    yield from _paused([each for each in worst if each.paused is not None])


def _paused(paused: Sequence[OrganizationOverview]) -> Iterator[Finding]:
    if len(paused) > _MOST_PAUSED:
        yield Finding(
            "info",
            f"{len(paused):,} organizations are paused. "
            f"{_waiting(sum(each.waiting for each in paused))}.",
            "Nothing of them is handled until they are resumed.",
            "/organizations?show=paused",
            "Show them",
        )
        return
    for each in paused:
        breaker = f", and its breaker is {each.breaker}" if each.breaker else ""
        yield Finding(
            "info",
            f"{each.organization} is paused ({each.paused}){breaker}. {_waiting(each.waiting)}.",
            "Nothing of it is handled until it is resumed.",
            _address(each, "resume"),
            "Resume",
            each.organization,
        )


def _organization(each: OrganizationOverview) -> Finding | None:
    """What holds or fails one that isn't paused."""
    name, verb = each.organization, "resume"
    level: Level = "warn"
    if each.paused is not None:
        return None
    if each.throttled is not None:
        level, what = "info", f"{name}'s own system asks for fewer calls ({each.throttled})"
        advice = "They go on by themselves."
    elif each.breaker is not None:
        what = f"{name}: its handlers kept failing, so its breaker is {each.breaker}"
        advice = (
            "One event is tried by itself; pause it to let none be, resume once the cause is gone."
        )
    elif each.failures >= _FAILURES_IN_A_ROW:
        what, verb = f"{name}: {each.failures:,} handlers failed in a row", "pause"
        advice = "The log says why; pause it to spend no more attempts."
    else:
        return None
    other = ("Pause", _address(each, "pause")) if each.breaker else ("", "")
    what = f"{what}. {_waiting(each.waiting)}."
    return Finding(level, what, advice, _address(each, verb), verb.capitalize(), name, *other)


def _address(each: OrganizationOverview, verb: str) -> str:
    return f"/organizations/{quote(each.organization, safe='')}/{verb}"


def _waiting(number: int) -> str:
    return "1 event waits" if number == 1 else f"{number:,} events wait"


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
                f"{number:,} events became dead letters within the last 15 minutes.",
                "See of what, fix the cause, and replay a sample before all of them.",
                "/dead-letters/groups",
                "Failure groups",
            )


def _age(overview: Overview) -> Iterator[Finding]:
    oldest = overview.oldest_seconds
    if oldest is not None and oldest > _OLD_SECONDS and overview.workers:
        yield Finding(
            "info",
            f"The oldest unfinished event was accepted {oldest / 60:,.0f} minutes ago.",
            "It may wait for its next attempt, for a resume, or for a slot.",
            "/events",
            "Oldest events",
        )
