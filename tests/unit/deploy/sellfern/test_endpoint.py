"""Facts about registered endpoints."""

import pytest

from deploy.sellfern.answer import Refused
from deploy.sellfern.draft import Draft
from deploy.sellfern.endpoint import MOST, Endpoint, Endpoints
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
