"""The rules of handling."""

from dataclasses import dataclass

from worker.pipeline.backoff import Backoff
from worker.pipeline.breaker import Breaker
from worker.pipeline.judgement import Limits


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of handling; times are seconds.

    Attributes:
        limits: of an event's age.
        handler_timeout: that one attempt may take.
        max_attempts: attempts before the dead letter.
        max_claims: claims without an outcome, the last one alone in its worker, after which the job
            is buried.
        backoff: the delay between attempts.
        breaker: when an organization's events wait because its handlers keep failing.
        stuck_after: how long a handler may go on after it was cancelled.
        no_handler_patience: how long an event waits for a worker that has a handler for it.
    """

    limits: Limits
    handler_timeout: float
    max_attempts: int
    max_claims: int
    backoff: Backoff
    breaker: Breaker
    stuck_after: float = 5.0
    no_handler_patience: float = 600.0
