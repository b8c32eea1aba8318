"""Facts about reading OpenAPI documents, friendly and hostile ones."""

import json
import tracemalloc
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ingress.management.openapi import LARGEST, DocumentError, Listing, read_document

OPERATION: dict[str, Any] = {"responses": {}}


def document(**changes: Any) -> dict[str, Any]:
    """A document with one operation under /webhooks, changed."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sellfern", "version": "1"},
        "paths": {"/webhooks": {"post": OPERATION}},
        **changes,
    }


def read(**changes: Any) -> Listing:
    return read_document(json.dumps(document(**changes)).encode())


def refused(content: bytes) -> str:
    with pytest.raises(DocumentError) as caught:
        read_document(content)
    return str(caught.value)


def with_events(schema: Any, name: str = "events") -> dict[str, Any]:
    """Paths whose create takes a body with this schema."""
    body = {"type": "object", "properties": {name: schema}}
    content = {"application/json": {"schema": body}}
    return {"/webhooks": {"post": {**OPERATION, "requestBody": {"content": content}}}}


def test_json_and_yaml_say_the_same() -> None:
    listing = read()
    assert listing == Listing("Sellfern 1", {"POST /webhooks": "/webhooks"}, None)
    assert read_document(yaml.safe_dump(document()).encode()) == listing
    assert read_document(b"\xef\xbb\xbf" + json.dumps(document()).encode()) == listing


@pytest.mark.parametrize("version", ["3.0.0", "3.0.3", "3.1.0", "3.1.1", "3.1", "3.0.0-rc2"])
def test_versions_3_0_and_3_1_are_read(version: str) -> None:
    assert read(openapi=version).operations


def test_a_version_that_yaml_takes_for_a_number_is_read() -> None:
    assert read_document(b"openapi: 3.1\npaths:\n  /webhooks:\n    get: {}\n").operations == {
        "GET /webhooks": "/webhooks"
    }


@pytest.mark.parametrize("version", ["2.0", "3.2.0", "4.0.0", "", None, 3, ["3.1.0"], "3.1.x"])
def test_other_versions_are_refused(version: object) -> None:
    message = refused(json.dumps(document(openapi=version)).encode())
    assert message.startswith("expected an OpenAPI document 3.0 or 3.1, got openapi ")


def test_swagger_is_refused_by_name() -> None:
    assert refused(b'{"swagger": "2.0"}').endswith("got swagger '2.0'")


@pytest.mark.parametrize(
    ("path", "name", "asked"),
    [
        ("/webhooks", "/webhooks", "/webhooks"),
        ("/webhooks/", "/webhooks", "/webhooks"),
        ("/api/v2/webhooks", "/webhooks", "/api/v2/webhooks"),
        ("/v1/webhooks/{webhookId}", "/webhooks/{id}", "/v1/webhooks/{id}"),
        ("/webhooks/{hook}:ping", "/webhooks/{id}:ping", "/webhooks/{id}:ping"),
        ("/webhooks/{webhook_id}/test", "/webhooks/{id}/test", "/webhooks/{id}/test"),
        (
            "/api/v1/webhooks/{id}/deliveries/{deliveryId}",
            "/webhooks/{id}/deliveries/{delivery_id}",
            "/api/v1/webhooks/{id}/deliveries/{delivery_id}",
        ),
    ],
)
def test_a_path_has_one_name_whatever_its_version_and_its_parameters_are_called(
    path: str, name: str, asked: str
) -> None:
    assert read(paths={path: {"get": OPERATION}}).operations == {f"GET {name}": asked}


@pytest.mark.parametrize("path", ["/orders", "/webhooksx", "/x/webhooks", "webhooks", "/webhook"])
def test_paths_that_are_not_under_webhooks_are_none_of_ours(path: str) -> None:
    paths = {path: {"get": OPERATION}, "/webhooks": {"post": OPERATION}}
    assert read(paths=paths).operations == {"POST /webhooks": "/webhooks"}


def test_the_plain_path_wins_over_the_ones_with_a_version_else_the_first() -> None:
    get = {"get": OPERATION}
    paths = {"/api/v2/webhooks": get, "/v1/webhooks": get}
    assert read(paths=paths).operations == {"GET /webhooks": "/api/v2/webhooks"}
    assert read(paths={**paths, "/webhooks": get}).operations == {"GET /webhooks": "/webhooks"}


def test_only_methods_are_operations() -> None:
    item = {"parameters": [], "summary": "x", "x-y": {}, "put": {}, "delete": {}, "query": {}}
    operations = read(paths={"/webhooks/{id}": item}).operations
    assert set(operations or ()) == {"PUT /webhooks/{id}", "DELETE /webhooks/{id}"}


@pytest.mark.parametrize(
    ("servers", "prefix"),
    [
        ([{"url": "https://api.sellfern.com"}], ""),
        ([{"url": "https://api.sellfern.com/api/v1/"}, {"url": "https://x/y"}], "/api/v1"),
        ([{"url": "/v3"}], "/v3"),
        ([{"url": "https://h/{v}", "variables": {"v": {"default": "v9"}}}], "/v9"),
        ([], ""),
        (None, ""),
        ([{}], ""),
        ({"url": "https://x/y"}, ""),
    ],
)
def test_a_servers_path_comes_before_and_its_host_is_never_taken(
    servers: object, prefix: str
) -> None:
    assert read(servers=servers).operations == {"POST /webhooks": f"{prefix}/webhooks"}


@pytest.mark.parametrize("url", ["https://h/{v}", "https://[h/x", "https://h/a b", "https://h/%2e"])
def test_a_server_whose_path_isn_t_plain_is_refused(url: str) -> None:
    message = refused(json.dumps(document(servers=[{"url": url}])).encode())
    assert message.startswith("expected the URL of a server with a plain path")


def test_without_paths_the_document_says_nothing_of_operations() -> None:
    listing = read(paths={}, webhooks={"order.updated": {}})
    assert listing.operations is None
    assert listing.events == ("order.updated",)


def test_paths_without_webhooks_say_that_there_is_no_operation() -> None:
    listing = read(paths={"/orders": {}}, webhooks={"order.updated": {}})
    assert listing.operations == {}


def test_the_webhooks_section_names_events() -> None:
    body = {"content": {"json": {"schema": {"properties": {"type": {"const": "ticket.created"}}}}}}
    section = {"order.updated": {}, "newTicket": {"post": {"requestBody": body}}}
    assert read(webhooks=section).events == ("order.updated", "ticket.created")
    assert read(**{"x-webhooks": section}).events == ("order.updated", "ticket.created")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"enum": ["order.updated", "order.created"]}},
        {"items": {"anyOf": [{"enum": ["order.updated"]}, {"const": "order.created"}]}},
        {"items": {"enum": ["*", "order.*", "order.updated", "order.created"]}},
        {"items": {"$ref": "#/components/schemas/Name"}},
    ],
)
def test_an_enumeration_of_the_subscribable_events_is_found(schema: Any) -> None:
    names = {"schemas": {"Name": {"enum": ["order.updated", "order.created"]}}}
    assert set(read(paths=with_events(schema), components=names).events or ()) == {
        "order.updated",
        "order.created",
    }


def test_a_schema_that_is_called_after_events_is_found_anywhere() -> None:
    schemas = {
        "WebhookEventType": {"enum": ["order.updated"]},
        "Envelope": {"properties": {"eventName": {"enum": ["expense.created"]}}},
        "Product": {"properties": {"type": {"enum": ["shoes.men"]}}},
    }
    assert read(components={"schemas": schemas}).events == ("order.updated", "expense.created")


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["pending", "order.updated"]},
        {"enum": ["Order.Updated"]},
        {"enum": ["order..updated"]},
        {"enum": "order.updated"},
        {"enum": []},
        {"const": 3},
        {"example": {"enum": ["order.updated"]}},
        {"description": "order.updated"},
    ],
)
def test_what_is_no_enumeration_of_event_names_names_none(schema: Any) -> None:
    assert read(paths=with_events(schema)).events is None


def test_properties_of_another_name_name_no_events() -> None:
    assert read(paths=with_events({"enum": ["shop.orders"]}, name="scopes")).events is None


def test_a_parameter_by_the_name_of_an_event_names_some() -> None:
    parameter = {"name": "event", "in": "query", "schema": {"enum": ["order.updated"]}}
    item = {"get": {**OPERATION, "parameters": [parameter]}}
    assert read(paths={"/webhooks/{id}/deliveries": item}).events == ("order.updated",)


def test_a_schema_that_contains_itself_is_read_once() -> None:
    """OpenAPI allows it: a category has categories, a reply has replies."""
    tree = {
        "properties": {
            "children": {"items": {"$ref": "#/components/schemas/Tree"}},
            "events": {"items": {"enum": ["order.updated"]}},
        }
    }
    listing = read(
        paths=with_events({"$ref": "#/components/schemas/Tree"}),
        components={"schemas": {"Tree": tree}},
    )
    assert listing.events == ("order.updated",)


@pytest.mark.parametrize("length", [1, 2, 50])
def test_references_that_lead_to_themselves_are_refused(length: int) -> None:
    schemas = {
        f"S{n}": {"$ref": f"#/components/schemas/S{(n + 1) % length}"} for n in range(length)
    }
    paths = with_events({"$ref": "#/components/schemas/S0"})
    message = refused(json.dumps(document(paths=paths, components={"schemas": schemas})).encode())
    assert "which leads back to itself" in message


def test_a_path_that_is_a_reference_is_followed_and_one_to_itself_is_refused() -> None:
    components = {"pathItems": {"Hooks": {"get": OPERATION}}}
    paths = {"/webhooks": {"$ref": "#/components/pathItems/Hooks"}}
    assert read(paths=paths, components=components).operations == {"GET /webhooks": "/webhooks"}
    itself = {"/webhooks": {"$ref": "#/paths/~1webhooks"}}
    assert "leads back to itself" in refused(json.dumps(document(paths=itself)).encode())


@pytest.mark.parametrize(
    ("pointer", "message"),
    [
        ("#/components/schemas/Gone", "expected references to what is there"),
        ("#/paths/0", "expected references to what is there"),
        ("other.yaml#/x", "expected references within the document"),
        ("https://evil.example/x", "expected references within the document"),
        ("", "expected references within the document"),
    ],
)
def test_references_to_elsewhere_or_nowhere_are_refused(pointer: str, message: str) -> None:
    paths = {"/webhooks": {"$ref": pointer}}
    assert message in refused(json.dumps(document(paths=paths)).encode())


def test_references_through_lists_and_escapes_are_followed() -> None:
    paths = {"/webhooks": {"$ref": "#/x~0y/1/%61"}}
    listing = read(paths=paths, **{"x~y": [0, {"a": {"get": OPERATION}}]})
    assert listing.operations == {"GET /webhooks": "/webhooks"}


def test_a_long_chain_of_references_costs_its_length_once() -> None:
    length = 20_000
    chain = {f"S{n}": {"$ref": f"#/components/schemas/S{n + 1}"} for n in range(length)}
    chain[f"S{length}"] = {"enum": ["order.updated"]}  # type: ignore[dict-item]
    many = {"anyOf": [{"$ref": "#/components/schemas/S0"} for _ in range(length)]}
    listing = read(paths=with_events(many), components={"schemas": chain})
    assert listing.events == ("order.updated",)


def test_an_alias_bomb_takes_no_room() -> None:
    bomb = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    text = "openapi: 3.1.0\npaths: {/webhooks: {post: {x: *a59}}}\n"
    tracemalloc.start()
    try:
        listing = read_document("\n".join([*bomb, text]).encode())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert listing.operations == {"POST /webhooks": "/webhooks"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (b"[1, 2]", "got a list"),
        (b"just a text", "got a text"),
        (b"\xff\xfe", "expected UTF-8 text"),
        (b"{", "expected JSON, got a mistake"),
        (b'{"openapi": "3.1.0", "paths": {}}', "got none of them"),
        (b'{"openapi": "3.1.0", "paths": []}', "got none of them"),
        (b'{"openapi": "3.1.0", "paths": ["x"]}', "a mapping at paths, got a list"),
        (b'{"openapi": "3.1.0", "paths": {"/webhooks": 7}}', "a mapping at paths./webhooks"),
        (b'{"openapi": "3.1.0", "webhooks": ["x"]}', "a mapping at webhooks"),
        (b'{"openapi": "3.1.0", "components": "x"}', "a mapping at components"),
        (b'{"openapi": "3.1.0", "components": {"schemas": [1]}}', "components.schemas"),
        (b'{"openapi": "3.1.0", "paths": {"/webhooks/a b": {}}}', "paths of plain segments"),
        (b'{"openapi": "3.1.0", "paths": {"/webhooks/../x": {}}}', "paths of plain segments"),
        (b"a: [", "expected YAML, got a mistake"),
        (b"a: &a [*a]", "expected YAML, got a mistake"),
        (b"? [x]\n: y", "expected YAML, got a mistake"),
        (b"- " * 5000, "expected YAML, got a mistake"),
        (b"[" * 5000, "expected YAML, got a mistake"),
        (b'{"a":' * 100_000, "expected a document of moderate depth"),
    ],
)
def test_what_is_no_document_is_refused_in_a_line(content: bytes, message: str) -> None:
    told = refused(content)
    assert message in told
    assert "\n" not in told


def test_a_python_tag_in_yaml_is_a_text() -> None:
    text = b"x: !!python/object/apply:os.system ['true']\n" + yaml.safe_dump(document()).encode()
    assert read_document(text).operations


def test_a_huge_document_is_refused_before_it_is_read() -> None:
    assert refused(b" " * (LARGEST + 1)) == f"expected at most {LARGEST} bytes, got {LARGEST + 1}"


def test_too_many_operations_are_refused() -> None:
    paths: dict[str, Any] = {f"/webhooks/x{n}": {"get": {}} for n in range(10_001)}
    assert "at most 10000 operations" in refused(json.dumps(document(paths=paths)).encode())


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("order.updated"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["$ref", "enum", "const", "properties", "events", "type", "/webhooks", "get", "url"]
            )
            | st.text(max_size=5),
            inner | st.sampled_from(["#", "#/paths", "#/components/schemas/A", "#/webhooks"]),
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(
    st.fixed_dictionaries(
        {"openapi": st.just("3.1.0")},
        optional={
            "paths": _values | st.dictionaries(st.just("/webhooks"), _values),
            "webhooks": _values,
            "components": _values | st.fixed_dictionaries({"schemas": _values}),
            "servers": _values,
            "info": _values,
        },
    )
)
def test_any_document_is_read_or_refused(anything: dict[str, Any]) -> None:
    content = json.dumps(anything).encode()
    try:
        listing = read_document(content)
    except DocumentError:
        return
    assert listing.operations or listing.events


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with pytest.raises(DocumentError):
        read_document(content)
