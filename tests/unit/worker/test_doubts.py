"""Facts about what a worker starts with and warns of."""

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest

from shared.sellfern.reference import load_default
from tests.ingress_support import endpoints
from worker import Event, Handlers, Organization
from worker.doubts import Parts, doubts


async def handle(event: Event, organization: Organization) -> None: ...  # type: ignore[type-arg]


def told(handlers: Handlers) -> list[tuple[str, str]]:
    found = list(doubts(Parts(handlers, load_default(), endpoints())))
    assert {(each.level, each.subject) for each in found} <= {("warning", "handlers")}
    return [(each.code, each.message) for each in found]


UNLISTED = "the API Reference doesn't list this event, so it would end as unavailable_event"
UNMATCHED = "no event that the API Reference lists matches this pattern"
FOREIGN = "no endpoint of the endpoints file is this organization's"


@pytest.mark.parametrize(
    ("pattern", "organization", "expected"),
    [
        ("a.b", None, ("handler_for_unlisted_event", f"on('a.b'): {UNLISTED}")),
        (  # only a page for the older API names it
            "expense.created",
            None,
            ("handler_for_unlisted_event", f"on('expense.created'): {UNLISTED}"),
        ),
        (
            "order.update",
            None,
            (
                "handler_for_unlisted_event",
                f"on('order.update'): {UNLISTED}; did you mean 'order.updated'?",
            ),
        ),
        (
            "orders.*",
            None,
            ("pattern_without_event", f"on('orders.*'): {UNMATCHED}; did you mean 'order.*'?"),
        ),
        (
            "order.*",
            "org_acne",
            (
                "organization_without_endpoint",
                f"on('order.*', organization='org_acne'): {FOREIGN}; did you mean 'org_acme'?",
            ),
        ),
    ],
)
def test_a_handler_that_no_event_reaches_is_warned_of(
    pattern: str, organization: str | None, expected: tuple[str, str]
) -> None:
    handlers = Handlers()
    handlers.on("*")(handle)
    handlers.on(pattern, organization=organization)(handle)
    assert told(handlers) == [expected]


def test_what_is_ignored_is_looked_at_as_well() -> None:
    handlers = Handlers()
    handlers.on("*")(handle)
    handlers.ignore("ticket.*", organization="acme")
    assert [message.partition(":")[0] for _, message in told(handlers)] == [
        "ignore('ticket.*', organization='acme')"
    ] * 2


def test_handlers_that_events_reach_raise_no_doubts() -> None:
    handlers = Handlers()
    handlers.on("*")(handle)
    handlers.on("order.*", organization="org_acme")(handle)
    handlers.on("order.updated")(handle)
    assert told(handlers) == []


def test_events_that_nobody_handles_are_told_of_on_one_line() -> None:
    handlers = Handlers()
    handlers.on("order.updated")(handle)
    ((code, message),) = told(handlers)
    assert code == "event_without_handler"
    assert message.startswith("order.created, order.status_changed: no handler is registered")
    handlers.ignore("order.status_changed")
    for organization in endpoints().organizations:
        assert "order.created: no handler" in told(handlers)[0][1]
        handlers.on("order.created", organization=organization)(handle)
    assert told(handlers) == []


class Struct(msgspec.Struct, rename="camel"):
    order_id: str


class Model(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")


@dataclasses.dataclass
class Plain:
    orderId: str  # noqa: N815  # as it is in JSON


@pytest.mark.parametrize("kind", [Struct, Model, Plain, dict[str, str], Any])
def test_a_key_that_the_data_lacks_is_warned_of(kind: Any) -> None:
    async def typed(event: Any, organization: Organization) -> None: ...

    typed.__annotations__["event"] = Event[kind]
    for key, expected in (("orderId", []), ("order_id.x", ["key_not_in_data"])):
        handlers = Handlers()
        handlers.on("*", key=key)(typed)
        is_known = kind not in {Any, dict[str, str]}
        assert [code for code, _ in told(handlers)] == (expected if is_known else [])
