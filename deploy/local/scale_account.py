"""Compares what was accepted in the scale demo with what was handled."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.local.system import System
from deploy.sellfern import Sellfern

Name = tuple[str, str]
"""An organization's id and an event's."""

_APPLIED: Final = "applied/"
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known in the end.

    Attributes:
        sent: Sellfern's: the events that happened.
        accepted: Sellfern's: those of them that were answered with a 2xx.
        applied: the state: how often each event was applied.
        counters: Redis's: what the transitions counted.
        waiting: Redis's: accepted events that are not finished.
    """

    sent: int
    accepted: frozenset[Name]
    applied: Mapping[Name, int]
    counters: Mapping[str, int]
    waiting: int


def evidence(sellfern: Sellfern, system: System, organizations: Sequence[str]) -> Evidence:
    """Ask Sellfern and the worker's commands.

    Raises:
        ProgramError: a command failed.
    """
    status, *states = system.ask_worker(
        ("status", "--json"), *(("state", name, _APPLIED, "--json") for name in organizations)
    )
    (overview,) = _lines(status)
    applied = {
        (organization, line["key"].removeprefix(_APPLIED)): int(line["value"])
        for organization, state in zip(organizations, states, strict=True)
        for line in _lines(state)
    }
    accepted = frozenset(
        (each.event.organization, each.event.id)
        for each in sellfern.deliveries
        if each.status == "delivered"
    )
    return Evidence(sellfern.events, accepted, applied, overview["counters"], overview["waiting"])


def complaints(evidence: Evidence) -> Iterator[str]:
    """What is not as it has to be: each accepted event handled once, and no other."""
    if evidence.sent != len(evidence.accepted):
        yield f"{evidence.sent - len(evidence.accepted):,} of {evidence.sent:,} weren't accepted"
    handled = evidence.counters.get("handled", 0)
    if handled != len(evidence.accepted):
        yield f"accepted {len(evidence.accepted):,}, but handled {handled:,}"
    if evidence.waiting:
        yield f"{evidence.waiting:,} wait still"
    if missing := sorted(evidence.accepted - evidence.applied.keys()):
        yield f"accepted, but never applied: {_listed(missing)}"
    if surplus := sorted(evidence.applied.keys() - evidence.accepted):
        yield f"applied, but never accepted: {_listed(surplus)}"
    times = Counter(times for times in evidence.applied.values() if times != 1)
    for number, events in sorted(times.items()):
        yield f"{events:,} applied {number} times"


def _lines(output: str) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def _listed(names: Sequence[Name]) -> str:
    shown = ", ".join(f"{name} of {organization}" for organization, name in names[:_MOST_NAMED])
    return shown + (f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else "")
