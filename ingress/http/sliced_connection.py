"""The bytes of one connection, parsed bit by bit, and what is unfinished after each of them."""

from typing import Any, Final, cast

from aiohttp import StreamReader
from aiohttp.http import RawRequestMessage
from aiohttp.web import RequestHandler

from ingress.http.answers import CHUNK_OVERHEAD, HEADERS_TOO_LARGE, REQUEST_TIMEOUT
from ingress.http.ending_connection import QUEUED_REQUESTS, EndingConnection
from ingress.http.framing import EMPTY, END, SLICE_BYTES, UNKNOWN, BodyWire, behind

HEAD_BYTES: Final = 32 * 1024
"""The largest request line and headers together, or `LINES` of the largest where that is more."""

LINES: Final = 4

_KEPT_BACK: Final = 32  # requests after which aiohttp's parser keeps back what is behind them


class SlicedConnection(EndingConnection):
    """One client's connection, as far as what comes on it is parsed.

    aiohttp bounds the size of lines and headers. This adds: headers have to be complete within a
    time and a size of their own, chunks may take only so much beside the body, and what is
    unfinished is held where others can have its bytes.
    """

    __slots__ = ()

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

    def _feed(self, data: bytes) -> bool:
        """Give bytes to aiohttp's parser; whether all of them are done with."""
        RequestHandler.data_received(self, data)
        return False

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
        message, body = self._messages[-1]
        self._see_behind(number, data, cast("RawRequestMessage", message), body)

    def _see_behind(
        self, number: int, data: bytes, message: RawRequestMessage, body: StreamReader
    ) -> None:
        """See to what is incomplete behind requests, or of the last of them."""
        wire, self._wire = self._wire, None
        end, self._head_end = self._head_end, b""
        self._head_bytes = 0
        self._stop_timer()
        if not body.is_eof():  # as behind what can't be parsed
            self._wire = BodyWire(message, body, data)
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
                self._connections.limits.header_seconds, self._give_up, REQUEST_TIMEOUT
            )
        self._head_bytes += size
        if self._head_end or data.strip(EMPTY):
            self._head_end = (self._head_end + data[1 - len(END) :])[1 - len(END) :]
        if self._head_bytes > max(HEAD_BYTES, LINES * self._connections.limits.header_bytes):
            self._give_up(HEADERS_TOO_LARGE)
