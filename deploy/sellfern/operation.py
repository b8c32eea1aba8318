"""The operations of the management API: the ones that Sellfern's public pages name."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final


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
