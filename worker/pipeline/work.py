"""One claimed job on its way through the pipeline."""

from collections.abc import Callable, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

import msgspec

from shared.queue.group_commit import Tell
from shared.queue.job import Delivery
from shared.sellfern.envelope import Envelope
from worker.pipeline.transitions import Claim, Refused, Settled
from worker.state import State

if TYPE_CHECKING:  # an attempt names the work that it is for
    from worker.pipeline.attempts import Attempt
    from worker.pipeline.memory import Share
    from worker.pipeline.path import Settle


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
        settling: its end, while that is on its way to Redis.
        is_cancelled: whether it is to be given back rather than handled.
        is_lost: whether a renewal said that somebody else has it, while its end was on its way.
        in_doubt: whether giving it back leaves its claim counted.
        context: in which its steps run, where somebody follows it from step to step.
        trace: of whoever follows it.
        share: what it has of the memory for decoded bodies, or waits for.
        free_slot: told once that the handler has ended, if there was one.
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
    settling: "Settle | None" = None
    is_cancelled: bool = False
    is_lost: bool = False
    in_doubt: bool = False
    context: Context | None = None
    trace: Any = None
    share: "Share | None" = None
    free_slot: Callable[[], None] | None = None

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

    def leave_slot(self) -> None:
        """Let another handler run: this one has ended, whatever Redis still makes of it."""
        if self.share is not None:
            self.share.give_back()
            self.share = None
        if self.free_slot is not None:
            self.free_slot()
            self.free_slot = None

    def done(self) -> bool:
        """Never: what has ended is dropped. A task's word, since arq asks tasks."""
        return False
