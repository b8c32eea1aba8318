"""A claimed job on its way: what is known of it, and what its path may want of others."""

from collections.abc import Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeAlias, final

import msgspec

from shared.queue.group_commit import Tell
from shared.queue.job import Delivery
from shared.sellfern.envelope import Envelope
from worker.events import Event, Organization
from worker.outcomes import Outcome
from worker.pipeline.transitions import Claim, MarkRequest, Refused, Settled, Settlement
from worker.registry import HandlerFunction
from worker.state import State

if TYPE_CHECKING:  # an attempt names the work that it is for
    from worker.pipeline.attempts import Attempt, Slots
    from worker.pipeline.memory import Share


@final
class Room(msgspec.Struct, gc=False):
    """Wanted: memory for a body once decoded. The answer: it is there, or work is cancelled."""

    body: bytes


@final
class Handle(msgspec.Struct, gc=False):
    """Wanted: the handler is run. The answer is its outcome."""

    function: HandlerFunction
    event: Event[Any]
    organization: Organization


@final
class Settle(msgspec.Struct, gc=False):
    """Wanted: an outcome is committed, or the one that counts in its place.

    The answer is what Redis made of it.
    """

    outcome: Outcome


Ask: TypeAlias = MarkRequest | Room | Handle | Settle
"""What a path may want of others."""


class Work(msgspec.Struct, eq=False, weakref=True):
    """What is known of a claimed job so far.

    Attributes:
        claim: proves the hold.
        delivery: what was received; ``None`` when the payload is no record of ours.
        ended: told how it ended; an exception where its lease has to bring it back.
        is_newer: whether a newer version of this project wrote the payload.
        has_payload: whether there was one.
        path: what is left of its way; the driver takes it on.
        envelope: once decoded.
        state: what the handler read and changed, once it ran.
        handler: the name of the function that handles it, once known.
        seconds: that the handler took.
        rounds: how often it was begun.
        attempt: runs the handler, while one runs.
        is_failed: whether a step of our own has failed, so that the attempt did.
        settling: its outcome and what Redis is asked, while that is on its way.
        is_marking: whether its mark is on its way, by which it may leave: another has its turn.
        is_cancelled: whether it is to be given back rather than handled.
        is_lost: whether a renewal said that somebody else has it, while its end was on its way.
        in_doubt: whether giving it back leaves its claim counted.
        context: in which its steps run, where somebody follows it from step to step.
        trace: of whoever follows it.
        share: what it has of the memory for decoded bodies, or waits for.
        slots: of the worker, one of which it has; ``None`` once it has left it.
    """

    claim: Claim
    delivery: Delivery | None
    ended: Tell[Settled]
    is_newer: bool = False
    has_payload: bool = True
    path: Generator[Any, Any, Settled | Refused] | None = None
    envelope: Envelope | None = None
    state: State | None = None
    handler: str = ""
    seconds: float = 0.0
    rounds: int = 0
    attempt: "Attempt | None" = None
    is_failed: bool = False
    settling: tuple[Outcome, Settlement] | None = None
    is_marking: bool = False
    is_cancelled: bool = False
    is_lost: bool = False
    in_doubt: bool = False
    context: Context | None = None
    trace: Any = None
    share: "Share | None" = None
    slots: "Slots | None" = None

    @property
    def type(self) -> str:
        """Of its event; empty until that is known."""
        return self.envelope.type if self.envelope else ""

    def naming(self) -> dict[str, object]:
        """What a log line needs to name the event and its handler."""
        return {
            "handler": self.handler or None,
            "organization": self.delivery.organization if self.delivery else None,
            "event_id": self.envelope.id if self.envelope else None,
            "type": self.type or None,
            "job": self.claim.job,
        }

    def cancel(self, *, in_doubt: bool = False) -> None:
        """Have it given back, unless its end is on the way already."""
        if self.is_cancelled:
            return  # a second time would cut short what a handler does on the first
        self.is_cancelled = True
        self.in_doubt = in_doubt
        if self.attempt is not None:
            self.attempt.cancel()
        elif self.share is not None:
            self.share.wait_no_longer()

    def done(self) -> bool:
        """Whether its way has ended; arq counts those of its tasks for which that isn't so."""
        return self.path is None
