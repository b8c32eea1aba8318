"""Facts about the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from deploy.sellfern import api_key, endpoint, idempotency, management
from deploy.sellfern.openapi import OPERATIONS, document
from deploy.sellfern.vendor import EVENTS
from ingress.management.openapi import read_document
from shared.sellfern.reference import load_default


@pytest.fixture
def doc() -> dict[str, Any]:
    return document("http://127.0.0.1:8090", EVENTS)


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from nodes(value)
    if isinstance(part, list):
        for value in part:
            yield from nodes(value)


def test_it_lists_the_operations_that_the_reference_data_names(doc: dict[str, Any]) -> None:
    listed = {f"{method.upper()} {path}" for path, item in doc["paths"].items() for method in item}
    assert listed == set(load_default().operations) == {each.name for each in OPERATIONS}


def test_importing_it_makes_every_operation_and_event_available(doc: dict[str, Any]) -> None:
    listing = read_document(msgspec.json.encode(doc))
    assert listing.operations == {each.name: each.path for each in OPERATIONS}
    assert set(listing.events or ()) == set(load_default().events)


def test_it_has_every_event_as_a_webhook_and_in_one_enumeration(doc: dict[str, Any]) -> None:
    assert list(doc["webhooks"]) == list(EVENTS)
    assert doc["components"]["schemas"]["EventName"]["enum"] == list(EVENTS)


def test_every_reference_leads_somewhere(doc: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(doc) if "$ref" in node]
    assert references
    for reference in references:
        target: Any = doc
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_operation_ids_are_there_once(doc: dict[str, Any]) -> None:
    ids = [node["operationId"] for node in nodes(doc) if "operationId" in node]
    assert len(set(ids)) == len(OPERATIONS)


def test_every_write_takes_an_idempotency_key(doc: dict[str, Any]) -> None:
    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    for operation in OPERATIONS:
        about = doc["paths"][operation.path][operation.method.lower()]
        assert (key in about.get("parameters", [])) == operation.writes


def test_what_it_says_is_what_the_simulator_holds_requests_to(doc: dict[str, Any]) -> None:
    key = doc["components"]["parameters"]["IdempotencyKey"]
    assert (key["name"], key["schema"]["maxLength"]) == (idempotency.HEADER, idempotency.LONGEST)
    limit = doc["components"]["parameters"]["Limit"]["schema"]
    assert limit["maximum"] == management.MOST_LISTED
    assert doc["components"]["securitySchemes"]["apiKey"]["name"] == api_key.HEADER
    wanted = doc["components"]["schemas"]["EndpointCreate"]["properties"]
    assert wanted["url"]["maxLength"] == endpoint.LONGEST_URL
    assert wanted["events"]["maxItems"] == endpoint.MOST_EVENTS
    for operation in OPERATIONS:
        about = doc["paths"][operation.path][operation.method.lower()]
        assert str(operation.status.value) in about["responses"]
        assert about["x-required-scope"] == api_key.MANAGE
