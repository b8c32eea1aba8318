"""How a connection ends: at once, with a refusal that its client can read, or once answered."""

import asyncio
from random import random
from typing import TYPE_CHECKING, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web

from ingress.http.answers import REQUEST_TIMEOUT, TOO_MANY_CONNECTIONS, Refusal, Refused
from ingress.http.bytes_in_flight import Holding
from ingress.http.framing import BodyWire
from ingress.http.last_connections import has_unread

if TYPE_CHECKING:
    from ingress.http.connections import Connections

HEADERS: Final = 100
"""The most headers."""

LINGER_SECONDS: Final = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender sees the answer."""

FIRST_SECONDS: Final = 1.0
"""What a connection has to send its request when everything is to end: it was let in."""

LATER_SECONDS: Final = 2.0
"""About how long whoever's request was given up waits to be told so."""

QUEUED_REQUESTS: Final = 2
"""What a client may pipeline before its connection is read no more."""

_A_MOMENT: Final = 0.01

_READ_AHEAD: Final = 64 * 1024  # bytes of a body that aiohttp buffers, and twice that at most


def later() -> float:
    """Seconds until somebody is told: not for all the same, or all of them came again at once."""
    return LATER_SECONDS * (0.5 + random())  # noqa: S311  # nothing to guess


class EndingConnection(web.RequestHandler):
    """One client's connection, as far as it ends: whoever has sent something is told why."""

    __slots__ = (
        "_answered",
        "_connections",
        "_head_bytes",
        "_head_end",
        "_holding",
        "_is_dropping",
        "_is_refused",
        "_is_waiting",
        "_timer",
        "_told",
        "_unparsed",
        "_wire",
        "body",
        "is_left_unread",
        "is_told_later",
    )

    def __init__(self, connections: "Connections", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            connections,
            loop=loop,
            keepalive_timeout=connections.limits.keepalive_seconds,
            tcp_keepalive=False,  # what is dead ends by our own times, long before the system tells
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            max_line_size=connections.limits.header_bytes,
            max_field_size=connections.limits.header_bytes,
            max_headers=HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=_READ_AHEAD,
            auto_decompress=False,
        )
        self._max_msg_queue_size = QUEUED_REQUESTS
        self._msg_queue_resume_size = QUEUED_REQUESTS // 2
        self._connections = connections
        self._head_bytes = 0
        self._head_end = b""
        self._holding = Holding(connections.in_flight, self)
        self._answered = 0
        self._is_dropping = False
        self._is_refused = False
        self._is_waiting = False
        self._unparsed = b""
        self._wire: BodyWire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told = asyncio.Event()
        self.body: StreamReader = EMPTY_PAYLOAD
        """The body of the request that is being answered, or was the last."""
        self.is_told_later = False
        """Whether its end waits: who is sent away at once would come again at once."""
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
        if self._is_being_answered:
            return self.body.is_eof()
        return bool(self._messages) and self._messages[0][1].is_eof()

    @property
    def _is_being_answered(self) -> bool:
        return self._request_count - len(self._messages) > self._answered

    @property
    def _last_body(self) -> StreamReader:
        """The body of the request that came last."""
        return self._messages[-1][1] if self._messages else self.body

    def make_way(self) -> None:
        """End for a new connection; whoever has begun a request is told to send it again."""
        is_begun = self._wire is not None or self._timer is not None
        if is_begun and not (self._is_refused or self._is_dropping):
            self._refuse_unfinished(TOO_MANY_CONNECTIONS)
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

    def give_up(self) -> None:
        """End what is unfinished, since others need its bytes; its sender is told later.

        Told at once it would come again at once, and where thousands do, letting them in is what
        keeps all others waiting.
        """
        self._refuse_later(REQUEST_TIMEOUT)

    def _give_up(self, refusal: Refusal) -> None:
        """Refuse headers that are too much; behind a request only its own answer can be given."""
        if self._messages or self._is_being_answered:
            self.is_told_later = True
            self._unparsed = b""
            self._head_bytes = 0
            self._stop_timer()
            self.close()
        else:
            self._refuse_later(refusal)

    def _run_out(self) -> None:
        """Refuse headers that haven't come in time: whoever is as slow comes no sooner again."""
        if self._messages or self._is_being_answered:
            self.close()
        else:
            self._refuse_unfinished(REQUEST_TIMEOUT)

    def _refuse_later(self, refusal: Refusal) -> None:
        """Drop what is unfinished now, and tell its sender in a while."""
        self.is_told_later = True
        if self._wire is not None:
            self._end_body(self._last_body, refusal)
            return
        self._is_dropping = True
        self._unparsed = b""
        self._holding.keep(0)
        self._parser = None  # what it has of a head, others need
        self._stop_timer()
        raw = self._connections.misfits.refused(refusal)  # counted also where its sender has gone
        self._timer = self._loop.call_later(self._later(), self._tell, raw)
        self._resume_transport_reading()  # or its end would be noticed by nobody

    def _refuse_unfinished(self, refusal: Refusal) -> None:
        """End a body, or a head behind which nothing is under way."""
        if self._wire is not None:
            self._end_body(self._last_body, refusal)
            return
        self._tell(self._connections.misfits.refused(refusal))

    def _tell(self, raw: bytes) -> None:
        if not self.is_idle:  # it is between two requests: aiohttp leaves the transport to us
            self._force_close = True
        self._end_with(raw)

    def _later(self) -> float:
        """Seconds until somebody is told; nobody comes again to a process that ends."""
        return 0.0 if self._connections.leaving else later()

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

    def _break_off(self, body: StreamReader) -> None:
        """Tell the reader of a body whose rest will never come; aiohttp lets it wait."""
        self.is_left_unread = True
        body.set_exception(web.RequestPayloadError("the body broke off"))

    def _turn_away(self, refusal: Refusal) -> None:
        """Refuse and end."""
        self._end_with(self._connections.misfits.refused(refusal))

    def _end_with(self, raw: bytes) -> None:
        self.close()
        self._holding.keep(0)
        self._parser = None  # what it has of a head, others need
        if self.transport is not None:
            self.transport.write(raw)
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
        self._timer = self._loop.call_later(LINGER_SECONDS, self.transport.abort)
        try:
            self.transport.write_eof()
        except OSError:  # its client is gone by now
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
