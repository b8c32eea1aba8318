"""Facts about what a request may want an endpoint to be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sellfern.answer import Refused
from deploy.sellfern.draft import MOST_EVENTS, Draft, read_draft

KNOWN = ("order.created", "order.updated")
RIGHT = {"url": "https://shop.example/hooks", "events": ["order.updated"]}


def read(value: object, *, complete: bool = True) -> Draft:
    return read_draft(json.dumps(value).encode(), KNOWN, complete=complete)


def issues(value: object, *, complete: bool = True) -> dict[str, str]:
    """Where a draft is wrong, and what was expected there."""
    with pytest.raises(Refused) as refused:
        read(value, complete=complete)
    assert (refused.value.status, refused.value.code) == (400, "validation_error")
    details: Any = refused.value.details
    return {each["path"]: each["message"] for each in details["issues"]}


def test_a_draft_has_what_the_request_names() -> None:
    assert read(RIGHT) == Draft(RIGHT["url"], ("order.updated",), None)  # type: ignore[arg-type]
    assert read({"enabled": False}, complete=False) == Draft(enabled=False)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/webhooks/acme",
        "http://[::1]/",
        "https://shop.example/hooks?rotation=2",
        "https://shop.example/" + "a" * 2027,
    ],
)
def test_an_absolute_http_url_is_right(url: str) -> None:
    assert read({**RIGHT, "url": url}).url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "ftp://shop.example/",
        "https:///hooks",
        "https://me@shop.example/",
        "https://shop.example/#part",
        "https://shop.example:port/",
        "https://[::1",
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://größe.example/",
        "https://shop.example/" + "a" * 2028,
        None,
        7,
    ],
)
def test_another_url_is_wrong(url: object) -> None:
    assert set(issues({**RIGHT, "url": url})) == {"url"}


@pytest.mark.parametrize(
    ("events", "places"),
    [
        ([], {"events"}),
        ("order.updated", {"events"}),
        (["order.updated"] * (MOST_EVENTS + 1), {"events"}),
        (["order.updated", "order.paid"], {"events[1]"}),
        (["order.updated", "order.updated"], {"events[1]"}),
        ([7, "order.updated", None], {"events[0]", "events[2]"}),
    ],
)
def test_wrong_events_are_named_by_their_place(events: object, places: set[str]) -> None:
    assert set(issues({**RIGHT, "events": events})) == places


def test_everything_that_is_wrong_is_told_at_once() -> None:
    found = issues({"url": "no", "enabled": "yes", "secret": "whsec_mine"})
    assert set(found) == {"url", "enabled", "secret", "events"}
    assert (found["secret"], found["events"]) == ("no such field", "required")


def test_a_change_names_a_field() -> None:
    assert set(issues({}, complete=False)) == {""}


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_any_body_is_a_draft_or_refused(body: bytes) -> None:
    with pytest.raises(Refused):
        read_draft(body, KNOWN, complete=True)


def test_a_body_nested_too_deeply_is_refused() -> None:
    with pytest.raises(Refused):
        read_draft(b'{"url":' + b"[" * 100_000, KNOWN, complete=True)
