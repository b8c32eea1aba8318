"""Asks the worker's commands what became of the events of a plan."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.local.account import DeadLetter, Evidence, Name
from deploy.local.sender import Sender
from deploy.local.system import System
from deploy.local.traffic import Plan

Lines = list[dict[str, Any]]


def evidence(plan: Plan, sender: Sender, ingress: Mapping[str, int], system: System) -> Evidence:
    """Put together what the sender, the metrics of the ingress and the worker's commands tell.

    Raises:
        ProgramError: a command failed.
    """
    most = str(len(plan.deliveries) + 1)
    names = [organization.id for organization in plan.organizations]
    outputs = system.ask_worker(
        ("status", "--json"),
        ("dead-letters", "list", "--json", "--limit", most),
        *(("state", name, "--json") for name in names),
    )
    (status,), letters, *states = map(_lines, outputs)
    by_organization = dict(zip(names, states, strict=True))
    return Evidence(
        answers=sender.answers,
        unanswered=sender.unanswered,
        ingress=ingress,
        counters=status["counters"],
        waiting=status["waiting"],
        dead=[_dead_letter(each) for each in letters],
        applied=_values(by_organization, "applied/"),
        attempts=_values(by_organization, "attempts/"),
        orders=_values(by_organization, "orders/"),
    )


def _lines(output: str) -> Lines:
    return [json.loads(line) for line in output.splitlines()]


def _dead_letter(line: Mapping[str, Any]) -> DeadLetter:
    return DeadLetter((line["organization"], line["event_id"] or line["job"]), line["reason"])


def _values(states: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str) -> dict[Name, Any]:
    return {
        (organization, line["key"].removeprefix(prefix)): line["value"]
        for organization, lines in states.items()
        for line in lines
        if line["key"].startswith(prefix)
    }
