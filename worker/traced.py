"""The pipeline with spans around what it does; used only where ``TRACING`` asks for it."""

from dataclasses import dataclass
from typing import Any

from shared.job import Delivery
from shared.tracing import PREFIX, Tracing
from worker.events import Event
from worker.outcomes import Dead, Later, Outcome
from worker.pipeline import Pipeline
from worker.registry import HandlerFunction
from worker.transitions import Claim, Settled
from worker.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPipeline(Pipeline):
    """Takes claimed jobs to their end, each within a span.

    Attributes:
        tracing: makes the spans.
    """

    tracing: Tracing

    async def run(self, claim: Claim, delivery: Delivery | None) -> Settled:
        """Handle one claimed job and settle it; as `Pipeline.run`."""
        carried = delivery.headers if delivery else {}
        with self.tracing.attempt(carried, claim.attempts + 1, claim.job) as span:
            settled = await Pipeline.run(self, claim, delivery)
            span.set_attribute(PREFIX + "outcome", settled.value)
            return settled

    async def _attempt(self, work: Work, function: HandlerFunction, event: Event[Any]) -> Outcome:
        with self.tracing.step("handler") as span:
            span.set_attribute(PREFIX + "event_id", event.id)
            span.set_attribute(PREFIX + "type", event.type)
            span.set_attribute(PREFIX + "organization", event.organization_id)
            outcome = await Pipeline._attempt(self, work, function, event)  # noqa: SLF001  its parent
            if isinstance(outcome, Later | Dead):
                self.tracing.note_failure(span, outcome.error)
            return outcome

    async def _settle(self, work: Work, outcome: Outcome) -> Settled:
        with self.tracing.step("commit"):
            return await Pipeline._settle(self, work, outcome)  # noqa: SLF001  its parent
