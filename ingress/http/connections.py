"""All connections of the public port: how many there may be, which makes way, how all end."""

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Final

from aiohttp import web

from ingress.http.answers import TOO_MANY_CONNECTIONS, Refusal
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.http.connection import Connection, make_request
from ingress.http.ending_connection import EndingConnection
from ingress.http.last_connections import has_unread
from ingress.settings import Limits

if TYPE_CHECKING:
    from ingress.http.site import Site


AT_ONCE: Final = 16
"""The most that go on in one turn of the loop: each may be refused in it, at 50 us."""

TURN_SECONDS: Final = 0.001
"""After this no further one goes on in that turn."""

LINGERING: Final = 32
"""The most connections beyond the limit that are given that time: each is an open file."""

_LOOK_SECONDS: Final = 1.0

CUT_SECONDS: Final = 0.1
"""How long requests have, twice, when everything is closed; aiohttp takes 0 for no limit."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a request; raises nothing."""


class Connections(web.Server):
    """Makes a connection for each client, and knows which are open.

    Args:
        handler: answers a request.
        misfits: answers what never became one.
        limits: what one client may ask.
        in_flight: what all of them may hold.
    """

    def __init__(
        self, handler: Handler, misfits: "Site", limits: Limits, in_flight: BytesInFlight
    ) -> None:
        super().__init__(handler, request_factory=make_request)
        self.misfits = misfits
        self.limits = limits
        self.in_flight = in_flight
        self.open: OrderedDict[Connection, None] = OrderedDict()
        """In the order in which they are closed for others: by their last accepted delivery, and
        where there was none by their beginning. Whoever has no secret can't move up in it, whatever
        he sends."""
        self.leaving = False
        """Whether each answer ends its connection, unless another request is behind it."""
        self.is_stopped = False
        """Whether a connection on which nothing comes is to end."""
        self._lingering: set[EndingConnection] = set()
        self._waiting: deque[Connection] = deque()
        self._lets_go_on = False
        self._refused = 0
        self._all_closed: asyncio.Event | None = None
        self._candidates: Iterator[Connection] | None = None
        self._passed: deque[Connection] = deque()

    def __call__(self) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self, self._loop)

    def admit(self, connection: "Connection") -> Refusal | None:
        """Take a new connection in, in the place of another if need be, or say why not."""
        if len(self.open) >= self.limits.connections:
            victim = self._victim()
            if victim is None:
                return TOO_MANY_CONNECTIONS
            del self.open[victim]
            # Out of the order first: making way, it asks whether it may linger, and counts by that.
            victim.make_way()
        self.open[connection] = None
        return None

    def _victim(self) -> Connection | None:
        """The first that has no complete request; None where all of them have one.

        One with unread input may have a complete one there, so it is passed over as long as there
        is another. Nothing is read before the loop's next turn: what has been looked at in this one
        isn't looked at again, since each look is a call of the system.
        """
        for connection in self._rest():
            if self._may_end(connection):
                if not has_unread(connection.transport):
                    return connection
                self._passed.append(connection)
        while self._passed:
            connection = self._passed.popleft()
            if self._may_end(connection):
                return connection
        return None

    def _may_end(self, connection: Connection) -> bool:
        return connection in self.open and not connection.is_busy

    def _rest(self) -> Iterator[Connection]:
        """Those that haven't been looked at in this turn of the loop."""
        if self._candidates is None:
            # A copy, since victims leave the order while it is gone through.
            self._candidates = iter(list(self.open))
            asyncio.get_running_loop().call_soon(self._begin_anew)
        return self._candidates

    def _begin_anew(self) -> None:
        self._candidates = None
        self._passed.clear()

    def stop(self) -> None:
        """Have each connection end, once what was sent on it is answered."""
        self.is_stopped = True
        for connection in list(self.open):
            connection.leave()

    async def closed(self) -> None:
        """Wait until none is open, and have those end meanwhile that have come to be idle."""
        while self.open:
            self._all_closed = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._all_closed.wait()
            # An answer of a moment ago leaves its connection idle, which nobody was told of.
            self.stop()  # whoever was between two requests when all were told

    async def cut(self) -> None:
        """Close all of them, whatever is under way."""
        for connection in list(self._lingering):
            connection.force_close()
        await self.shutdown(CUT_SECONDS)

    def in_turn(self, connection: Connection) -> None:
        """Have a connection go on in its turn: what all that wait do keeps others waiting."""
        self._waiting.append(connection)
        self._let_go_on_soon()

    def has_refused_many(self) -> bool:
        """Take note of a request that is refused at once; whether the next one has to wait."""
        self._refused += 1
        if self._refused == 1:
            self._loop.call_soon(self._begin_turn)
        return self._refused > AT_ONCE

    def _begin_turn(self) -> None:
        self._refused = 0

    def _let_go_on_soon(self) -> None:
        if self._waiting and not self._lets_go_on:
            self._lets_go_on = True
            self._loop.call_soon(self._let_go_on)

    def _let_go_on(self) -> None:
        """Let on as many as one turn of the loop may take."""
        until = perf_counter() + TURN_SECONDS
        for _ in range(min(AT_ONCE, len(self._waiting))):
            self._waiting.popleft().go_on()
            if perf_counter() > until:
                break
        # Only now: who goes on may wait again, which must not begin a second row of turns.
        self._lets_go_on = False
        self._let_go_on_soon()

    def linger(self, connection: EndingConnection) -> bool:
        """Whether a connection may stay until its client has read why it ends."""
        if connection in self.open:
            return True
        # A refusal is read by whoever waits for it; a flood of them mustn't hold the files of
        # others.
        if len(self._lingering) >= LINGERING:
            return False
        self._lingering.add(connection)
        return True

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is closed."""
        self._lingering.discard(connection)
        self.open.pop(connection, None)
        if not self.open and self._all_closed is not None:
            self._all_closed.set()
