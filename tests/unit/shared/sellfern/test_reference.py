"""Facts about the reference data."""

import pytest

from shared.sellfern.reference import load_default, parse_reference


def test_what_a_v1_page_names_is_available_and_what_only_a_legacy_page_names_is_not() -> None:
    reference = load_default()
    available = {name for name, entry in reference.events.items() if entry.available}
    assert available == {"order.created", "order.status_changed", "order.updated"}
    assert {entry.available for entry in reference.events.values() if entry.source == "legacy"} == {
        False
    }
    assert [name for name, entry in reference.operations.items() if entry.available] == [
        "POST /webhooks"
    ]


@pytest.mark.parametrize("name", ["ticket.created", "order.exploded", "", "order.*"])
def test_what_is_not_listed_is_unavailable(name: str) -> None:
    assert not load_default().is_available(name)


def test_the_reference_never_changes() -> None:
    with pytest.raises(TypeError):
        load_default().events["x"] = None  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("event = ", "reference data: Invalid value"),
        ("event = []", "missing required field `operation`"),
        ("operation = []\n[[event]]\nname = 'x'\nsource = 'blog'\navailable = true", "`event"),
        ("operation = []\n[[event]]\nname = 'x'\nsource = 'v1'\nextra = 1", "unknown field"),
        (
            "operation = []\n" + "[[event]]\nname = 'x'\nsource = 'v1'\navailable = true\n" * 2,
            "expected each event once, got x again",
        ),
    ],
)
def test_wrong_reference_data_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="reference data") as caught:
        parse_reference(text)
    assert message in str(caught.value) or "$.event" in str(caught.value)
