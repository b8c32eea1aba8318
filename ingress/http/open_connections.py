"""Which connections are open, and which one is closed for a new one where there are too many."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator

from ingress.http.connection import Connection
from ingress.http.last_connections import has_unread


class OpenConnections:
    """The connections that are open, in the order in which they are closed for others.

    That is by their last accepted delivery, and where there was none by their beginning. Whoever
    has no secret can't move up in it, whatever he sends.
    """

    def __init__(self) -> None:
        self._by_merit: OrderedDict[Connection, None] = OrderedDict()
        self._candidates: Iterator[Connection] | None = None
        self._passed: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._by_merit)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._by_merit)

    def __contains__(self, connection: object) -> bool:
        return connection in self._by_merit

    def add(self, connection: Connection) -> None:
        """Take note of a new one."""
        self._by_merit[connection] = None

    def accepted(self, connection: Connection) -> None:
        """Take note that a delivery was accepted on one."""
        if connection in self._by_merit:
            self._by_merit.move_to_end(connection)

    def discard(self, connection: Connection) -> None:
        """Forget one."""
        self._by_merit.pop(connection, None)

    def victim(self) -> Connection | None:
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
        return connection in self._by_merit and not connection.is_busy

    def _rest(self) -> Iterator[Connection]:
        """Those that haven't been looked at in this turn of the loop."""
        if self._candidates is None:
            self._candidates = iter(list(self._by_merit))
            asyncio.get_running_loop().call_soon(self._begin_anew)
        return self._candidates

    def _begin_anew(self) -> None:
        self._candidates = None
        self._passed.clear()
