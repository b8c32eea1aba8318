"""Whether an event may reach a handler, and why not."""

from datetime import timedelta
from typing import Final

from shared.queue import keys
from shared.queue.job import Delivery
from shared.sellfern.envelope import Envelope
from shared.sellfern.reference import Reference
from worker.outcomes import Dead
from worker.pipeline.policy import Limits
from worker.pipeline.transitions import Claim, Mark, Marked

_UNPROVABLE: Final = Mark.UNPROVABLE  # Python looks up a name of a module faster than a member


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


def of_misnamed(job: str, delivery: Delivery) -> Dead | None:
    """What becomes of a delivery whose job's id isn't made of it; ``None`` for a foreign id.

    A stock producer gives its jobs any names, but for those of another organization: under such a
    one its events would take that organization's turns.
    """
    if keys.organization_of(job) != delivery.organization:
        return Dead(
            "undecodable",
            f"expected a job id that begins with {delivery.organization}:, as its payload says, "
            f"got {job}",
        )
    if keys.bears_digest(job):
        return Dead("payload_changed", "the payload holds other bytes than its job's id names")
    return None


def of_crashed(claim: Claim) -> Dead:
    """What is known of a job that keeps ending workers: not why, nor whether one is gone."""
    many = f"{claim.claims} claim{'' if claim.claims == 1 else 's'}"
    return Dead(
        "crashed",
        f"{many} ended without an outcome: its worker stopped renewing the lease, or ended",
    )
