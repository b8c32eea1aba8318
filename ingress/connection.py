"""The connection of one client to the public port: aiohttp's own, bounded in size and time."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import RawRequestMessage

from ingress.answers import (
    BAD_REQUEST,
    CHUNK_OVERHEAD,
    HEADERS_TOO_LARGE,
    REQUEST_TIMEOUT,
    TOO_MANY_CONNECTIONS,
    Refusal,
    Refused,
)
from ingress.body_wire import SLICE_BYTES, BodyWire
from ingress.bytes_in_flight import BytesInFlight, Holding
from ingress.last_connections import has_unread
from ingress.settings import Limits
from shared.logs import get_logger

HEAD_BYTES: Final = 32 * 1024
"""The largest request line and headers together, or `LINES` of the largest where that is more."""

LINES: Final = 4

LINE_BYTES: Final = Limits().header_bytes
"""The largest request line, and the largest single header, by default."""

HEADERS: Final = 100
"""The most headers."""

LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""

FIRST_SECONDS: Final = 1.0
"""What a connection has to send its request when everything is to end: it was let in."""

_A_MOMENT: Final = 0.01

_READ_AHEAD: Final = 64 * 1024  # bytes of a body that aiohttp buffers, and twice that at most
_QUEUED_REQUESTS: Final = 2  # what a client may pipeline before its connection is read no more

_ACCEPTED: Final = HTTPStatus.ACCEPTED.value  # a plain number is compared faster
_log = get_logger()

_Finished = Coroutine[Any, Any, tuple[web.StreamResponse, bool]]


class Misfits(Protocol):
    """Answers what never became a request."""

    def refused(self, refusal: Refusal) -> bytes:
        """Note the refusal; the answer as bytes, which says that the connection closes."""
        ...

    def failed(self, status: HTTPStatus, exc: BaseException | None) -> web.Response:
        """Note what aiohttp makes of a request or of an exception; the answer to it."""
        ...


class Port(Protocol):
    """What a connection knows of the port that it came to, and of the others there."""

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

    def linger(self, connection: "Connection") -> bool:
        """Whether a connection may stay until its client has read why it ends."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is closed."""
        ...


class Connection(web.RequestHandler):
    """One client's connection, over which requests come one after the other.

    aiohttp bounds the size of lines and headers, and how long a connection may be idle. This
    adds: headers have to be complete within a time and a size of their own, a connection too
    many is turned away, a client that doesn't read its answers is left, one that sends no more
    is still answered, and a body that breaks off is told to whoever reads it.
    """

    __slots__ = (
        "_connections",
        "_has_ended",
        "_head_bytes",
        "_holding",
        "_is_dropping",
        "_is_refused",
        "_timer",
        "_unparsed",
        "_wire",
        "body",
        "is_declining",
        "is_left_unread",
    )

    def __init__(self, connections: Port, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            cast("web.Server", connections),
            loop=loop,
            keepalive_timeout=connections.limits.keepalive_seconds,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            max_line_size=connections.limits.header_bytes,
            max_field_size=connections.limits.header_bytes,
            max_headers=HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=_READ_AHEAD,
            auto_decompress=False,
        )
        self._max_msg_queue_size = _QUEUED_REQUESTS
        self._msg_queue_resume_size = _QUEUED_REQUESTS // 2
        self._connections = connections
        self._head_bytes = 0
        self._holding = Holding(connections.in_flight, self)
        self._is_dropping = False
        self._is_refused = False
        self._has_ended = False
        self._unparsed = b""
        self._wire: BodyWire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.body: StreamReader = EMPTY_PAYLOAD
        """The body of the request that is being answered, or was the last."""
        self.is_declining = False
        """Whether that request offers another protocol. The offer is passed over, as RFC 9110, 7.8
        allows, and the answer ends the connection: aiohttp may lose what came behind the request.
        Closed any earlier, the rest of the body would be thrown away."""
        self.is_left_unread = False
        """Whether what comes behind the answer is dropped: it is none that anybody could parse."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; one whose headers are incomplete isn't yet one."""
        if self._waiter is not None:
            return not self._waiter.done()
        return self._request_count == 0 or self._is_refused

    @property
    def is_busy(self) -> bool:
        """Whether a complete request is under way."""
        if self.is_idle or self._is_dropping:
            return False
        is_begun = self._waiter is None or not self._messages
        return (self.body if is_begun else self._messages[0][1]).is_eof()

    @property
    def is_ending(self) -> bool:
        """Whether the answer that is being made is the last one."""
        return (
            self._close or self.is_declining or (self._connections.leaving and not self._messages)
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        refusal = self._connections.admit(self)
        if refusal is not None:
            self.transport = cast("asyncio.Transport", transport)
            self._turn_away(refusal)
            return
        # Answers are small: one that the system doesn't take at once has a client that doesn't
        # read, and what is left over would keep the connection open for ever.
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        super().connection_made(transport)
        cast("asyncio.Task[None]", self._task_handler).add_done_callback(self._serving_ended)
        self._await_first_byte()
        if self._connections.is_stopped:
            self.leave()

    def _await_first_byte(self) -> None:
        """Have whoever says nothing at all no longer than whoever begins: aiohttp calls it idle."""
        limits = self._connections.limits
        if self._keepalive_handle is None or limits.header_seconds >= limits.keepalive_seconds:
            return
        self._keepalive_handle.cancel()
        self._next_keepalive_close_time = self._loop.time() + limits.header_seconds
        self._keepalive_handle = self._loop.call_at(
            self._next_keepalive_close_time, self._process_keepalive
        )

    def make_way(self) -> None:
        """End for a new connection; whoever has begun a request is told to send it again."""
        if self._is_refused or self._is_dropping:
            self.force_close()
        elif not self.is_idle:
            self._end_body(self._last_body, TOO_MANY_CONNECTIONS)
        elif self._timer is not None:
            self._turn_away(TOO_MANY_CONNECTIONS)
        else:
            self.force_close()

    def leave(self) -> None:
        """End where nothing is under way; an answer ends it otherwise, or a time-out.

        What has just connected will send a request in a moment. What is idle after an answer has
        been so for a while.
        """
        if self._request_count:
            self._leave_idle()
        else:
            self._loop.call_later(FIRST_SECONDS, self._leave_idle)

    def _leave_idle(self) -> None:
        if not self.is_idle or self._timer is not None:
            return
        if has_unread(self.transport):  # it is read in the loop's next turn
            self._loop.call_later(_A_MOMENT, self._leave_idle)
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._stop_timer()
        super().connection_lost(exc)
        self._connections.forget(self)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless nothing of it can matter any more."""
        if self._is_dropping or self._close or self._force_close:
            return
        self._holding.take(len(data))
        if len(data) <= SLICE_BYTES and not self._unparsed:
            self._parse(data)
        else:
            self._parse_slices(data)
        if self._holding.stage is not None or self._timer is not None or self._wire is not None:
            self._hold()

    def _hold(self) -> None:
        """Say what is unfinished, if anything is."""
        in_flight = self._connections.in_flight
        if self._is_dropping or self._is_refused or self.is_busy:
            self._holding.go_on()
        elif self._wire is not None:
            self._holding.wait(in_flight.bodies, self._loop.time(), self._wire.announced)
        elif self._timer is not None:
            self._holding.wait(in_flight.heads, self._loop.time())
        else:
            self._holding.go_on()

    def give_up(self) -> None:
        """End what is unfinished, since others need its bytes."""
        if self._wire is not None:
            self._end_body(self._last_body, REQUEST_TIMEOUT)
        else:
            self._turn_away(REQUEST_TIMEOUT)

    def _parse_slices(self, data: bytes) -> None:
        """Parse what has come bit by bit, as long as it is worth it and somebody reads it."""
        if self._reading_paused:
            self._unparsed += data
            return
        if not data:  # aiohttp's own rest comes first
            self._parse(data)
        rest, self._unparsed = memoryview(self._unparsed + data), b""
        while rest and self._is_read:
            size = SLICE_BYTES if self._wire is None else self._wire.portion()
            self._parse(bytes(rest[:size]))
            rest = rest[size:]
        if not self._is_dropping:
            self._unparsed = bytes(rest)

    @property
    def _is_read(self) -> bool:
        return not (self._reading_paused or self._is_dropping or self._close)

    def _parse(self, data: bytes) -> None:
        """Parse bytes, and see to headers or a body that are incomplete after them."""
        requests, body = self._request_count, self._last_body
        was_whole = body.is_eof()
        super().data_received(data)
        if self._request_count != requests:
            self._head_is_complete()
            if not body.is_eof():  # what can't be parsed counts as a request
                self._break_off(body)
        elif was_whole:
            if data:
                self._head_goes_on(len(data))
        elif self._wire is not None:
            self._body_goes_on(self._wire, len(data))

    def _body_goes_on(self, wire: BodyWire, size: int) -> None:
        body = self._last_body
        if body.is_eof():
            self._wire = None
        elif wire.take(size) and not self._reading_paused:
            self._end_body(body, CHUNK_OVERHEAD)

    def _end_body(self, body: StreamReader, refusal: Refusal) -> None:
        """Have a body refused by whoever reads it, and parse no more of it.

        Only before there is an answer: aiohttp still reads a body behind one, and would reset the
        connection for it.
        """
        self._is_dropping = True
        self._unparsed = b""
        self._wire = None
        body.set_exception(Refused(refusal))
        # Nobody reads on, and others need what it has; now somebody may be in the middle of it.
        self._loop.call_soon(body._buffer.clear)  # noqa: SLF001
        self._holding.keep(0)
        self._resume_transport_reading()  # or its end would be noticed by nobody

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  # aiohttp's
        """Go on reading, where it was paused: aiohttp parses nothing anew for every body."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp never keeps half of it
        """Answer what a client sent before it ended its side; whether there is anything."""
        self._has_ended = True
        if self.is_idle:
            return False  # the transport closes itself
        self.close()
        if not self._last_body.is_eof():
            self._break_off(self._last_body)
        return True

    def pause_writing(self) -> None:
        """Leave a client that lets its answers pile up."""
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
        self.is_left_unread = True
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> _Finished:
        """Write an answer, and end what can't go on behind it in a way that lets it be read."""
        if resp.status == _ACCEPTED:
            self._connections.accepted(self)
        if self.is_declining:  # the answer is the last one
            self._message_tail = b""
        if self.is_left_unread:
            self._is_dropping = True
            if not self.body.is_eof():  # what came of it would stay as long as its sender does
                self.body._buffer.clear()  # noqa: SLF001
        self._holding.keep(self._read_ahead() if self._messages or self._timer is not None else 0)
        finished = super().finish_response(request, resp, start_time)
        return self._let_read(finished) if self.is_left_unread else finished

    def _read_ahead(self) -> int:
        """What has come behind the request that is answered; about, where there is a lot of it."""
        if self._is_dropping:
            return 0
        queued = sum(body.total_bytes for _, body in self._messages) if self._messages else 0
        return queued + self._head_bytes + len(self._unparsed)

    async def _let_read(self, finished: _Finished) -> tuple[web.StreamResponse, bool]:
        resp, reset = await finished
        if not self._has_ended:
            self._force_close = True  # aiohttp leaves the transport to us, and drops what comes
            self._linger()
        return resp, reset

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002  # aiohttp's
        """Note the kind of a failure only: aiohttp's text of it may quote the request."""
        _log.debug("connection_failed", error=type(kw.get("exc_info")).__name__)

    def _serving_ended(self, task: "asyncio.Task[None]") -> None:
        """Refuse a request that aiohttp fails on: it would leave the connection open for ever."""
        self._holding.keep(0)
        if not task.cancelled() and task.exception() is not None:
            self._turn_away(BAD_REQUEST)

    @property
    def _last_body(self) -> StreamReader:
        """The body of the request that came last."""
        return self._messages[-1][1] if self._messages else self.body

    def _break_off(self, body: StreamReader) -> None:
        """Tell the reader of a body whose rest will never come; aiohttp lets it wait."""
        self.is_left_unread = True
        body.set_exception(web.RequestPayloadError("the body broke off"))

    def _head_goes_on(self, size: int) -> None:
        if self._close or self._force_close:
            return
        if self._timer is None:
            self.keep_alive(True)  # noqa: FBT003  # stops the timer of an idle connection
            self._timer = self._loop.call_later(
                self._connections.limits.header_seconds, self._give_up, REQUEST_TIMEOUT
            )
        self._head_bytes += size
        if self._head_bytes > max(HEAD_BYTES, LINES * self._connections.limits.header_bytes):
            self._give_up(HEADERS_TOO_LARGE)

    def _head_is_complete(self) -> None:
        self._head_bytes = 0
        if self._timer is not None:
            self._stop_timer()
        message, body = self._messages[-1]
        is_whole = body.is_eof()  # as behind what can't be parsed
        self._wire = None if is_whole else BodyWire(cast("RawRequestMessage", message), body)

    def _give_up(self, refusal: Refusal) -> None:
        """Refuse headers; behind a request under way only its own answer can be given."""
        if self.is_idle:
            self._turn_away(refusal)
        else:
            self.close()

    def _turn_away(self, refusal: Refusal) -> None:
        """Answer and end."""
        self.close()
        self._holding.keep(0)
        self._parser = None  # what it has of a head, others need
        if self.transport is not None:
            self.transport.write(self._connections.misfits.refused(refusal))
        self._linger()

    def _linger(self) -> None:
        """End, but drop what still comes for a while, so that its sender can read the answer.

        Where a connection is closed with bytes unread, the system tells the other side to forget
        what it has been sent.
        """
        self._stop_timer()
        self._is_refused = True
        if self.transport is None:
            return
        if not self._connections.linger(self):
            self.transport.close()
            return
        self._resume_transport_reading()  # or its end would be noticed by nobody
        self.transport.write_eof()
        self._timer = self._loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
