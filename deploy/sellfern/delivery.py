"""The record of what was delivered, bounded to the latest."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from deploy.sellfern.clock import timestamp
from deploy.sellfern.event import Event

Kind = Literal["event", "duplicate", "test", "forged"]
"""Why it is sent: it is due; once more; a test was asked for; to see whether it is refused."""

Status = Literal["pending", "delivered", "failed", "abandoned"]
"""``failed``: given up after its attempts; ``abandoned``: its endpoint or the simulator went."""

_SUCCESS: Final = range(200, 300)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt.

    Attributes:
        at: seconds since the epoch, of its start.
        seconds: how long it took.
        response_status: of the answer; None if there was none.
        error: why there was none.
    """

    at: float
    seconds: float
    response_status: int | None = None
    error: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the answer was 2xx."""
        return self.response_status in _SUCCESS


@dataclass(slots=True, eq=False)
class Delivery:
    """An event on its way to an endpoint.

    Attributes:
        id: ``dlv_…``.
        endpoint_id: where to.
        event: what.
        body: its bytes.
        kind: why.
        created_at: seconds since the epoch.
        status: what became of it so far.
        attempts: those that have ended.
        next_attempt_at: seconds since the epoch, if one is planned.
        ended: set once the status is final.
    """

    id: str
    endpoint_id: str
    event: Event
    body: bytes
    kind: Kind
    created_at: float
    status: Status = "pending"
    attempts: list[Attempt] = field(default_factory=list)
    next_attempt_at: float | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def response_status(self) -> int | None:
        """Of the last attempt's answer."""
        return self.attempts[-1].response_status if self.attempts else None

    def shown(self) -> dict[str, Any]:
        """The delivery as the management API shows it."""
        last = self.attempts[-1] if self.attempts else None
        return {
            "id": self.id,
            "webhook_id": self.endpoint_id,
            "event_id": self.event.id,
            "event": self.event.type,
            "status": self.status,
            "attempts": len(self.attempts),
            "response_status": last.response_status if last else None,
            "error": last.error if last else None,
            "duration_ms": round(last.seconds * 1000) if last else None,
            "created_at": timestamp(self.created_at),
            "last_attempt_at": timestamp(last.at) if last else None,
            "next_attempt_at": _time(self.next_attempt_at),
            "delivered_at": timestamp(last.at) if last and self.status == "delivered" else None,
        }


class Deliveries:
    """Those that are pending and the latest that have ended.

    Args:
        kept: how many that have ended.
    """

    def __init__(self, kept: int) -> None:
        self._pending: dict[str, Delivery] = {}
        self._ended: deque[Delivery] = deque(maxlen=kept)
        self.counts: Counter[str] = Counter()
        """How many have ended, by ``kind`` and ``status`` as in ``event_delivered``."""

    def __iter__(self) -> Iterator[Delivery]:
        """The newest first."""
        known = [*self._ended, *self._pending.values()]
        return iter(sorted(known, key=lambda each: each.created_at, reverse=True))

    @property
    def pending(self) -> list[Delivery]:
        """Those that haven't ended."""
        return list(self._pending.values())

    def to(self, endpoint_id: str) -> list[Delivery]:
        """Those to an endpoint, the newest first, without forgeries, which aren't Sellfern's."""
        return [each for each in self if each.endpoint_id == endpoint_id and each.kind != "forged"]

    def begin(self, delivery: Delivery) -> None:
        """Take note of one that has to be made."""
        self._pending[delivery.id] = delivery

    def end(self, delivery: Delivery, status: Status) -> None:
        """Take note of its end."""
        del self._pending[delivery.id]
        delivery.status = status
        delivery.next_attempt_at = None
        self._ended.append(delivery)
        self.counts[f"{delivery.kind}_{status}"] += 1
        delivery.ended.set()


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
