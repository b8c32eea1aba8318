"""Spans by OpenTelemetry, where ``TRACING`` asks for them: an optional extra."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from shared.errors import SettingsError
from shared.observe import logs
from shared.settings.config import TracingMode

if TYPE_CHECKING:  # whoever doesn't trace needn't have it
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

PREFIX: Final = "sellfern."
"""What the names of our attributes begin with."""

_NAME: Final = "sellfern-webhooks"


class Tracing:
    """Makes the spans of one program, and carries them over to the other.

    A trace goes from the HTTP request to the first attempt at its event. A later attempt, which
    may come hours later, has a trace of its own with a link to the request's.

    Args:
        provider: of OpenTelemetry's SDK.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import context, trace  # noqa: PLC0415  an extra that may be absent
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._api = trace
        self._context = context
        self._tracer = provider.get_tracer(_NAME)
        self._propagator = TraceContextTextMapPropagator()

    def request(self, endpoint: str) -> contextlib.AbstractContextManager["Span"]:
        """The span of a delivery's HTTP request.

        Whatever trace the request itself claims to belong to is not taken over: it comes from
        outside.
        """
        return self._tracer.start_as_current_span(
            "POST /webhooks/{endpoint}",
            kind=self._api.SpanKind.SERVER,
            attributes={PREFIX + "endpoint": endpoint},
        )

    def begin_attempt(self, carried: Mapping[str, str], number: int, job: str) -> "Span":
        """The span of an attempt at an event: the current one for the rest of this context.

        Args:
            carried: what `carry` gave when the event was accepted.
            number: of the attempt, from 1.
            job: that carries the event.
        """
        request = self._propagator.extract(carried)
        links = []
        parent: Context | None = request
        if number > 1:
            # Hours may lie between: a trace that lasts as long is shown by no backend.
            parent, context = None, self._api.get_current_span(request).get_span_context()
            links = [self._api.Link(context)] if context.is_valid else []
        span = self._tracer.start_span(
            "handle event",
            context=parent,
            kind=self._api.SpanKind.CONSUMER,
            links=links,
            attributes={PREFIX + "job": job, PREFIX + "attempt": number},
        )
        self._context.attach(self._api.set_span_in_context(span))
        return span

    def begin_step(self, name: str) -> "Span":
        """A part of what the current span tells of, which stays the current one."""
        return self._tracer.start_span(name)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator["Span"]:
        """A part of what the current span tells of; it has failed where the block raises."""
        # `note_failure` does both: an error's own code may raise when it is asked for its text.
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                self.note_failure(span, error)
                raise

    def enter_step(self, name: str) -> "Span":
        """The same, and the current span for the rest of this context."""
        span = self._tracer.start_span(name)
        self._context.attach(self._api.set_span_in_context(span))
        return span

    def note_failure(self, span: "Span", error: str | BaseException) -> None:
        """Mark what a span tells of as failed, whatever the error's own code does."""
        try:
            if isinstance(error, BaseException):
                span.record_exception(error)
            span.set_status(self._api.StatusCode.ERROR, str(error))
        except Exception:  # noqa: BLE001  # its ``__str__`` raises
            span.set_status(self._api.StatusCode.ERROR, type(error).__name__)

    def carry(self) -> dict[str, str]:
        """What the other program needs to go on with the current trace."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def trace_id(self) -> str | None:
        """The current trace, as its backend writes it; ``None`` outside of one."""
        context = self._api.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else None


@contextlib.contextmanager
def open_tracing(mode: TracingMode, service: str) -> Iterator[Tracing | None]:
    """Trace while the block runs; log lines bear the trace then.

    Where spans are sent, and how many, is said by OpenTelemetry's own variables
    (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER`` …).

    Args:
        mode: what ``TRACING`` says.
        service: the program's name.

    Raises:
        SettingsError: the extra is not installed.
    """
    if mode == "off":
        yield None
        return
    provider = _provider(service)
    tracing = Tracing(provider)
    # A line and its span are then found from each other.
    logs.show_trace(tracing.trace_id)
    try:
        yield tracing
    finally:
        logs.show_trace(None)
        provider.shutdown()


def _provider(service: str) -> "TracerProvider":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        from shared.observe.span_export import PlainExporter  # noqa: PLC0415
    except ImportError as exc:
        expected = (
            "off, or an installation with the extra: pip install 'sellfern-webhooks[tracing]'"
        )
        raise SettingsError("TRACING", expected, "otlp") from exc
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(PlainExporter(OTLPSpanExporter())))
    return provider
