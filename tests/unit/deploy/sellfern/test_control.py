"""Facts about the simulator's page for people."""

import time
from html.parser import HTMLParser

import pytest

from deploy.sellfern.api_key import ApiKeys, parse_api_key
from deploy.sellfern.control import render
from deploy.sellfern.delivery import Attempt, Delivery
from deploy.sellfern.event import Event
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import EVENTS, Sellfern

HOSTILE = "<script>alert('&\")</script>"


class Elements(HTMLParser):
    """Which elements a page has, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # the parser's
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def sellfern() -> Sellfern:
    keys = ApiKeys(map(parse_api_key, ["sk_secret_key:org_a", "sk_other:org_b"]))
    return Sellfern(keys, SimulatorSettings(), time.time)


def deliver(sellfern: Sellfern, endpoint_id: str, *attempts: Attempt, text: str = "evt_1") -> None:
    event = Event(text, text, 0.0, "org_a", {})
    delivery = Delivery("dlv_1", endpoint_id, event, b"", "event", 0.0, attempts=list(attempts))
    sellfern.deliveries.begin(delivery)


def test_an_empty_page_offers_to_send_each_event_to_each_organization(sellfern: Sellfern) -> None:
    page = Elements(render(sellfern))
    assert page.tags.count("form") == 2
    assert page.tags.count("option") == 2 + len(EVENTS) + 2
    assert page.text.count("None yet.") == 2
    assert "Send order.updated" in page.text
    assert "sk_" not in page.text


def test_it_shows_endpoints_with_their_secret_and_deliveries(sellfern: Sellfern) -> None:
    endpoint = sellfern.endpoints.create("org_a", "https://shop.example/", ("order.updated",))
    sellfern.endpoints.create("org_b", "https://b.example/", ("order.updated",), enabled=False)
    deliver(sellfern, endpoint.id, Attempt(0.0, 0.1, 503))
    page = Elements(render(sellfern))
    assert endpoint.secret.reveal() in page.text
    assert page.text.count("https://shop.example/") == 2
    assert "503" in page.text


def test_what_came_from_outside_stays_text(sellfern: Sellfern) -> None:
    endpoint = sellfern.endpoints.create(
        "org_a", f"https://x/{HOSTILE}", (HOSTILE,), secret=HOSTILE
    )
    deliver(sellfern, endpoint.id, Attempt(0.0, 0.1, None, HOSTILE), text=HOSTILE)
    page = Elements(render(sellfern))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 7


def test_a_delivery_outlives_its_endpoint_and_may_have_no_attempt_yet(sellfern: Sellfern) -> None:
    deliver(sellfern, "gone")
    assert "a removed endpoint" in Elements(render(sellfern)).text
