"""The connection of one client to the public port: aiohttp's own, bounded in size and time."""

import asyncio
import contextlib
from collections.abc import Coroutine
from http import HTTPMethod, HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage

from ingress.http.answers import BAD_REQUEST
from ingress.http.ending_connection import later
from ingress.http.port import Port
from ingress.http.sliced_connection import SlicedConnection
from shared.observe.logs import get_logger

_ACCEPTED: Final = HTTPStatus.ACCEPTED.value  # a plain number is compared faster
_NO_TASK: Final[tuple[Any, Any]] = (None, None)  # of a request that is answered at once
_log = get_logger()

_Finished = Coroutine[Any, Any, tuple[web.StreamResponse, bool]]


class Connection(SlicedConnection):
    """One client's connection, over which requests come one after the other.

    aiohttp bounds how long a connection may be idle. This adds: a connection too many is turned
    away, a client that doesn't read its answers is left, one that sends no more is still answered,
    and a body that breaks off is told to whoever reads it.
    """

    __slots__ = ("_has_ended", "_is_suspect", "is_declining")

    def __init__(self, connections: Port, loop: asyncio.AbstractEventLoop) -> None:
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
        super().connection_lost(exc)
        self._connections.forget(self)

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

    def _feed(self, data: bytes) -> bool:
        """Refuse at once where the last was refused, too: that is what floods consist of.

        It takes neither a task nor a turn of the loop; the next one waits for its turn, since
        hundreds may do so. Whoever sends what is accepted is none the slower for it.
        """
        waiter = self._waiter
        if not self._is_suspect or self._messages or waiter is None or waiter.done():
            return super()._feed(data)
        self._waiter = None  # nobody takes the request before it is looked at
        try:
            super()._feed(data)
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
        self._wait_a_turn()
        return True

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> _Finished:
        """Write an answer, and end what can't go on behind it in a way that lets it be read."""
        self._is_suspect = resp.status != _ACCEPTED
        if not self._is_suspect:
            self._connections.accepted(self)
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
        if self.is_left_unread or (self.is_told_later and not self._messages):
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
                await asyncio.sleep(later())
            resp, reset = await finished
        if is_behind:
            self._parser = None  # what it has of a head, others need
            await asyncio.sleep(later())
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
