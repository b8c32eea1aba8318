"""What can go wrong when Sellfern's management API is asked for something.

ApiError
├── OperationUnavailable    the API Reference doesn't list the operation; nothing was sent
├── EventUnavailable        it doesn't list an event; nothing was sent
├── OutcomeUnknown          a change may have happened or not; the same command finds out
├── NoAnswer                a question was not answered in time
└── Answered                Sellfern answered, and has a request id
    ├── UnreadableAnswer    with something that isn't documented
    ├── ValidationFailed    400 validation_error
    ├── Unauthorized        401 unauthorized
    ├── MissingScope        403 missing_scope
    ├── NotFound            404 not_found
    ├── IdempotencyConflict 422 idempotency_conflict
    ├── RateLimited         429 rate_limited, again and again
    ├── ServerFault         5xx, again and again
    └── OtherError          a code that isn't documented
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from shared.display import json_line
from shared.errors import SellfernError

_SHOWN: Final = 1000  # characters of an answer's details


class ApiError(SellfernError):
    """Everything that the client raises about the management API."""


class OperationUnavailable(ApiError):
    """The API Reference doesn't list an operation.

    Attributes:
        operation: such as ``DELETE /webhooks/{id}``.
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(
            f"{operation} is not available: Sellfern's API Reference, as far as it is known here, "
            "doesn't list it"
        )


class EventUnavailable(ApiError):
    """The API Reference doesn't list an event.

    Attributes:
        event: its name.
    """

    def __init__(self, event: str) -> None:
        self.event = event
        super().__init__(
            f"the event {event} is not available: Sellfern's API Reference, as far as it is known "
            "here, doesn't list it (see: reference show)"
        )


class NoAnswer(ApiError):
    """A question was not answered in time; it changed nothing."""


class OutcomeUnknown(ApiError):
    """A change was asked for, and whether it happened isn't known.

    Attributes:
        key: the idempotency key, which the journal keeps for the same request.
    """

    def __init__(self, operation: str, key: str, why: str) -> None:
        self.key = key
        super().__init__(
            f"{operation}: {why}. Whether it took effect is unknown; the same command again asks "
            "with the same idempotency key, which is safe"
        )


class Answered(ApiError):
    """Sellfern answered with an error.

    Attributes:
        status: of HTTP.
        code: Sellfern's name of the error; empty where the answer has none.
        details: what the answer says besides.
        request_id: for Sellfern's support; empty where the answer has none.
    """

    advice = ""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        details: Any = None,
        request_id: str = "",
    ) -> None:
        self.status = status
        self.code = code
        self.details = details
        self.request_id = request_id
        told = f"{status} {code}".strip()
        # It may be anything and of any length, and is shown on a terminal.
        more = f" {json_line(details)[:_SHOWN]}" if details else ""
        where = f" (request {request_id})" if request_id else ""
        super().__init__(f"{told}: {message}{more}{self.advice}{where}")


class UnreadableAnswer(Answered):
    """An answer that says success but isn't what is documented."""


class ValidationFailed(Answered):
    """400: the request isn't what Sellfern wants; the details say where."""


class Unauthorized(Answered):
    """401: the API key is none, or no longer one."""

    advice = "; check SELLFERN_API_KEY"


class MissingScope(Answered):
    """403: the API key may not do this."""


class NotFound(Answered):
    """404: not there, or another organization's; which of the two nobody can tell."""

    advice = "; it isn't there, or it is another organization's"


class IdempotencyConflict(Answered):
    """422: the idempotency key was used for another request; nothing happened now."""

    advice = (
        "; nothing was changed by this request. Look at what is there (endpoints list, or the "
        "dashboard); the next command makes a new key"
    )


class RateLimited(Answered):
    """429: too many requests, also after waiting."""


class ServerFault(Answered):
    """5xx: something is wrong at Sellfern."""


class OtherError(Answered):
    """An error of a code that isn't documented."""


BY_CODE: Final[Mapping[str, type[Answered]]] = {
    "validation_error": ValidationFailed,
    "unauthorized": Unauthorized,
    "missing_scope": MissingScope,
    "not_found": NotFound,
    "idempotency_conflict": IdempotencyConflict,
    "rate_limited": RateLimited,
}
"""The documented codes."""


def error_class(status: int, code: str) -> type[Answered]:
    """The class for an answer: by its code, else by what a status means wherever it is from."""
    # The status first: a proxy on the way knows nothing of Sellfern's codes.
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerFault
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited
    return BY_CODE.get(code, OtherError)
