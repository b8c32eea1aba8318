"""Spans around what the pipeline does; used only where ``TRACING`` asks for it."""

from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.observe.tracing import PREFIX, Tracing
from worker.outcomes import Busy, Dead, Later
from worker.pipeline.attempts import own_context
from worker.pipeline.transitions import Settled
from worker.pipeline.work import Ask, Handle, Settle, Work

if TYPE_CHECKING:  # of an extra that may be absent
    from opentelemetry.trace import Span


@dataclass(slots=True)
class _Trace:
    """The spans of one job that are open."""

    attempt: "Span"
    attempts_own: Context
    step: "Span | None" = None


@dataclass(frozen=True, slots=True)
class Tracer:
    """An `Observer` that puts each work into a context whose current span is its attempt's.

    The handler starts in a copy of that context, with a span of its own as the current one.

    Attributes:
        tracing: makes the spans.
    """

    tracing: Tracing
    _base: Context = field(default_factory=own_context)

    def begins(self, work: Work) -> None:
        """Begin the attempt's span."""
        context = self._base.copy()
        carried = work.delivery.headers if work.delivery else {}
        number = work.claim.attempts + 1
        span = context.run(self.tracing.begin_attempt, carried, number, work.claim.job)
        work.context = context
        work.trace = _Trace(span, context)

    def asks(self, work: Work, asked: Ask) -> None:
        """Begin the span of a step that takes its time elsewhere."""
        trace: _Trace = work.trace
        if isinstance(asked, Settle):
            trace.step = trace.attempts_own.run(self.tracing.begin_step, "commit")
        elif isinstance(asked, Handle):
            # A copy, in which the handler's span is the current one; the attempt's own keeps its.
            work.context = trace.attempts_own.copy()
            trace.step = work.context.run(self._begin_handler, asked)

    def is_told(self, work: Work, asked: Ask, answer: object) -> None:
        """End the step's span."""
        trace: _Trace = work.trace
        if trace.step is None:
            return
        if isinstance(asked, Handle):
            work.context = trace.attempts_own
            if isinstance(answer, Later | Busy | Dead):
                self.tracing.note_failure(trace.step, answer.error)
        trace.step.end()
        trace.step = None

    def ends(self, work: Work, result: Settled | Exception) -> None:
        """End the attempt's span."""
        trace: _Trace = work.trace
        if isinstance(result, Exception):
            self.tracing.note_failure(trace.attempt, result)
        else:
            trace.attempt.set_attribute(PREFIX + "outcome", result.value)
        trace.attempt.end()

    def _begin_handler(self, asked: Handle) -> "Span":
        span = self.tracing.enter_step("handler")
        span.set_attribute(PREFIX + "event_id", asked.event.id)
        span.set_attribute(PREFIX + "type", asked.event.type)
        span.set_attribute(PREFIX + "organization", asked.event.organization_id)
        return span
