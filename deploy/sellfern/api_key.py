"""API keys: whose each is, what it may be used for, and how often in a second."""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil
from typing import Final

from multidict import CIMultiDictProxy

from deploy.sellfern.answer import Refused, rate_limited
from deploy.sellfern.event import Clock
from shared.queue.keys import ORGANIZATION_PATTERN
from shared.settings.secret import Secret

HEADER: Final = "x-api-key"
"""The header that a request bears its key in."""

MANAGE: Final = "webhooks:manage"
"""The scope that every management operation needs (source: legacy integration pages)."""

EXPECTED: Final = "KEY:ORGANIZATION or KEY:ORGANIZATION:SCOPE,SCOPE"
"""The form of a key as an argument."""

_KEY: Final = re.compile(r"[!-9;-~]{1,200}")  # printable ASCII but the colon
_SCOPE: Final = re.compile(r"[a-z0-9_.:-]{1,64}")
_SHOWN: Final = 4
_LONG_ENOUGH: Final = 12


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key.

    Attributes:
        key: the text itself.
        organization: the one whose endpoints it shows and changes.
        scopes: what it may be used for.
    """

    key: Secret
    organization: str
    scopes: frozenset[str] = frozenset({MANAGE})

    @property
    def masked(self) -> str:
        """Enough of the key for its owner to know it again; nothing of a short one."""
        # Four characters of a long key help nobody to the rest; of a short one they would.
        text = self.key.reveal()
        return f"{text[:_SHOWN]}…" if len(text) >= _LONG_ENOUGH else "…"

    def require(self, scope: str) -> None:
        """Return if the key has a scope.

        Raises:
            Refused: it has not.
        """
        if scope not in self.scopes:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "missing_scope",
                f"this API key lacks the scope {scope}",
                details={"required_scope": scope},
            )


def parse_api_key(text: str) -> ApiKey:
    """Read ``KEY:ORGANIZATION``, or with scopes; nothing after a second colon is no scope.

    Raises:
        ValueError: it is anything else; the message holds nothing of the key.
    """
    key, _, rest = text.partition(":")
    organization, restricted, listed = rest.partition(":")
    if not _KEY.fullmatch(key) or not ORGANIZATION_PATTERN.fullmatch(organization):
        raise ValueError(f"expected {EXPECTED}")
    if not restricted:
        return ApiKey(Secret(key), organization)
    scopes = frozenset(scope for scope in listed.split(",") if scope)
    if not all(map(_SCOPE.fullmatch, scopes)):
        raise ValueError(f"expected {EXPECTED}, a scope being such as {MANAGE}")
    return ApiKey(Secret(key), organization, scopes)


class ApiKeys:
    """The keys that there are.

    Args:
        keys: each once.

    Raises:
        ValueError: one is there twice.
    """

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        given = [*keys]
        self._keys = {key.key.reveal(): key for key in given}
        if len(self._keys) < len(given):
            raise ValueError("expected each key once, and so one organization for each")

    @property
    def all(self) -> tuple[ApiKey, ...]:
        """Every key, in the order given."""
        return tuple(self._keys.values())

    @property
    def organizations(self) -> tuple[str, ...]:
        """The organizations that have a key, each once."""
        # In the order of the command line, each once; a set would have another order each time.
        return tuple(dict.fromkeys(key.organization for key in self._keys.values()))

    def authenticate(self, headers: CIMultiDictProxy[str]) -> ApiKey:
        """The key of a request.

        Raises:
            Refused: it bears none, several, or an unknown one.
        """
        # Two of them are refused: a proxy and this might take different ones.
        given = headers.getall(HEADER, [])
        key = self._keys.get(given[0]) if len(given) == 1 else None
        if key is None:
            message = f"a valid API key is needed in the header {HEADER}"
            raise Refused(HTTPStatus.UNAUTHORIZED, "unauthorized", message)
        return key


WINDOW_SECONDS: Final = 1.0


class Quota:
    """Counts the requests of each key over the last second.

    Args:
        most: requests in a second; None sets no limit.
        clock: tells the time.
    """

    def __init__(self, most: int | None, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._taken: dict[str, deque[float]] = {}

    def take(self, key: str) -> None:
        """Count a request.

        Raises:
            Refused: it is one too many; this one doesn't count.
        """
        if self._most is None:
            return
        now = self._clock()
        taken = self._taken.setdefault(key, deque())
        while taken and taken[0] <= now - WINDOW_SECONDS:
            taken.popleft()
        # A refused request isn't taken down, or who hurries would never be let in again.
        if len(taken) >= self._most:
            raise rate_limited(max(1, ceil(taken[0] + WINDOW_SECONDS - now)))
        taken.append(now)
