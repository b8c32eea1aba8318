"""Facts about endpoints: what a request may want one to be, and those that are registered."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sellfern.answer import Refused
from deploy.sellfern.endpoint import MOST, MOST_EVENTS, Draft, Endpoint, Endpoints, read_draft
from tests.unit.deploy.sellfern.hand_clock import HandClock

URL = "https://shop.example/hooks"
EVENTS = ("order.updated",)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def endpoints(clock: HandClock) -> Endpoints:
    return Endpoints(clock)


def created(endpoints: Endpoints, organization: str = "org_a", url: str = URL) -> Endpoint:
    return endpoints.create(organization, url, EVENTS)


def test_an_endpoint_is_shown_without_its_secret(endpoints: Endpoints) -> None:
    endpoint = created(endpoints)
    assert endpoint.secret.reveal().startswith("whsec_")
    assert endpoint.secret.reveal() not in repr(endpoint)
    assert endpoint.shown() == {
        "id": endpoint.id,
        "url": URL,
        "events": ["order.updated"],
        "enabled": True,
        "created_at": "2026-01-31T12:00:00.000Z",
        "updated_at": "2026-01-31T12:00:00.000Z",
    }


def test_each_endpoint_has_a_secret_of_its_own(endpoints: Endpoints) -> None:
    first, second = created(endpoints), created(endpoints, url=URL + "?rotation=2")
    assert first.secret != second.secret


def test_one_organization_has_a_url_once_and_another_may_have_it(endpoints: Endpoints) -> None:
    first = created(endpoints)
    second = created(endpoints, url=URL + "?rotation=2")
    with pytest.raises(Refused, match="registered already"):
        created(endpoints)
    with pytest.raises(Refused, match="registered already"):
        endpoints.change(second, Draft(url=URL))
    assert endpoints.change(first, Draft(url=URL)).url == URL
    assert created(endpoints, "org_b").url == URL


def test_one_url_may_be_registered_twice_where_that_is_allowed(clock: HandClock) -> None:
    endpoints = Endpoints(clock, same_url=True)
    assert created(endpoints).id != created(endpoints).id


def test_an_organization_has_so_many_endpoints(endpoints: Endpoints) -> None:
    for number in range(MOST):
        created(endpoints, url=f"{URL}/{number}")
    with pytest.raises(Refused, match="too many"):
        created(endpoints)
    created(endpoints, "org_b")


def test_another_organizations_endpoint_is_as_little_there_as_none(endpoints: Endpoints) -> None:
    endpoint = created(endpoints)
    answers = []
    for endpoint_id in (endpoint.id, "nothing"):
        with pytest.raises(Refused) as refused:
            endpoints.get("org_b", endpoint_id)
        answers.append((refused.value.status, str(refused.value), refused.value.details))
    assert answers[0] == answers[1]
    assert endpoints.of("org_b") == []


def test_a_change_replaces_what_it_names(endpoints: Endpoints, clock: HandClock) -> None:
    endpoint = created(endpoints)
    clock.now += 60
    changed = endpoints.change(endpoint, Draft(enabled=False))
    assert (changed.url, changed.events, changed.enabled) == (URL, EVENTS, False)
    assert (changed.created_at, changed.updated_at) == (clock.now - 60, clock.now)
    assert changed.secret == endpoint.secret
    changed = endpoints.change(changed, Draft(url=URL + "/2", events=("order.created",)))
    assert endpoints.of("org_a") == [changed]
    assert (changed.url, changed.events, changed.enabled) == (
        URL + "/2",
        ("order.created",),
        False,
    )


def test_what_is_wanted_is_what_enabled_endpoints_take(endpoints: Endpoints) -> None:
    endpoints.create("org_a", URL, ("order.updated", "order.created"))
    endpoints.create("org_a", URL + "/2", ("ticket.created",), enabled=False)
    assert endpoints.wanted("org_a") == {"order.updated", "order.created"}
    assert endpoints.wanted("org_b") == frozenset()


def test_a_removed_endpoint_is_gone(endpoints: Endpoints) -> None:
    endpoint = created(endpoints)
    endpoints.remove(endpoint)
    assert endpoints.find(endpoint.id) is None
    assert created(endpoints).id != endpoint.id


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
