"""One claimed job on its way through the pipeline."""

import msgspec

from shared.job import Delivery
from shared.sellfern.envelope import Envelope
from worker.state import State
from worker.transitions import Claim


class Work(msgspec.Struct):
    """What is known of a claimed job so far.

    Attributes:
        claim: proves the hold.
        delivery: what was received; ``None`` when the payload is no record of ours.
        envelope: once decoded.
        state: what the handler read and changed, once it ran.
        seconds: that the handler took.
    """

    claim: Claim
    delivery: Delivery | None
    envelope: Envelope | None = None
    state: State | None = None
    seconds: float = 0.0
