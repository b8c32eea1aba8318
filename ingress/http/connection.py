"""The connection of one client to the public port: aiohttp's own, bounded in size and time."""

import asyncio
import contextlib
from collections.abc import Coroutine
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from ingress.http.answers import BAD_REQUEST, CHUNK_OVERHEAD, HEADERS_TOO_LARGE
from ingress.http.ending_connection import QUEUED_REQUESTS, EndingConnection
from ingress.http.framing import EMPTY, END, SLICE_BYTES, UNKNOWN, BodyWire, behind
from shared.observe.logs import get_logger

if TYPE_CHECKING:
    from ingress.http.connections import Connections

HEAD_BYTES: Final = 32 * 1024
"""The largest request line and headers together, or `LINES` of the largest where that is more."""

LINES: Final = 4

_KEPT_BACK: Final = 32  # requests after which aiohttp's parser keeps back what is behind them

_ACCEPTED: Final = HTTPStatus.ACCEPTED.value  # a plain number is compared faster
_NO_TASK: Final[tuple[Any, Any]] = (None, None)  # of a request that is answered at once
_log = get_logger()

_Finished = Coroutine[Any, Any, tuple[web.StreamResponse, bool]]


class Connection(EndingConnection):
    """One client's connection, over which requests come one after the other.

    aiohttp bounds how long a connection may be idle, and the size of lines and headers. This adds:
    a connection too many is turned away; headers have to be complete within a time and a size of
    their own; chunks may take only so much beside the body; what is unfinished is held where others
    can have its bytes; a client that doesn't read its answers is left, one that sends no more is
    still answered; and a body that breaks off is told to whoever reads it.
    """

    __slots__ = ("_has_ended", "_is_suspect", "is_declining")

    def __init__(self, connections: "Connections", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connections, loop)
        self._has_ended = False
        self._is_suspect = False  # what was answered last was refused
        self.is_declining = False
        """Whether that request offers another protocol. The offer is passed over, as RFC 9110, 7.8
        allows, and the answer ends the connection: aiohttp may lose what came behind the request.
        Closed any earlier, the rest of the body would be thrown away."""

    @property
    def is_ending(self) -> bool:
        """Whether the answer that is being made is the last one."""
        return (
            self._close
            or self.is_declining
            or (self._connections.leaving and not self._messages and not self._unparsed)
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

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._stop_timer()
        self._told.set()  # there is nobody any more
        super().connection_lost(exc)
        self._connections.forget(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp never keeps half of it
        """Answer what a client sent before it ended its side; whether there is anything."""
        self._has_ended = True
        if self.is_told_later and self._timer is not None:
            return True  # its refusal is still to come
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
        self.is_told_later = response.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return response

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

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  # aiohttp's
        """Go on reading, where it was paused: aiohttp parses nothing anew for every body."""
        if self._reading_paused and not self._is_waiting:
            super().resume_reading(resume_parser)

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

    def _parse_slices(self, data: bytes) -> None:
        """Parse what has come bit by bit, as long as it is worth it and somebody reads it."""
        if not data and not self._reading_paused:  # aiohttp's own rest comes first
            self._parse(data)
        rest, self._unparsed = memoryview(self._unparsed + data), b""
        while rest and self._is_read:
            size = SLICE_BYTES if self._wire is None else self._wire.portion()
            self._parse(bytes(rest[:size]))
            rest = rest[size:]
            is_costly = self._wire is not None and self._wire.is_costly
            if is_costly and len(rest) and self._is_read:
                self._wait_a_turn()
        if not self._is_dropping:
            self._unparsed = bytes(rest)

    def _wait_a_turn(self) -> None:
        """Let others have their turn: this was costly, and many may do it."""
        self._reading_paused = self._is_waiting = True
        self._pause_transport_reading()
        self._connections.in_turn(self)

    def go_on(self) -> None:
        """Parse on, in one's turn."""
        self._is_waiting = False
        self.resume_reading()

    @property
    def _is_read(self) -> bool:
        """Whether more is to be parsed: aiohttp asks again once it has room for a request."""
        is_full = self._reading_paused or len(self._messages) >= QUEUED_REQUESTS
        return not (is_full or self._is_dropping or self._close)

    def _parse(self, data: bytes) -> None:
        """Parse bytes, and see to headers or a body that are incomplete after them."""
        requests, wire = self._request_count, self._wire
        unfinished = None if wire is None else self._last_body
        if self._feed(data):
            return
        number = self._request_count - requests
        if number:
            if number != 1 or not self._is_alone(data):
                self._heads_are_complete(number, data)
            if unfinished is not None and not unfinished.is_eof():
                self._break_off(unfinished)  # what can't be parsed counts as a request
        elif wire is not None:
            self._body_goes_on(wire, data)
        elif data:
            self._head_goes_on(len(data), data)

    def _is_alone(self, data: bytes) -> bool:
        """Whether bytes are one whole request, as nearly always, and nothing else is unfinished."""
        if self._timer is not None or self._wire is not None or not self._messages:
            return False
        body = self._messages[-1][1]
        return data.find(END) + len(END) + body.total_bytes == len(data) and body.is_eof()

    def _body_goes_on(self, wire: BodyWire, data: bytes) -> None:
        body = self._last_body
        is_too_much = wire.take(data)
        if body.is_eof():
            self._wire = None
            self._head_follows(wire.behind, data)
        elif is_too_much and not self._reading_paused:
            self._refuse_later(CHUNK_OVERHEAD)

    def _heads_are_complete(self, number: int, data: bytes) -> None:
        """See to what is incomplete behind requests, or of the last of them."""
        message, body = self._messages[-1]
        wire, self._wire = self._wire, None
        end, self._head_end = self._head_end, b""
        self._head_bytes = 0
        self._stop_timer()
        if not body.is_eof():  # as behind what can't be parsed
            self._wire = BodyWire(cast("RawRequestMessage", message), body, data)
        elif not self._upgraded:
            requests = list(self._messages)[-number:]
            self._head_follows(self._behind(requests, data, end, wire), data)

    def _behind(
        self,
        requests: list[Any],  # aiohttp's
        data: bytes,
        end: bytes,
        wire: BodyWire | None,
    ) -> int | None:
        """How much has come behind requests; None where nobody knows."""
        if not data or len(requests) >= _KEPT_BACK:  # of bytes that came earlier, or will
            return None
        if wire is None:
            return behind(requests, end + data, is_begun=bool(end))
        wire.take(data)
        is_known = wire.announced is not None and wire.behind <= len(data)
        return behind(requests, data, len(data) - wire.behind if is_known else None)

    def _head_follows(self, size: int | None, data: bytes) -> None:
        """See to a head that has begun behind a request."""
        if size is None:
            self._head_goes_on(min(len(data), UNKNOWN) or UNKNOWN, data)
        elif size > len(data) or (size and data[-size:].strip(EMPTY)):
            self._head_goes_on(size, data[-size:])

    def _head_goes_on(self, size: int, data: bytes) -> None:
        if self._close or self._force_close or self._is_dropping:
            return
        if self._timer is None:
            self.keep_alive(True)  # noqa: FBT003  # stops the timer of an idle connection
            self._timer = self._loop.call_later(
                self._connections.limits.header_seconds, self._run_out
            )
        self._head_bytes += size
        if self._head_end or data.strip(EMPTY):
            self._head_end = (self._head_end + data[1 - len(END) :])[1 - len(END) :]
        if self._head_bytes > max(HEAD_BYTES, LINES * self._connections.limits.header_bytes):
            self._give_up(HEADERS_TOO_LARGE)

    def _feed(self, data: bytes) -> bool:
        """Refuse at once where the last was refused, too: that is what floods consist of.

        It takes neither a task nor a turn of the loop; where many were refused in this one, the
        next waits for its turn. Whoever sends what is accepted is none the slower for it.
        """
        waiter = self._waiter
        if not self._is_suspect or self._messages or waiter is None or waiter.done():
            super().data_received(data)
            return False
        self._waiter = None  # nobody takes the request before it is looked at
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            return False
        if len(self._messages) == 1 and self._is_alone(data) and self._refuse_at_once(data):
            return True
        waiter.set_result(None)
        return False

    def _refuse_at_once(self, data: bytes) -> bool:
        """Refuse the request that came, if its connection stays open and it needs no more."""
        message, body = self._messages[0]
        if not isinstance(message, RawRequestMessage) or not self._parser or not self.transport:
            return False
        is_last = message.should_close or message.upgrade or self._connections.leaving
        if is_last or message.method != HTTPMethod.POST:
            return False
        request = web.BaseRequest(message, body, self, *_NO_TASK, self._loop)
        content = data[len(data) - body.total_bytes :]
        raw = self._connections.misfits.refused_at_once(request, content)
        if raw is None:
            return False
        self._messages.clear()
        self._parser.message_consumed()
        self._answered += 1
        self._holding.keep(0)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self.transport.write(raw)
        if self._connections.has_refused_many():
            self._wait_a_turn()
        return True

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> _Finished:
        """Write an answer, and end what can't go on behind it in a way that lets it be read."""
        self._is_suspect = resp.status != _ACCEPTED
        if not self._is_suspect:
            open_ = self._connections.open
            if self in open_:  # else it is closed for others just now
                open_.move_to_end(self)  # the last to be closed for others
        if self.is_declining:  # the answer is the last one
            self._message_tail = b""
        if self.is_left_unread:
            self._is_dropping = True
            if not self.body.is_eof():  # what came of it would stay as long as its sender does
                self.body._buffer.clear()  # noqa: SLF001
        is_alone = not self._messages and self._timer is None
        self._holding.keep(0 if is_alone else self._read_ahead())
        self._answered += 1
        finished = super().finish_response(request, resp, start_time)
        if self.is_left_unread or (self.is_told_later and (self._close or not self._messages)):
            return self._let_read(finished)
        return finished if is_alone else self._go_on(finished)

    def _read_ahead(self) -> int:
        """What has come behind the request that is answered; about, where there is a lot of it."""
        if self._is_dropping:
            return 0
        queued = sum(body.total_bytes for _, body in self._messages) if self._messages else 0
        return queued + self._head_bytes + len(self._unparsed)

    async def _go_on(self, finished: _Finished) -> tuple[web.StreamResponse, bool]:
        """Say what has come behind the answer: nothing else may come on this connection."""
        resp, reset = await finished
        self._hold()
        return resp, reset

    async def _let_read(self, finished: _Finished) -> tuple[web.StreamResponse, bool]:
        # Behind an answer to what came before, it is the end of the connection that waits.
        is_behind = self.is_told_later and self._close
        with contextlib.closing(finished):  # who is gone before needs none
            if self.is_told_later and not is_behind:
                await self._wait_to_tell()
            resp, reset = await finished
        if is_behind:
            self._parser = None  # what it has of a head, others need
            await self._wait_to_tell()
        if not self._has_ended:
            self._force_close = True  # aiohttp leaves the transport to us, and drops what comes
            self._linger()
        return resp, reset

    async def _wait_to_tell(self) -> None:
        """Wait a while, unless the client goes before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._later()):
                await self._told.wait()

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002  # aiohttp's
        """Note the kind of a failure only: aiohttp's text of it may quote the request."""
        _log.debug("connection_failed", error=type(kw.get("exc_info")).__name__)

    def _serving_ended(self, task: "asyncio.Task[None]") -> None:
        """Refuse a request that aiohttp fails on: it would leave the connection open for ever."""
        self._holding.keep(0)
        if not task.cancelled() and task.exception() is not None:
            self._turn_away(BAD_REQUEST)


def make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """Make the request that a connection answers next, and let it know whose body is read."""
    connection = cast("Connection", protocol)
    connection.body = payload
    connection.is_declining = connection.is_left_unread = message.upgrade
    return web.BaseRequest(message, payload, protocol, writer, task, connection._loop)  # noqa: SLF001
