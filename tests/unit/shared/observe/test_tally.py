"""Our own counters and histograms show what the client library's would."""

import math
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from shared.observe import tally

BOUNDS = (0.01, 1, 2.5, 300)


def samples(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every number, but for the library's times of making."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def metrics(library: Any) -> tuple[CollectorRegistry, Any, Any, Any, Any]:
    registry = CollectorRegistry()
    return (
        registry,
        library.Counter("plain", "One.", registry=registry),
        library.Counter("told_apart", "Some.", ["by", "and"], registry=registry),
        library.Histogram("seconds", "One.", buckets=BOUNDS, registry=registry),
        library.Histogram("sizes", "Some.", ["of"], buckets=BOUNDS, registry=registry),
    )


values = st.one_of(
    st.sampled_from(BOUNDS), st.floats(0, 1e6), st.integers(0, 400), st.just(math.inf)
)


@given(st.lists(st.tuples(st.sampled_from("abc"), values)))
def test_they_show_the_same_numbers(observed: list[tuple[str, float]]) -> None:
    shown = []
    for library in (tally, prometheus_client):
        registry, plain, told_apart, seconds, sizes = metrics(library)
        for label, value in observed:
            plain.inc()
            told_apart.labels(label, "x").inc(2)
            seconds.observe(value)
            sizes.labels(label).observe(value)
        shown.append(samples(registry))
    assert shown[0] == shown[1]


def test_they_are_shown_as_text_before_anything_is_counted() -> None:
    registry, *_ = metrics(tally)
    lines = generate_latest(registry).decode().splitlines()
    assert "# TYPE plain_total counter" in lines
    assert "plain_total 0.0" in lines
    assert "# HELP sizes Some." in lines
    assert not [line for line in lines if line.startswith(("told_apart", "sizes"))]


def test_a_child_is_made_once() -> None:
    _, _, told_apart, _, sizes = metrics(tally)
    assert told_apart.labels("a", "b") is told_apart.labels("a", "b")
    assert sizes.labels("a") is not sizes.labels("b")


def test_as_many_values_as_labels_are_expected() -> None:
    _, plain, told_apart, _, _ = metrics(tally)
    for metric, wrong in ((told_apart, ("a",)), (plain, ("a",))):
        with pytest.raises(ValueError, match="expected"):
            metric.labels(*wrong)
