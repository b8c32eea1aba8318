"""Plays Sellfern: makes events, signs them, sends them until it gets a 2xx."""

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import aiohttp

from tests.chaos.ledger import Ledger

ORDERED: Final = "org_ordered"
"""One at a time takes its time: it has few events."""

FEW: Final = ("org_a", "org_b", "org_c", "org_d", ORDERED)
_SHARE: Final = 5.0
_SHARE_ORDERED: Final = 0.4
_ORDERS: Final = 40
_MOST_UNANSWERED: Final = 300
"""What waits is sent again, and costs the sender as much as what is new."""

_REDELIVERED: Final = 0.2
_PATIENCE: Final = 4.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
_KINDS: Final = {
    "good": 0.87,
    "flaky": 0.05,
    "hostile": 0.01,
    "reject": 0.02,
    "mismatch": 0.01,
    "stale": 0.01,
    "rubbish": 0.01,
    "unsigned": 0.02,
}
_MISDEEDS: Final = {
    "panic": 3,
    "exit": 3,
    "cancel itself": 3,
    "swallow": 2,
    "block": 1,
    "terminate a child": 1,
    "exit in a child": 1,
}
"""What a hostile event has its handler do in its first attempt; the last one ends the worker."""


@dataclass(slots=True)
class Secrets:
    """What each organization signs with now; the saboteur changes it."""

    current: dict[str, str]

    @classmethod
    def first_of(cls, organizations: Iterable[str]) -> Self:
        """Those that they begin with."""
        return cls({name: f"whsec_{name}_1" for name in organizations})


@dataclass(slots=True)
class Sender:
    """Sends at a rate, whatever the answers are.

    Attributes:
        ports: of the ingresses; each delivery goes to one of them.
        secrets: what to sign with.
        ledger: where everything is written down.
        random: draws the events.
        accepted: how many events have had a 2xx so far.
    """

    ports: list[int]
    secrets: Secrets
    ledger: Ledger
    random: random.Random
    accepted: int = 0
    _number: int = 0
    _shares: dict[str, float] = field(init=False)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Let all but one have equally many."""
        self._shares = dict.fromkeys(self.secrets.current, _SHARE) | {ORDERED: _SHARE_ORDERED}

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Begin ``rate`` events a second until told to stop; returns when each has its answer."""
        loop = asyncio.get_running_loop()
        began, left_out = loop.time(), 0
        # Those that wait for what has failed keep nobody else from being sent.
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not stop.is_set():
                due = int((loop.time() - began) * rate) - left_out
                while self._number < due and len(self._sending) < _MOST_UNANSWERED:
                    self._begin(session)
                left_out += max(0, due - self._number)
                await asyncio.sleep(0.01)
            while self._sending:
                await asyncio.wait(self._sending)

    def _begin(self, session: aiohttp.ClientSession) -> None:
        self._number += 1
        task = asyncio.create_task(self._event(session, self._number))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _event(self, session: aiohttp.ClientSession, number: int) -> None:
        kind = self.random.choices(list(_KINDS), list(_KINDS.values()))[0]
        organization = self.random.choices(list(self._shares), list(self._shares.values()))[0]
        event_id = f"evt_{number}"
        body = self._body(kind, organization, event_id, number)
        self.ledger.write("event", id=event_id, kind=kind, organization=organization)
        if not await self._deliver(session, kind, organization, event_id, body):
            return
        self.accepted += 1
        if self.random.random() < _REDELIVERED:
            again = body if self.random.random() < 0.5 or kind == "rubbish" else body + b" "
            await asyncio.sleep(self.random.random())
            await self._deliver(session, kind, organization, event_id, again)

    def _body(self, kind: str, organization: str, event_id: str, number: int) -> bytes:
        if kind == "rubbish":
            return f"rubbish {event_id}".encode()
        happened = datetime.now(UTC) - timedelta(seconds=self.random.random() * 5)
        if kind == "stale":
            happened -= timedelta(days=30)
        others = [name for name in self._shares if name != organization]
        data: dict[str, Any] = {
            "order": f"order_{self.random.randrange(_ORDERS)}",
            "number": int(happened.timestamp() * 1000),
            "fails": 2 if kind == "flaky" else 0,
            "reject": kind == "reject",
            "misdeed": self._misdeed() if kind == "hostile" else "",
            "seconds": round(self.random.random() * 0.02, 4),
            "nr": number,
        }
        envelope = {
            "id": event_id,
            "type": "order.updated",
            "created_at": happened.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "organization_id": self.random.choice(others) if kind == "mismatch" else organization,
            "data": data,
        }
        return json.dumps(envelope).encode()

    def _misdeed(self) -> str:
        return self.random.choices(list(_MISDEEDS), list(_MISDEEDS.values()))[0]

    async def _deliver(
        self,
        session: aiohttp.ClientSession,
        kind: str,
        organization: str,
        event_id: str,
        body: bytes,
    ) -> bool:
        """Send until there is an answer that ends it; whether that was a 2xx."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            port = self.random.choice(self.ports)
            status, code = await self._post(session, port, kind, organization, body)
            took = time.monotonic() - began
            answer = {"status": status, "code": code, "took": took, "port": port}
            self.ledger.write("answer", id=event_id, sha=_sha(body), kind=kind, **answer)
            if status is not None and status != 503:
                return 200 <= status < 300
            await asyncio.sleep(pause * (0.5 + self.random.random()))
            pause = min(_LONGEST_PAUSE, pause * 2)

    async def _post(
        self, session: aiohttp.ClientSession, port: int, kind: str, organization: str, body: bytes
    ) -> tuple[int | None, str]:
        secret = "whsec_wrong" if kind == "unsigned" else self.secrets.current[organization]
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        url = f"http://127.0.0.1:{port}/webhooks/{organization}"
        headers = {"X-Sellfern-Signature": signature, "Content-Type": "application/json"}
        try:
            async with session.post(url, data=body, headers=headers) as response:
                return response.status, _code(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            return None, type(exc).__name__


def _code(answer: bytes) -> str:
    try:
        return str(json.loads(answer).get("error", {}).get("code", ""))
    except ValueError:
        return "not JSON"


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]
