"""The management API's operations, those that Sellfern's pages name, and their document."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        method: of HTTP.
        path: with its parameters in braces.
        status: of an answer that says it was done.
    """

    method: str
    path: str
    status: HTTPStatus = HTTPStatus.OK

    @property
    def name(self) -> str:
        """The name that the reference data has for it."""
        return f"{self.method} {self.path}"

    @property
    def writes(self) -> bool:
        """Whether it changes something, and so takes an idempotency key."""
        return self.method != "GET"


CREATE: Final = Operation("POST", "/webhooks", HTTPStatus.CREATED)
LIST: Final = Operation("GET", "/webhooks")
CHANGE: Final = Operation("PATCH", "/webhooks/{id}")
REMOVE: Final = Operation("DELETE", "/webhooks/{id}")
TEST: Final = Operation("POST", "/webhooks/{id}/test")
DELIVERIES: Final = Operation("GET", "/webhooks/{id}/deliveries")
OPERATIONS: Final = (CREATE, LIST, CHANGE, REMOVE, TEST, DELIVERIES)

_DOCUMENT: Final = Path(__file__).with_suffix(".yaml")


def document(server: str, events: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        server: the base URL.
        events: the names of all events.
    """
    about: dict[str, Any] = yaml.safe_load(_DOCUMENT.read_text(encoding="utf-8"))
    about["servers"] = [{"url": server}]
    about["webhooks"] = {name: {"post": _webhook(name)} for name in events}
    about["components"]["schemas"]["EventName"]["enum"] = list(events)
    return about


def _webhook(name: str) -> dict[str, Any]:
    """What Sellfern posts where an endpoint takes an event."""
    is_named = {"type": "object", "properties": {"type": {"const": name}}}
    envelope = {"allOf": [{"$ref": "#/components/schemas/Envelope"}, is_named]}
    return {
        "summary": name,
        "requestBody": {"required": True, "content": {"application/json": {"schema": envelope}}},
        "responses": {"2XX": {"description": "accepted; any other answer is tried again"}},
    }
