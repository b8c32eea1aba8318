"""Spans as every collector can read them: an optional extra, loaded only where it is used."""

from collections.abc import Iterator, Sequence

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from shared.display import encodable


class PlainExporter(SpanExporter):
    """Sends spans by another exporter, with what can't be sent escaped.

    One text with a lone surrogate, or one number of over 64 bits, has the whole batch lost, and
    with it the spans of others. Such come from outside, with handlers' errors, and from handlers
    that say something of their own spans; here all of them pass.

    Args:
        exporter: that sends them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        return self._exporter.export([_sendable(span) for span in spans])

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what it keeps."""
        return self._exporter.force_flush(timeout_millis)


def _sendable(span: ReadableSpan) -> ReadableSpan:
    # Nearly every one; it is not copied.
    if all(encodable(value) == value for value in _said(span)):
        return span
    return ReadableSpan(
        name=encodable(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=encodable(span.attributes),
        events=[
            Event(encodable(e.name), encodable(e.attributes), e.timestamp) for e in span.events
        ],
        links=[Link(each.context, encodable(each.attributes)) for each in span.links],
        kind=span.kind,
        status=Status(span.status.status_code, encodable(span.status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _said(span: ReadableSpan) -> Iterator[object]:
    """All in a span that anybody may have chosen."""
    yield span.name
    yield span.status.description
    yield span.attributes
    for event in span.events:
        yield event.name
        yield event.attributes
    for link in span.links:
        yield link.attributes
