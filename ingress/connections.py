"""The connections of the public port: aiohttp's own, bounded in number, size and time."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage

from ingress.answers import (
    HEADERS_TOO_LARGE,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Refusal,
)
from ingress.settings import Limits
from shared.logs import get_logger

HEAD_BYTES: Final = 32 * 1024
"""The largest request line and headers together."""

LINE_BYTES: Final = 8190
"""The largest request line, and the largest single header."""

HEADERS: Final = 100
"""The most headers."""

LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""

_READ_AHEAD: Final = 64 * 1024  # bytes of a body that aiohttp buffers, and twice that at most
_QUEUED_REQUESTS: Final = 2  # what a client may pipeline before its connection is read no more

_log = get_logger()

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request; raises nothing."""


class Misfits(Protocol):
    """Answers what never became a request."""

    def refused(self, refusal: Refusal) -> bytes:
        """Note the refusal; the answer as bytes, which says that the connection closes."""
        ...

    def failed(self, status: HTTPStatus, exc: BaseException | None) -> web.Response:
        """Note what aiohttp makes of a request or of an exception; the answer to it."""
        ...


class Connections(web.Server):
    """Makes a connection for each client, and knows which are open.

    Args:
        handler: answers a request.
        misfits: answers what never became one.
        limits: what one client may ask.
    """

    def __init__(self, handler: Handler, misfits: Misfits, limits: Limits) -> None:
        super().__init__(handler)
        self.misfits = misfits
        self.limits = limits
        self.open: set[Connection] = set()
        self._all_closed: asyncio.Event | None = None

    def __call__(self) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self, self._loop)

    def is_full(self) -> bool:
        """Whether one more connection is one too many."""
        return len(self.open) >= self.limits.connections

    def close_idle(self) -> None:
        """Close the connections on which no request is under way."""
        for connection in list(self.open):
            if connection.is_idle:
                connection.force_close()

    async def closed(self) -> None:
        """Wait until none is open."""
        while self.open:
            self._all_closed = asyncio.Event()
            await self._all_closed.wait()

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is closed."""
        self.open.discard(connection)
        if not self.open and self._all_closed is not None:
            self._all_closed.set()


class Connection(web.RequestHandler):
    """One client's connection, over which requests come one after the other.

    aiohttp bounds the size of lines and headers, and how long a connection may be idle. This
    adds: headers have to be complete within a time and a size of their own, a connection too
    many is turned away, a client that doesn't read its answers is left, and a body that breaks
    off in the middle of a chunk is told to whoever reads it.
    """

    __slots__ = ("_connections", "_head_bytes", "_head_timer")

    def __init__(self, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            connections,
            loop=loop,
            keepalive_timeout=connections.limits.keepalive_seconds,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            max_headers=HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=_READ_AHEAD,
            auto_decompress=False,
        )
        self._max_msg_queue_size = _QUEUED_REQUESTS
        self._msg_queue_resume_size = _QUEUED_REQUESTS // 2
        self._connections = connections
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; one whose headers are incomplete isn't yet one."""
        if self._waiter is not None:
            return not self._waiter.done()
        return self._request_count == 0

    @property
    def has_more(self) -> bool:
        """Whether another request has come behind the one that is being answered."""
        return bool(self._messages)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        if self._connections.is_full():
            self.close()
            self._turn_away(transport, TOO_MANY_CONNECTIONS)
            return
        self._connections.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._head_is_complete()
        super().connection_lost(exc)
        self._connections.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and see to headers that are incomplete after it."""
        super().data_received(data)
        if self.is_idle and data:
            self._head_goes_on(len(data))
        elif self._head_timer is not None:
            self._head_is_complete()
        if self._current_request is not None and self._messages:
            self._end_broken_body()

    def pause_writing(self) -> None:
        """Leave a client that lets its answers pile up: they are small."""
        super().pause_writing()
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's own, which quotes the request
    ) -> web.StreamResponse:
        """Answer in this project's shape, where aiohttp would in its own."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been sent already")
        response = self._connections.misfits.failed(HTTPStatus(status), exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002  # aiohttp's
        """Note the kind of a failure only: aiohttp's text of it may quote the request."""
        _log.debug("connection_failed", error=type(kw.get("exc_info")).__name__)

    def _head_goes_on(self, size: int) -> None:
        if self._head_timer is None:
            self._head_timer = self._loop.call_later(
                self._connections.limits.header_seconds, self._head_is_late
            )
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._give_up(HEADERS_TOO_LARGE)

    def _head_is_complete(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.is_idle:
            self._give_up(REQUEST_TIMEOUT)

    def _give_up(self, refusal: Refusal) -> None:
        if self.transport is not None:
            self._turn_away(self.transport, refusal)
        self.force_close()

    def _turn_away(self, transport: asyncio.BaseTransport, refusal: Refusal) -> None:
        cast("asyncio.Transport", transport).write(self._connections.misfits.refused(refusal))
        transport.close()

    def _end_broken_body(self) -> None:
        """Tell the reader of a body whose rest can't be parsed; aiohttp lets it wait."""
        message, _ = self._messages[-1]
        if isinstance(message, RawRequestMessage) or self._current_request is None:
            return
        content = (
            self._messages[-2][1] if len(self._messages) > 1 else self._current_request.content
        )
        if not content.is_eof():
            content.set_exception(web.RequestPayloadError("the body is not valid HTTP"))
