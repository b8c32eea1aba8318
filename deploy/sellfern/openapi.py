"""The operations of the management API that Sellfern's pages name, and the document of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from deploy.sellfern import api_key, idempotency
from deploy.sellfern.endpoint import LONGEST_URL, MOST_EVENTS


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        method: of HTTP.
        path: with its parameters in braces.
        summary: what it does, in a few words.
        status: of an answer that says it was done.
    """

    method: str
    path: str
    summary: str
    status: HTTPStatus = HTTPStatus.OK

    @property
    def name(self) -> str:
        """The name that the reference data has for it."""
        return f"{self.method} {self.path}"

    @property
    def writes(self) -> bool:
        """Whether it changes something, and so takes an idempotency key."""
        return self.method != "GET"


CREATE: Final = Operation("POST", "/webhooks", "Create a webhook endpoint", HTTPStatus.CREATED)
LIST: Final = Operation("GET", "/webhooks", "List the webhook endpoints")
CHANGE: Final = Operation("PATCH", "/webhooks/{id}", "Change a webhook endpoint")
REMOVE: Final = Operation("DELETE", "/webhooks/{id}", "Remove a webhook endpoint")
TEST: Final = Operation("POST", "/webhooks/{id}/test", "Send a test delivery")
DELIVERIES: Final = Operation(
    "GET", "/webhooks/{id}/deliveries", "List the latest deliveries, the newest first"
)

OPERATIONS: Final = (CREATE, LIST, CHANGE, REMOVE, TEST, DELIVERIES)


Node = dict[str, Any]

_ERRORS: Final = {
    "400": "validation_error",
    "401": "unauthorized",
    "403": "missing_scope",
    "404": "not_found",
    "422": "idempotency_conflict",
    "429": "rate_limited",
}
_TIME: Final[Node] = {"type": "string", "format": "date-time"}
_UUID: Final[Node] = {"type": "string", "format": "uuid"}
_TEXT: Final[Node] = {"type": "string"}
_WHOLE: Final[Node] = {"type": "integer"}


def document(server: str, events: Sequence[str]) -> Node:
    """The document.

    Args:
        server: the base URL.
        events: the names of all events.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sellfern webhooks, simulated",
            "version": "1.0.0",
            "description": "What the simulator offers. The vendor's own API Reference is the "
            "source of truth for the vendor.",
        },
        "servers": [{"url": server}],
        "security": [{"apiKey": []}],
        "paths": _paths(),
        "webhooks": {name: _webhook(name) for name in events},
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": api_key.HEADER}
            },
            "parameters": _parameters(),
            "responses": {code: _error(code) for code in _ERRORS.values()},
            "schemas": _schemas(events),
        },
    }


def _paths() -> Node:
    paths: Node = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return paths


def _operation(operation: Operation) -> Node:
    about: Node = {
        "summary": operation.summary,
        "operationId": _operation_id(operation),
        "x-required-scope": api_key.MANAGE,
        "responses": {
            str(operation.status.value): _done(operation),
            **{status: _ref("responses", code) for status, code in _ERRORS.items()},
        },
    }
    names = ["EndpointId"] if "{id}" in operation.path else []
    names += ["IdempotencyKey"] if operation.writes else []
    names += ["Limit"] if operation is DELIVERIES else []
    if names:
        about["parameters"] = [_ref("parameters", name) for name in names]
    body = {CREATE: "EndpointCreate", CHANGE: "EndpointChange"}.get(operation)
    if body is not None:
        about["requestBody"] = {"required": True, "content": _json(_ref("schemas", body))}
    return about


def _operation_id(operation: Operation) -> str:
    first, *more = operation.summary.lower().split(",")[0].split()
    return first + "".join(word.capitalize() for word in more)


def _done(operation: Operation) -> Node:
    data = {
        "GET /webhooks": {"type": "array", "items": _ref("schemas", "Endpoint")},
        "POST /webhooks": _ref("schemas", "EndpointCreated"),
        "PATCH /webhooks/{id}": _ref("schemas", "Endpoint"),
        "DELETE /webhooks/{id}": _object(id=_UUID, deleted={"type": "boolean"}),
        "POST /webhooks/{id}/test": _ref("schemas", "Delivery"),
        "GET /webhooks/{id}/deliveries": {
            "type": "array",
            "items": _ref("schemas", "Delivery"),
        },
    }[operation.name]
    body = _object(success={"const": True}, data=data, meta=_ref("schemas", "Meta"))
    return {"description": operation.summary, "content": _json(body)}


def _webhook(name: str) -> Node:
    envelope = {
        "allOf": [
            _ref("schemas", "Envelope"),
            {"type": "object", "properties": {"type": {"const": name}}},
        ]
    }
    return {
        "post": {
            "summary": name,
            "requestBody": {"required": True, "content": _json(envelope)},
            "responses": {"2XX": {"description": "accepted; any other answer is tried again"}},
        }
    }


def _parameters() -> Node:
    return {
        "EndpointId": {"name": "id", "in": "path", "required": True, "schema": _UUID},
        "IdempotencyKey": {
            "name": idempotency.HEADER,
            "in": "header",
            "description": "The same key with the same request gives the first answer, for a day.",
            "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.LONGEST},
        },
        "Limit": {
            "name": "limit",
            "in": "query",
            "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 50},
        },
    }


def _error(code: str) -> Node:
    error = _object(code={"const": code}, message=_TEXT)
    error["properties"]["details"] = {"type": "object"}
    body = _object(success={"const": False}, error=error, meta=_ref("schemas", "Meta"))
    return {"description": code, "content": _json(body)}


def _schemas(events: Sequence[str]) -> Node:
    url: Node = {"type": "string", "format": "uri", "maxLength": LONGEST_URL}
    names: Node = {
        "type": "array",
        "items": _ref("schemas", "EventName"),
        "minItems": 1,
        "maxItems": MOST_EVENTS,
        "uniqueItems": True,
    }
    enabled: Node = {"type": "boolean"}
    wanted = {"url": url, "events": names, "enabled": enabled}
    endpoint = _object(id=_UUID, **wanted, created_at=_TIME, updated_at=_TIME)
    secret = {"type": "string", "description": "shown once, if at all"}
    return {
        "EventName": {"type": "string", "enum": list(events)},
        "Endpoint": endpoint,
        "EndpointCreated": {
            **endpoint,
            "properties": {**endpoint["properties"], "secret": secret},
        },
        "EndpointCreate": {
            "type": "object",
            "properties": {**wanted, "enabled": {**enabled, "default": True}},
            "required": ["url", "events"],
            "additionalProperties": False,
        },
        "EndpointChange": {
            "type": "object",
            "properties": wanted,
            "minProperties": 1,
            "additionalProperties": False,
        },
        "Delivery": _delivery(),
        "Envelope": _object(
            id=_TEXT,
            type=_ref("schemas", "EventName"),
            created_at=_TIME,
            organization_id=_TEXT,
            data={"type": "object"},
        ),
        "Meta": _object(request_id=_TEXT),
    }


def _delivery() -> Node:
    statuses = ["pending", "delivered", "failed", "abandoned"]
    return _object(
        id=_TEXT,
        webhook_id=_UUID,
        event_id=_TEXT,
        event=_ref("schemas", "EventName"),
        status={"type": "string", "enum": statuses},
        attempts=_WHOLE,
        response_status=_optional(_WHOLE),
        error=_optional(_TEXT),
        duration_ms=_optional(_WHOLE),
        created_at=_TIME,
        last_attempt_at=_optional(_TIME),
        next_attempt_at=_optional(_TIME),
        delivered_at=_optional(_TIME),
    )


def _object(**properties: Node) -> Node:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _optional(schema: Node) -> Node:
    return {"anyOf": [schema, {"type": "null"}]}


def _json(schema: Node) -> Node:
    return {"application/json": {"schema": schema}}


def _ref(kind: str, name: str) -> Node:
    return {"$ref": f"#/components/{kind}/{name}"}
