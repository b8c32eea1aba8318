"""What a connection knows of the port that it came to, and of the others there."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from ingress.http.answers import Refusal
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.settings import Limits

if TYPE_CHECKING:
    from ingress.http.connection import Connection
    from ingress.http.ending_connection import EndingConnection
    from ingress.http.sliced_connection import SlicedConnection


class Misfits(Protocol):
    """Answers what never became a request."""

    def refused(self, refusal: Refusal) -> bytes:
        """Note the refusal; the answer as bytes, which says that the connection closes."""
        ...

    def refused_at_once(self, request: web.BaseRequest, body: bytes) -> bytes | None:
        """Note the refusal of a request; the answer as bytes, None where it isn't refused."""
        ...

    def failed(self, status: HTTPStatus, exc: BaseException | None) -> web.Response:
        """Note what aiohttp makes of a request or of an exception; the answer to it."""
        ...


class Port(Protocol):
    """The port, as its connections see it."""

    misfits: Misfits
    limits: Limits
    in_flight: BytesInFlight
    leaving: bool
    is_stopped: bool

    def admit(self, connection: "Connection") -> Refusal | None:
        """Take a new connection in, or say why not."""
        ...

    def accepted(self, connection: "Connection") -> None:
        """Take note that a delivery was accepted on a connection."""
        ...

    def in_turn(self, connection: "SlicedConnection") -> None:
        """Have a connection go on, one of all that wait in each turn of the loop."""
        ...

    def linger(self, connection: "EndingConnection") -> bool:
        """Whether a connection may stay until its client has read why it ends."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is closed."""
        ...
