"""What a worker starts with, though it will hardly do what somebody meant."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from shared.endpoints.endpoint import Endpoints, nearest
from shared.program.findings import Finding
from shared.sellfern.reference import Reference
from worker.registry import Handlers, Registration


@dataclass(frozen=True, slots=True)
class Parts:
    """What is held against each other.

    Attributes:
        handlers: who gets which event.
        reference: which events there are.
        endpoints: whose events come in.
    """

    handlers: Handlers
    reference: Reference
    endpoints: Endpoints


def doubts(parts: Parts) -> Iterator[Finding]:
    """Every warning about them, a sentence each."""
    for look in LOOKS:
        yield from look(parts)


def _unlisted_events(parts: Parts) -> Iterator[Finding]:
    for registration in parts.handlers:
        pattern = registration.pattern
        if "*" not in pattern and not parts.reference.is_available(pattern):
            why = "the API Reference doesn't list this event, so it would end as unavailable_event"
            yield _doubt(
                "handler_for_unlisted_event",
                registration,
                why,
                pattern,
                parts.reference.near_events(pattern),
            )


def _patterns_without_event(parts: Parts) -> Iterator[Finding]:
    listed = parts.reference.available_events()
    for registration in parts.handlers:
        pattern, organization = registration.pattern, registration.organization or ""
        if "*" in pattern and not any(registration.matches(each, organization) for each in listed):
            why = "no event that the API Reference lists matches this pattern"
            families = {f"{each.partition('.')[0]}.*" for each in listed}
            yield _doubt("pattern_without_event", registration, why, pattern, families)


def _organizations_without_endpoint(parts: Parts) -> Iterator[Finding]:
    known = parts.endpoints.organizations
    for registration in parts.handlers:
        organization = registration.organization
        if organization is not None and organization not in known:
            why = "no endpoint of the endpoints file is this organization's"
            yield _doubt("organization_without_endpoint", registration, why, organization, known)


def _events_without_handler(parts: Parts) -> Iterator[Finding]:
    lacking = [each for each in parts.reference.available_events() if not _is_handled(each, parts)]
    if lacking:
        message = (
            f"{', '.join(lacking)}: no handler is registered, so these events wait for "
            f"NO_HANDLER_PATIENCE, and are dead letters then; ignore({lacking[0]!r}) drops them"
        )
        yield Finding("warning", "handlers", "event_without_handler", message)


def _is_handled(event: str, parts: Parts) -> bool:
    """Whether a registration takes it of every organization that has an endpoint."""
    takers = {r.organization for r in parts.handlers if r.matches(event, r.organization or "")}
    return None in takers or takers.issuperset(parts.endpoints.organizations)


def _keys_that_data_lacks(parts: Parts) -> Iterator[Finding]:
    for registration in parts.handlers:
        known = registration.data.fields()
        turn = registration.turn
        if turn is None or not turn.field or known is None:
            continue
        name = turn.field.partition(".")[0]
        if name not in known:
            why = f"the data that the handler names has no {name!r}, so its events may have no key"
            yield _doubt("key_not_in_data", registration, why, name, known)


LOOKS: Final[tuple[Callable[[Parts], Iterator[Finding]], ...]] = (
    _unlisted_events,
    _patterns_without_event,
    _organizations_without_endpoint,
    _events_without_handler,
    _keys_that_data_lacks,
)
"""All that is looked at, one thing each; a new one goes here."""


def _doubt(
    code: str, registration: Registration, why: str, name: str, known: Collection[str]
) -> Finding:
    """A warning that shows a registration as it is written in the code."""
    verb = "on" if registration.function else "ignore"
    organization = registration.organization
    of = f", organization={organization!r}" if organization is not None else ""
    message = f"{verb}({registration.pattern!r}{of}): {why}{nearest(name, known)}"
    return Finding("warning", "handlers", code, message)
