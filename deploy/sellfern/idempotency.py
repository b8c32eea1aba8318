"""Idempotency keys: one effect and one answer for each, for a day."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus
from typing import Final

import msgspec
from multidict import CIMultiDictProxy

from deploy.sellfern.answer import Answer, Refused, invalid
from deploy.sellfern.event import Clock

HEADER: Final = "Idempotency-Key"
LONGEST: Final = 255
LIFE_SECONDS: Final = 86_400.0
MOST: Final = 10_000
"""Keys that are remembered; beyond that the oldest goes before its day is over."""


def read_key(headers: CIMultiDictProxy[str], *, required: bool) -> str | None:
    """The idempotency key of a request, if it bears one.

    Raises:
        Refused: it is too long, empty, there twice, or missing although it is required.
    """
    given = headers.getall(HEADER, [])
    if not given and not required:
        return None
    if len(given) != 1 or not 1 <= len(given[0]) <= LONGEST:
        expected = f"expected one key of 1 to {LONGEST} characters"
        raise invalid("the idempotency key is not as documented", (f"header {HEADER}", expected))
    return given[0]


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What tells one request from another: the same JSON in another layout is the same."""
    try:
        # A client that builds its request anew may write the same fields in another order.
        content = msgspec.json.encode(msgspec.json.decode(body), order="sorted")
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        content = body
    return sha256(f"{method} {path}\n".encode("utf-8", "surrogatepass") + content).digest()


@dataclass(slots=True)
class _Use:
    """The use of a key by a request; ``lock`` is held while the request has its effect."""

    fingerprint: bytes
    until: float
    answer: Answer | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Idempotency:
    """The keys that have been used.

    Args:
        clock: tells when a key's day is over.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uses: dict[tuple[str, str], _Use] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._uses)

    async def once(
        self, owner: str, key: str, request: bytes, perform: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """The first answer to a request, which has its effect once however often it comes.

        A second one that comes while the first is under way waits for its answer.

        Args:
            owner: the organization, whose keys are apart from all others'.
            key: the idempotency key.
            request: its fingerprint.
            perform: has the effect.

        Raises:
            Refused: the key was used for another request.
        """
        use = self._use(owner, key, request)
        if use.fingerprint != request:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "idempotency_conflict",
                "this idempotency key was used for another request; make a new key for a new one",
            )
        # The second of two that come together must neither have the effect nor be told that it is
        # in use.
        async with use.lock:
            if use.answer is not None:
                return use.answer.replayed()
            # Only where it comes to its end: where it is cancelled, nothing is remembered, and the
            # next one tries.
            use.answer = await perform()
            return use.answer

    def _use(self, owner: str, key: str, request: bytes) -> _Use:
        self._expire()
        use = self._uses.get((owner, key))
        if use is None:
            # Bounded, whatever a client sends; a key this old is hardly asked for again.
            if len(self._uses) >= MOST:
                del self._uses[next(iter(self._uses))]
            use = self._uses[owner, key] = _Use(request, self._clock() + LIFE_SECONDS)
        return use

    def _expire(self) -> None:
        now = self._clock()
        # All live equally long, so that the oldest end first.
        while self._uses and (oldest := next(iter(self._uses.items())))[1].until <= now:
            del self._uses[oldest[0]]
