"""One claimed job on its way through the pipeline."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from shared.group_commit import Tell
from shared.job import Delivery
from shared.sellfern.envelope import Envelope
from worker.state import State
from worker.transitions import Claim, Settled


class Work(msgspec.Struct, eq=False):
    """What is known of a claimed job so far.

    Attributes:
        claim: proves the hold.
        delivery: what was received; ``None`` when the payload is no record of ours.
        ended: told how it ended; an exception where its lease has to bring it back.
        envelope: once decoded.
        state: what the handler read and changed, once it ran.
        seconds: that the handler took.
        rounds: how often it was begun.
        is_refused: whether Redis could not apply its end, so that another one is tried.
        is_cancelled: whether it is to be given back rather than handled.
        handling: runs the handler, while one runs.
        trace: of whoever follows it from step to step.
        free_slot: told once that the handler has ended, if there was one.
    """

    claim: Claim
    delivery: Delivery | None
    ended: Tell[Settled]
    envelope: Envelope | None = None
    state: State | None = None
    seconds: float = 0.0
    rounds: int = 0
    is_refused: bool = False
    is_cancelled: bool = False
    handling: "asyncio.Task[Any] | None" = None
    trace: Any = None
    free_slot: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Have it given back, unless its end is on the way already."""
        if self.is_cancelled:
            return  # a second time would cut short what a handler does on the first
        self.is_cancelled = True
        if self.handling is not None:
            self.handling.cancel()

    def leave_slot(self) -> None:
        """Let another handler run: this one has ended, whatever Redis still makes of it."""
        if self.free_slot is not None:
            self.free_slot()
            self.free_slot = None

    def done(self) -> bool:
        """Never: what has ended is dropped. A task's word, since arq asks tasks."""
        return False
