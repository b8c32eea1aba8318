"""Whether an event may reach a handler, and why not."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shared.errors import EnvelopeError
from shared.sellfern import envelope as envelopes
from shared.sellfern.envelope import Envelope
from shared.sellfern.reference import Reference
from worker.outcomes import Dead
from worker.pipeline.transitions import Mark, Marked

_UNPROVABLE: Final = Mark.UNPROVABLE  # Python looks up a name of a module faster than a member


@dataclass(frozen=True, slots=True)
class Limits:
    """How old, or how far ahead, an event may be; all in seconds.

    Attributes:
        max_event_age: from its creation to its receipt. Waiting in our queue makes none stale.
        dedupe_retention: how long the mark of a finished event is kept.
        clock_skew: how far apart Sellfern's clock and ours may be.
    """

    max_event_age: float
    dedupe_retention: float
    clock_skew: float


def decode(body: bytes) -> Envelope | Dead:
    """The envelope in the signed bytes, or ``malformed``."""
    try:
        return envelopes.decode(body)
    except EnvelopeError as exc:
        return Dead("malformed", str(exc))


def provable_until(created: float, limits: Limits) -> int:
    """Until when, in epoch milliseconds, the mark of the event would be there if it were done.

    A mark is kept for the retention from the event's end, which isn't before its creation.

    Args:
        created: when that was, epoch seconds.
        limits: of age.
    """
    return round((created + limits.dedupe_retention - limits.clock_skew) * 1000)


def judge(
    envelope: Envelope,
    *,
    organization: str,
    created: float,
    received_at: int,
    marked: Marked,
    reference: Reference,
    limits: Limits,
) -> Dead | None:
    """Why this event must not be handled, or ``None``: ownership, catalogue, age, in this order.

    Args:
        envelope: what the body claims.
        organization: what the endpoint's secret proves.
        created: what its creation is in epoch seconds.
        received_at: when the ingress took it, epoch milliseconds.
        marked: what was found under its event id, and Redis's clock then, which is now.
        reference: the events that Sellfern's API Reference lists.
        limits: of age.
    """
    return (
        _judge_ownership(envelope, organization)
        or _judge_catalogue(envelope, reference)
        or _judge_age(received_at / 1000 - created, limits)
        or _judge_future(created - max(received_at, marked.now) / 1000, limits)
        or _judge_provability(marked, created, limits)
    )


def _judge_ownership(envelope: Envelope, organization: str) -> Dead | None:
    if envelope.organization_id == organization:
        return None
    return Dead(
        "organization_mismatch",
        f"signed by {organization}, but the body says {envelope.organization_id}",
    )


def _judge_catalogue(envelope: Envelope, reference: Reference) -> Dead | None:
    if reference.is_available(envelope.type):
        return None
    return Dead(
        "unavailable_event", f"{envelope.type} is not available in Sellfern's API Reference"
    )


def _judge_age(age: float, limits: Limits) -> Dead | None:
    if age <= limits.max_event_age:
        return None
    return Dead(
        "stale",
        f"created {timedelta(seconds=round(age))} before it was received; "
        f"the limit is {timedelta(seconds=limits.max_event_age)}",
    )


def _judge_future(ahead: float, limits: Limits) -> Dead | None:
    """What is ahead of now is; what only was when it came, since our clock was slow, is not."""
    if ahead <= limits.clock_skew:
        return None
    return Dead(
        "stale",
        f"created {timedelta(seconds=round(ahead))} after now, and after it was received; "
        f"clocks may be {timedelta(seconds=limits.clock_skew)} apart",
    )


def _judge_provability(marked: Marked, created: float, limits: Limits) -> Dead | None:
    """Without a mark, an old event can't be told from a finished one whose mark has expired."""
    if marked.mark is not _UNPROVABLE:
        return None
    return Dead(
        "unprovable",
        f"created {timedelta(seconds=round(marked.now / 1000 - created))} ago, longer than marks "
        f"are kept ({timedelta(seconds=limits.dedupe_retention)}): it may have been handled before",
    )
