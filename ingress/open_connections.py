"""Which connections are open, and which one is closed for a new one where there are too many."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from ingress.connection import Connection
from ingress.last_connections import has_unread

LOOKS: Final = 32
"""How many connections with unread input are passed over for one new connection: each costs a call
of the system. Where so many have some, that says nothing any more."""


class OpenConnections:
    """The connections that are open, in the order in which they are closed for others.

    That is by their last accepted delivery, and where there was none by their beginning. Whoever
    has no secret can't move up in it, whatever he sends.
    """

    def __init__(self) -> None:
        self._by_merit: OrderedDict[Connection, None] = OrderedDict()

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

        One with unread input may have a complete one there. So has one that was taken a moment
        ago, most likely; but such a one comes last.
        """
        passed: list[Connection] = []
        for connection in self._by_merit:
            if connection.is_busy:
                continue
            if not has_unread(connection.transport):
                return connection
            passed.append(connection)
            if len(passed) == LOOKS:
                break
        return passed[0] if passed else None
