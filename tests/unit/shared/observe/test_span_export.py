"""Spans are sent whatever is in them."""

from collections.abc import Sequence
from typing import Any, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import Link, StatusCode

from shared.observe.span_export import PlainExporter
from shared.observe.tracing import Tracing

BAD = "\ud800 and\udfff"
SHOWN = r"\ud800 and\udfff"


class Sent(SpanExporter):
    """Keeps what it is to send."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert encode_spans(spans).SerializeToString()
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.is_shut_down = True

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return timeout_millis == 7


@pytest.fixture
def sent() -> Sent:
    return Sent()


def provider(sent: Sent) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(PlainExporter(sent)))
    return provider


def started(sent: Sent, name: str = "name", **options: Any) -> Span:
    span = provider(sent).get_tracer("test").start_span(name, **options)
    assert isinstance(span, Span)
    return span


def test_a_lone_surrogate_is_escaped_wherever_it_stands(sent: Sent) -> None:
    other = started(sent).get_span_context()
    span = started(sent, BAD, attributes={BAD: BAD}, links=[Link(other, {BAD: BAD})])
    span.set_attribute("many", [BAD, "fine"])
    span.add_event(BAD, {BAD: BAD}, timestamp=7)
    span.set_status(StatusCode.ERROR, BAD)
    span.end()
    (told,) = sent.spans
    assert (told.name, told.status.description) == (SHOWN, SHOWN)
    assert told.attributes == {SHOWN: SHOWN, "many": (SHOWN, "fine")}
    assert [(each.name, each.attributes, each.timestamp) for each in told.events] == [
        (SHOWN, {SHOWN: SHOWN}, 7)
    ]
    assert [(each.context, each.attributes) for each in told.links] == [(other, {SHOWN: SHOWN})]


def test_what_else_a_span_says_stays(sent: Sent) -> None:
    span = started(sent)
    span.set_attribute("text", BAD)
    span.end()
    (told,) = sent.spans
    kept = ("context", "parent", "resource", "kind", "start_time", "end_time")
    for name in (*kept, "instrumentation_scope"):
        assert getattr(told, name) == getattr(span, name)


def test_a_number_that_the_protocol_does_not_have_is_a_text(sent: Sent) -> None:
    span = started(sent)
    span.set_attributes({"large": 2**63, "small": -(2**63), "yes": True, "half": 0.5})
    span.end()
    assert sent.spans[0].attributes == {
        "large": str(2**63),
        "small": -(2**63),
        "yes": True,
        "half": 0.5,
    }


def test_a_span_with_nothing_to_escape_is_sent_as_it_is(sent: Sent) -> None:
    span = started(sent, "ü", attributes={"text": "☃", "number": 1})
    span.end()
    assert sent.spans[0].attributes is not None
    assert type(sent.spans[0].attributes) is type(span.attributes)


def test_it_ends_as_the_exporter_that_it_sends_by(sent: Sent) -> None:
    exporter = PlainExporter(sent)
    assert exporter.force_flush(7)
    exporter.shutdown()
    assert sent.is_shut_down


@given(st.text(st.characters()), st.dictionaries(st.text(st.characters()), st.integers()))
def test_any_span_can_be_sent(text: str, attributes: dict[str, int]) -> None:
    sent = Sent()
    span = started(sent, text, attributes=attributes)
    span.record_exception(ValueError(text))
    span.set_status(StatusCode.ERROR, text)
    span.end()
    assert len(sent.spans) == 1


class Unprintable(ValueError):
    """An error whose own code raises."""

    def __str__(self) -> Never:
        raise RuntimeError("as told")


class Panic(BaseException):
    """As a Rust extension's is."""


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (KeyError(BAD), repr(BAD)),
        (ValueError(BAD), SHOWN),
        (BAD, SHOWN),
        (Panic("out"), "out"),
        (Unprintable(), "Unprintable"),
    ],
)
def test_a_failure_of_any_kind_is_noted(
    sent: Sent, error: str | BaseException, described: str
) -> None:
    tracing = Tracing(provider(sent))
    span = tracing.begin_step("handler")
    tracing.note_failure(span, error)
    span.end()
    (told,) = sent.spans
    assert told.status.status_code is StatusCode.ERROR
    assert told.status.description == described


def test_a_step_that_raises_has_failed_and_raises_the_same(sent: Sent) -> None:
    error = Unprintable()
    with pytest.raises(Unprintable) as raised, Tracing(provider(sent)).step("enqueue"):
        raise error
    assert raised.value is error
    assert sent.spans[0].status.description == "Unprintable"
