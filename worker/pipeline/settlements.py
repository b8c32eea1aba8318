"""What Redis is asked to make of a job, by the outcome of its event."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.outcomes import Busy, Dead, Done, Duplicate, Held, Later, Outcome, Released, Waiting
from worker.pipeline.policy import Policy
from worker.pipeline.transitions import Settlement
from worker.pipeline.work import Work
from worker.state import State


@dataclass(frozen=True, slots=True)
class Settlements:
    """Turns outcomes into settlements: the one place that knows attempts, delays and burials.

    Attributes:
        policy: the rules.
        random: draws evenly from 0 to 1.
    """

    policy: Policy
    random: Callable[[], float] = field(default=random.random)

    def final(self, work: Work, outcome: Outcome) -> Outcome:
        """The outcome that counts: a last attempt, or a second one that blocked, buries it."""
        if isinstance(outcome, Released):  # a handler that was cancelled doesn't say why
            return Released(in_doubt=outcome.in_doubt or work.in_doubt)
        if not isinstance(outcome, Later):
            return outcome
        if outcome.blocked and work.claim.blocked:
            return Dead("blocked", outcome.error, attempted=True, failed=outcome.failed)
        if work.claim.attempts + 1 >= self.policy.max_attempts:
            return Dead("exhausted", outcome.error, attempted=True, failed=outcome.failed)
        return outcome

    def of(self, work: Work, outcome: Outcome) -> Settlement:  # noqa: PLR0911  # one an outcome
        """The verb of ``settle.lua`` with its details, for an outcome that is `final`."""
        match outcome:
            case Done():
                return Settlement(work.claim, "done", self._commit(work.state))
            case Later():
                return Settlement(work.claim, "retry", self._retry(work, outcome))
            case Dead():
                details = (*_burial(work, outcome), self._breaker(outcome))
                return Settlement(work.claim, "dead", details)
            case Busy(error=error, after=after):
                return Settlement(work.claim, "throttle", (math.ceil(after * 1000), error))
            case Waiting(reason=reason, patience=patience):
                longest = None if patience is None else round(patience * 1000)
                return Settlement(work.claim, "wait", (reason, longest))
            case Duplicate() | Held():
                return Settlement(work.claim, "hold" if outcome == Held() else "duplicate")
            case Released(in_doubt=in_doubt):
                return Settlement(work.claim, "abandon" if in_doubt else "release")

    def _retry(self, work: Work, outcome: Later) -> tuple[Any, ...]:
        after = outcome.after
        if after is None:
            after = self.policy.backoff.delay(work.claim.attempts + 1, self.random)
        details = (round(after * 1000), self._breaker(outcome))
        return (*details, True) if outcome.blocked else details

    def _breaker(self, outcome: Later | Dead) -> tuple[Any, ...] | None:
        """What the script needs to judge the organization by; nothing unless a handler failed."""
        return self.policy.breaker.packed() if outcome.failed else None

    def _commit(self, state: State | None) -> tuple[Any, ...]:
        retention = round(self.policy.limits.dedupe_retention * 1000)
        if state is None:
            return (retention, (), (), False)
        # The script unpacks details that are equal once: what changes nothing needs no received-at.
        received_at = state.received_at if state.operations else 0
        reads, operations = tuple(state.reads.items()), tuple(state.operations)
        return (retention, reads, operations, True, received_at)


def _burial(work: Work, dead: Dead) -> tuple[Any, ...]:
    return (
        dead.reason,
        dead.error.encode(errors="backslashreplace").decode(),
        work.envelope.type if work.envelope else "",
        work.delivery.endpoint if work.delivery else "",
        work.delivery.received_at if work.delivery else 0,
        dead.attempted,
    )
