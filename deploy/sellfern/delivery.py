"""Delivers events: signs, posts, waits, tries again, gives up, and keeps the latest on record."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal
from uuid import uuid4

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from deploy.sellfern.endpoint import Endpoint, Endpoints
from deploy.sellfern.event import Clock, Event, timestamp
from deploy.sellfern.settings import SimulatorSettings
from shared.observe.logs import get_logger
from shared.sellfern import signature
from shared.sellfern.scheme import SELLFERN

_log = get_logger()

Kind = Literal["event", "duplicate", "test", "forged"]
"""Why it is sent: it is due; once more; a test was asked for; to see whether it is refused."""

Status = Literal["pending", "delivered", "failed", "abandoned"]
"""``failed``: given up after its attempts; ``abandoned``: its endpoint or the simulator went."""


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
        return self.response_status in range(200, 300)


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
        # The oldest falls out: all state is bounded.
        self._ended.append(delivery)
        self.counts[f"{delivery.kind}_{status}"] += 1
        delivery.ended.set()


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)


def retry_delay(attempt: int, random: float, *, base: float, cap: float) -> float:
    """Seconds until the next attempt: exponential, from half of the bound to all of it.

    Args:
        attempt: how many have been made.
        random: from 0 to 1.
        base: seconds; the bound after the first attempt.
        cap: seconds; the highest bound.
    """
    # 2**60 is beyond any cap.
    return min(cap, base * 2.0 ** min(attempt - 1, 60)) * (1 + random) / 2


class Deliverer:
    """Delivers events to the endpoints that are subscribed to them.

    Args:
        endpoints: as they are at each attempt.
        deliveries: the record.
        settings: the knobs.
        clock: tells the time.
        session: posts.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        deliveries: Deliveries,
        settings: SimulatorSettings,
        clock: Clock,
        session: ClientSession,
    ) -> None:
        self.settings = settings
        """The knobs, which may be turned at any time."""
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._clock = clock
        self._session = session
        self._random = Random(settings.seed)  # noqa: S311  # delays and shares, not keys
        self._room = asyncio.Semaphore(settings.most_pending)
        self._posts = asyncio.Semaphore(settings.concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def publish(self, event: Event) -> list[Delivery]:
        """Begin to deliver an event; waits while too many deliveries are pending.

        Returns:
            The deliveries: one for each endpoint that takes it, and whatever the knobs add.
        """
        made: list[Delivery] = []
        for endpoint in self._endpoints.of(event.organization):
            if endpoint.takes(event.type):
                made += [await self._begin(endpoint, event, kind) for kind in self._kinds()]
        return made

    async def test(self, endpoint: Endpoint, event: Event) -> Delivery:
        """Deliver an event to one endpoint, enabled or not, by a single attempt."""
        delivery = await self._begin(endpoint, event, "test")
        await delivery.ended.wait()
        return delivery

    async def close(self) -> None:
        """Abandon what is pending, and what is still to come."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _kinds(self) -> list[Kind]:
        kinds: list[Kind] = ["event"]
        if self._random.random() < self.settings.duplicates:
            kinds.append("duplicate")
        if self._random.random() < self.settings.bad_signatures:
            kinds.append("forged")
        return kinds

    async def _begin(self, endpoint: Endpoint, event: Event, kind: Kind) -> Delivery:
        # Waits here rather than growing a list: whoever makes events is slowed down by those who
        # don't take them.
        await self._room.acquire()
        if kind == "forged":
            event = event.forged()
        now = self._clock()
        delivery = Delivery(f"dlv_{uuid4().hex}", endpoint.id, event, event.encode(), kind, now)
        self._deliveries.begin(delivery)
        task = asyncio.create_task(self._deliver(delivery, self._hold(kind)))
        # The loop itself holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._finish(ended, delivery))
        # Whoever waited for room may get it by the end of everything.
        if self._closed:
            task.cancel()
        return delivery

    def _finish(self, task: asyncio.Task[None], delivery: Delivery) -> None:
        """Make room, whatever ended the task: it may have been cancelled before it began."""
        self._tasks.discard(task)
        self._room.release()
        if delivery.status == "pending":
            self._deliveries.end(delivery, "abandoned")

    def _hold(self, kind: Kind) -> float:
        """Seconds to hold a delivery back: a duplicate follows, disorder lets others overtake."""
        held = kind == "duplicate" or (
            kind == "event" and self._random.random() < self.settings.disorder
        )
        return self._random.random() * self.settings.disorder_seconds if held else 0.0

    async def _deliver(self, delivery: Delivery, hold: float) -> None:
        await asyncio.sleep(hold)
        # A forgery's sender hopes once; who asks for a test waits for its answer.
        is_alone = delivery.kind in {"forged", "test"}
        while (attempt := await self._attempt(delivery)) is not None:
            delivery.attempts.append(attempt)
            _note(delivery, attempt)
            if attempt.is_success:
                return self._deliveries.end(delivery, "delivered")
            if is_alone or len(delivery.attempts) >= self.settings.attempts:
                return self._deliveries.end(delivery, "failed")
            await self._back_off(delivery)
        return self._deliveries.end(delivery, "abandoned")

    async def _attempt(self, delivery: Delivery) -> Attempt | None:
        """Make an attempt, if its endpoint wants it once its turn has come."""
        # Taken for one attempt only: a delivery that backs off holds up nobody.
        async with self._posts:
            # As it is now: it may have been changed, disabled or removed since the last attempt.
            endpoint = self._endpoints.find(delivery.endpoint_id)
            if endpoint is None or not (endpoint.enabled or delivery.kind == "test"):
                return None
            return await self._post(endpoint, delivery)

    async def _back_off(self, delivery: Delivery) -> None:
        settings = self.settings
        number, random = len(delivery.attempts), self._random.random()
        delay = retry_delay(number, random, base=settings.backoff, cap=settings.backoff_cap)
        delivery.next_attempt_at = self._clock() + delay
        await asyncio.sleep(delay)
        delivery.next_attempt_at = None

    async def _post(self, endpoint: Endpoint, delivery: Delivery) -> Attempt:
        loop = asyncio.get_running_loop()
        at, started = self._clock(), loop.time()
        status: int | None = None
        error: str | None = None
        try:
            async with self._session.post(
                endpoint.url,
                data=delivery.body,
                headers=self._headers(endpoint, delivery),
                timeout=ClientTimeout(total=self.settings.timeout),
                # A redirect is an answer that isn't 2xx: what is signed for one place isn't sent to
                # another.
                allow_redirects=False,
            ) as response:
                status = response.status
        except TimeoutError:
            error = f"no answer within {self.settings.timeout:g} s"
        # ValueError: a URL that aiohttp can't use, which may pass for one before.
        except (ClientError, OSError, ValueError) as exc:
            error = str(exc) or type(exc).__name__
        return Attempt(at, loop.time() - started, status, error)

    def _headers(self, endpoint: Endpoint, delivery: Delivery) -> dict[str, str]:
        secret = endpoint.secret.reveal()
        if delivery.kind == "forged":
            # Another secret, and else all as in a genuine one: only the signature may be what gives
            # it away.
            secret = f"not {secret}"
        signed = signature.sign(
            SELLFERN,
            delivery.body,
            secret.encode(),
            now=self._clock(),
            message_id=delivery.id,
        )
        return {
            "Content-Type": "application/json",
            "User-Agent": "sellfern-simulator",
            "X-Sellfern-Event": delivery.event.type,
            **signed,
        }


@contextlib.asynccontextmanager
async def delivering(
    endpoints: Endpoints, deliveries: Deliveries, settings: SimulatorSettings, clock: Clock
) -> AsyncIterator[Deliverer]:
    """A deliverer that works while the block runs; what is pending at its end is abandoned."""
    async with ClientSession(
        # Waiting for a connection would count as waiting for an answer: attempts are bounded.
        connector=TCPConnector(limit=0),
        # Receivers' cookies would make deliveries differ from one another.
        cookie_jar=DummyCookieJar(),
    ) as session:
        deliverer = Deliverer(endpoints, deliveries, settings, clock, session)
        try:
            yield deliverer
        finally:
            await deliverer.close()


def _note(delivery: Delivery, attempt: Attempt) -> None:
    # An error, since it is the receiver's: it let somebody in who hasn't the secret.
    if delivery.kind == "forged" and attempt.is_success:
        _log.error("forgery_accepted", event_id=delivery.event.id, webhook=delivery.endpoint_id)
        return
    _log.debug(
        "delivery_attempted",
        delivery=delivery.id,
        kind=delivery.kind,
        event_type=delivery.event.type,
        attempt=len(delivery.attempts),
        status=attempt.response_status,
        error=attempt.error,
    )
