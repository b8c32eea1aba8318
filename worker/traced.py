"""The pipeline with spans around what it does; used only where ``TRACING`` asks for it."""

from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shared.group_commit import Tell
from shared.tracing import PREFIX, Tracing
from worker.events import Event
from worker.outcomes import Dead, Later, Outcome
from worker.pipeline import Pipeline
from worker.registry import HandlerFunction
from worker.transitions import Marked, Settled
from worker.work import Work

if TYPE_CHECKING:  # of an extra that may be absent
    from opentelemetry.trace import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPipeline(Pipeline):
    """Takes claimed jobs to their end, each within a span.

    Every step of a job runs in the job's own context, whose current span is the attempt's.

    Attributes:
        tracing: makes the spans.
    """

    tracing: Tracing

    def start(self, work: Work) -> None:
        """Handle a claimed job and settle it; as `Pipeline.start`."""
        trace = work.trace = _Trace(copy_context(), work.ended)
        work.ended = partial(self._ended, trace)
        trace.context.run(self._start, work, trace)

    def _start(self, work: Work, trace: "_Trace") -> None:
        carried = work.delivery.headers if work.delivery else {}
        number = work.claim.attempts + 1
        trace.attempt = self.tracing.begin_attempt(carried, number, work.claim.job)
        Pipeline.start(self, work)

    def _ended(self, trace: "_Trace", settled: Settled | Exception) -> None:
        if isinstance(settled, Exception):
            self.tracing.note_failure(trace.attempt, settled)
        else:
            trace.attempt.set_attribute(PREFIX + "outcome", settled.value)
        trace.attempt.end()
        trace.ended(settled)

    def _marked(self, work: Work, marked: Marked | Exception) -> None:
        work.trace.context.run(Pipeline._marked, self, work, marked)  # noqa: SLF001  its parent

    async def _attempt(self, work: Work, function: HandlerFunction, event: Event[Any]) -> Outcome:
        with self.tracing.step("handler") as span:
            span.set_attribute(PREFIX + "event_id", event.id)
            span.set_attribute(PREFIX + "type", event.type)
            span.set_attribute(PREFIX + "organization", event.organization_id)
            outcome = await Pipeline._attempt(self, work, function, event)  # noqa: SLF001  its parent
            if isinstance(outcome, Later | Dead):
                self.tracing.note_failure(span, outcome.error)
            return outcome

    def _settle(self, work: Work, outcome: Outcome) -> None:
        work.trace.commit = self.tracing.begin_step("commit")
        Pipeline._settle(self, work, outcome)  # noqa: SLF001  its parent

    def _settled(self, work: Work, outcome: Outcome, settled: Settled | Exception) -> None:
        work.trace.commit.end()
        work.trace.context.run(Pipeline._settled, self, work, outcome, settled)  # noqa: SLF001  its parent


@dataclass(slots=True)
class _Trace:
    """The spans of one job, and the context whose current span is the attempt's."""

    context: Context
    ended: Tell[Settled]
    attempt: "Span" = field(init=False)
    commit: "Span" = field(init=False)
