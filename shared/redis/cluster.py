"""Finds the node of a cluster that has a partition's slot, anew for each connection."""

import asyncio
from collections import deque
from copy import copy
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from redis.credentials import CredentialProvider
from redis.exceptions import (
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.redis.primary_pool import (
    ANSWER_SECONDS,
    PrimaryConnection,
    PrimaryPool,
    brief_client,
    closing,
)
from shared.redis.tls import Certificates

_SLOTS: Final = 16_384
_FRESH_SECONDS: Final = 0.1
"""How old the answer may be that whoever doubts it is given: a partition whose primary is away has
as many connections that fail as it has deliveries."""

_MOST_ASKED: Final = 3
"""Nodes that one connection waits for: the next one begins with the others."""

_AWAY: Final = ("ASK ", "TRYAGAIN", "Script attempted to access")
"""How a node answers for a slot that it is giving to another one, key by key."""

_DOWN: Final = ("CLUSTERDOWN", "Script attempted to execute")


class Slots:
    """Who has which slot, as any node of the cluster tells.

    Args:
        hosts: host and port of some nodes; the others are learned of these.
        tls: to all nodes; None: no TLS.
        login: who we are there.
    """

    def __init__(
        self,
        hosts: tuple[tuple[str, int], ...],
        *,
        tls: Certificates | None,
        login: CredentialProvider | None = None,
    ) -> None:
        self._hosts = hosts
        self._nodes = deque(hosts)
        self._who = {"tls": tls, "credential_provider": login}
        self._ranges: list[tuple[int, int, tuple[str, int]]] = []
        self._asked = -_FRESH_SECONDS
        self._failure: Exception | None = None
        # One at a time: what the first one is told, the others are as well; and where no node
        # answers, none waits for that after all the others.
        self._asking = asyncio.Lock()

    async def owner(self, slot: int, *, is_doubtful: bool) -> tuple[str, int]:
        """Who has a slot.

        Args:
            slot: which.
            is_doubtful: whether it was another one that was taken for its owner in vain.

        Raises:
            ClusterDownError: nobody has it.
            redis.exceptions.RedisError: no node answers: what the last one failed with.
            OSError: the same.
        """
        if is_doubtful or not self._ranges:
            since = monotonic() - _FRESH_SECONDS
            async with self._asking:
                if self._asked < since:
                    await self._refresh()
            if self._failure is not None:
                failure = copy(self._failure)
                failure.__context__ = self._failure.__context__  # what the system said
                raise failure
        for first, last, where in self._ranges:
            if first <= slot <= last:
                return where
        raise ClusterDownError("no node of the cluster has the slot")

    @property
    def unserved(self) -> int:
        """How many slots nobody had when a node answered last; none, where none has."""
        served = sum(last - first + 1 for first, last, _ in self._ranges)
        return _SLOTS - served if served else 0

    def suggest(self, node: tuple[str, int]) -> None:
        """Ask a node that has said that a slot is elsewhere: it is the first to know."""
        self._nodes = deque(dict.fromkeys([node, *self._nodes]))
        self._asked = -_FRESH_SECONDS

    async def _refresh(self) -> None:
        """Ask one node after another: the next one each time, since one that is cut off may lie."""
        for _ in range(min(_MOST_ASKED, len(self._nodes))):
            node = self._nodes[0]
            self._nodes.rotate(-1)  # before the question, which may be cancelled
            try:
                self._ranges = await self._ask(node)
            except (RedisError, OSError) as exc:
                self._failure = exc
            else:
                self._failure = None
                # Seeds as well: they may be names of what has several addresses.
                known = {*(where for *_, where in self._ranges), *self._hosts}
                first = [each for each in self._nodes if each in known and each != node]
                self._nodes = deque(dict.fromkeys([*first, *(known - {node}), node]))
                break
        self._asked = monotonic()

    async def _ask(self, node: tuple[str, int]) -> list[tuple[int, int, tuple[str, int]]]:
        host, port = node
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            closing(brief_client(host, port, **self._who)) as asked,
        ):
            said = await asked.execute_command("CLUSTER", "SLOTS")
        return [
            (first, last, (_host_of(owner) or host, owner[1])) for first, last, owner, *_ in said
        ]


def _host_of(node: list[Any]) -> str:
    """What clients should call a node; nothing, where it is the host that they have asked."""
    host = node[0] or b""
    if host == b"?":  # it is to be called by a name that nobody has given it
        others = node[3] if len(node) > 3 else []  # noqa: PLR2004  # Redis's own form
        host = dict(zip(others[::2], others[1::2], strict=False)).get(b"ip", b"")
    return str(host.decode())


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a cluster.

    Attributes:
        slots: knows who has it.
        number: of it.
    """

    slots: Slots
    number: int


class SlotConnection(PrimaryConnection):
    """A connection to the node that has a slot."""

    _pool: "SlotPool"

    @property
    def is_outdated(self) -> bool:
        """Whether it is to be used no more; so are all while it is in doubt who has the slot."""
        return self._is_refused or not self._pool.believes_in(self.host, self.port)

    async def connect(self) -> None:
        """Connect, unless it is connected to the slot's owner."""
        if self.is_connected and self.is_outdated:
            await self.disconnect(nowait=True)
        if self.is_connected:
            return
        before: BaseException | None = None
        try:
            await super().connect()  # type: ignore[no-untyped-call]  # redis-py left it out
        except BaseException as exc:
            self._pool.is_doubtful = True
            # redis-py makes an error of its own of what the nodes have said.
            if not isinstance(exc, RedisConnectionError):
                raise
            if not isinstance(exc.__cause__, RedisError):
                raise
            before = exc.__cause__
        if before is not None:  # here, where it keeps what it came of itself
            raise before
        self._pool.is_doubtful = False

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply; whatever may mean that the slot has another owner by now puts it in doubt.

        A frozen node fails in many ways: the first answer to a login, too, comes too late.

        Raises:
            TryAgainError: the slot is on its way to another node, or has gone there, and nothing
                has been done.
            ClusterDownError: nobody serves the slot, and nothing has been done.
        """
        try:
            return await super().read_response(*args, **options)
        except (ReadOnlyError, OSError, RedisConnectionError, RedisTimeoutError):
            self._refuse()
            raise
        except ResponseError as exc:
            raise self._judged(exc) from None

    def _judged(self, exc: ResponseError) -> ResponseError:
        text = str(exc)
        if text.startswith("MOVED "):
            self._refuse()
            self._pool.slot.slots.suggest((self.host, self.port))
            return TryAgainError(text)
        if text.startswith(_DOWN):
            self._refuse()
            return ClusterDownError(text)
        return TryAgainError(text) if text.startswith(_AWAY) else exc

    def _refuse(self) -> None:
        self._is_refused = self._pool.is_doubtful = True


class SlotPool(PrimaryPool):
    """A bounded, blocking pool of connections to the node that has a slot.

    A command goes to that node or fails: none is sent after a slot that has moved, since a script's
    answer would come from another connection than that of what waits for its durability.

    Args:
        slot: which.
        options: those of ``BlockingConnectionPool``.

    Attributes:
        slot: the same.
        is_doubtful: whether another node may have it by now.
    """

    def __init__(self, slot: Slot, **options: Any) -> None:
        super().__init__(connection_class=SlotConnection, **options)
        self.slot = slot
        self.is_doubtful = False

    def believes_in(self, host: str, port: int) -> bool:
        """Whether a node is the slot's owner, as far as anybody knows."""
        return not self.is_doubtful and self._primary == (host, port)

    async def _find(self) -> tuple[str, int]:
        return await self.slot.slots.owner(self.slot.number, is_doubtful=self.is_doubtful)
