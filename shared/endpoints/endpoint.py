"""The endpoints: which organization and which secrets stand behind each URL."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal, Protocol, Self

import msgspec

from shared.errors import SettingsError
from shared.sellfern.scheme import Scheme
from shared.settings.secret import Secret

ENDPOINT_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an endpoint's id may look like: the last part of its URL."""

DEFAULT_WEIGHT: Final = 1.0

NO_SETTINGS: Final[Mapping[str, object]] = MappingProxyType({})
"""Of an endpoint or an organization without any."""

FINGERPRINT_LENGTH: Final = 12
"""Characters of a secret's fingerprint: enough to tell apart those of an endpoint."""

MissingCause = Literal["unreadable", "hangs", "unusable"]
"""Why a secret can't be had: its file can't be read, or doesn't answer; or it is none."""

MISSING_CAUSES: Final[tuple[MissingCause, ...]] = ("unreadable", "hangs", "unusable")
"""All of them."""


# There may be ten thousands of each of these, made anew when the file changes. None refers back to
# what holds it, so Python's collector is told to leave them out: it would take it a tenth of a
# second to look at them, with all deliveries waiting.


class EndpointSecret(msgspec.Struct, frozen=True, gc=False):
    """A secret that verifies, for good or until a moment.

    Attributes:
        value: the secret as the vendor showed it.
        until: the first moment, with an offset, at which it verifies no more; None: never.
    """

    value: Secret
    until: datetime | None = None

    def is_active(self, now: float) -> bool:
        """Whether it verifies at ``now``, seconds since the epoch."""
        return self.until is None or now < self.until.timestamp()

    @property
    def fingerprint(self) -> str:
        """What tells it from others without telling it; for those only who may read the secret.

        Whoever has it can hold guesses against it, as many as they like.
        """
        return sha256(self.value.raw).hexdigest()[:FINGERPRINT_LENGTH]


class MissingSecret(msgspec.Struct, frozen=True, gc=False):
    """A secret that can't be had just now.

    Attributes:
        whose: ``endpoint`` or ``organization``, for one in its settings, and the id.
        cause: ``unreadable``, ``hangs`` or ``unusable``.
        error: what was expected and what was got, with file and line; nothing of the secret.
        kept_until: seconds since the epoch until which the last known one holds; None: none is
            known.
        until: the moment at which it wouldn't verify any more in any case; None: never.
    """

    whose: str
    cause: MissingCause
    error: SettingsError
    kept_until: float | None = None
    until: datetime | None = None


RATE_EXPECTED: Final = "starts in a second, a minute or an hour, such as 5/s, 300/m or 20/h"
"""What an error message says was expected."""

_RATE: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)/([smh])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_SLOWEST, _FASTEST = 1 / 86_400, 10_000.0
_MOST_BURST: Final = 10**9  # more come at once nowhere, and a float holds it


class Rate(msgspec.Struct, frozen=True, gc=False):
    """How often an organization's handlers may start, over all workers.

    Attributes:
        text: as it is written: ``5/s``, ``300/m``.
        interval: milliseconds between two starts.
        burst: how many of the starts that were due and not taken may come at once.
    """

    text: str
    interval: float
    burst: int = 1

    @classmethod
    def parse(cls, text: str, burst: int = 1) -> Self:
        """The rate in ``5/s``, ``300/m`` or ``20/h``.

        Raises:
            ValueError: it is anything else, below one a day or above 10,000/s; the message is what
                was expected.
        """
        found = _RATE.fullmatch(text)
        per_second = float(found[1]) / _SECONDS[found[2]] if found else 0.0
        if not _SLOWEST <= per_second <= _FASTEST:
            raise ValueError(RATE_EXPECTED)
        return cls(text, 1000 / per_second, burst)

    @property
    def credit(self) -> float:
        """Milliseconds for which a start that was due and not taken may be taken later.

        Never less than a tenth of a second, or those of whoever wakes a little late would be lost.
        """
        return max((min(self.burst, _MOST_BURST) - 1) * self.interval, 100.0)


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One URL that Sellfern delivers to.

    Attributes:
        id: the last part of its URL.
        organization_id: the one organization whose events it takes.
        secrets: a delivery that any active one verifies is genuine. None where none is needed,
            or where all are missing.
        scheme: how the vendor signs.
        weight: the organization's share under contention, 0.01 to 100.
        concurrency: how many of the organization's handlers may run at once; None: the default.
        max_bytes: how much of Redis the organization may hold; None: the default, 0: no limit.
        settings: what this endpoint adds to its organization's settings.
        missing: secrets that can't be had, so that what no secret verifies may be genuine still.
    """

    id: str
    organization_id: str
    secrets: tuple[EndpointSecret, ...]
    scheme: Scheme
    weight: float
    concurrency: int | None
    max_bytes: int | None
    settings: Mapping[str, object]
    missing: tuple[MissingSecret, ...] = ()

    def active(self, now: float) -> list[EndpointSecret]:
        """The secrets that verify at ``now``, seconds since the epoch; perhaps none."""
        return [secret for secret in self.secrets if secret.is_active(now)]

    def lacks_secret(self, now: float) -> bool:
        """Whether a secret that would verify at ``now`` can't be had."""
        return any(
            secret.until is None or now < secret.until.timestamp() for secret in self.missing
        )

    def active_secrets(self, now: float) -> list[bytes]:
        """The same, as bytes."""
        return [secret.value.raw for secret in self.active(now)]


class OrganizationProfile(msgspec.Struct, frozen=True, gc=False):
    """What the endpoints of one organization say about it together.

    Attributes:
        id: the organization.
        weight: its share under contention, 0.01 to 100.
        concurrency: how many of its handlers may run at once; None: the default.
        settings: handed to its handlers; read-only.
        max_bytes: how much of Redis it may hold; None: the default, 0: no limit.
        rate: how often its handlers may start; None: as often as there is something to do.
    """

    id: str
    weight: float
    concurrency: int | None
    settings: Mapping[str, object]
    max_bytes: int | None = None
    rate: Rate | None = None


class Endpoints(Mapping[str, Endpoint]):
    """All endpoints by their id, and the organizations behind them; never changes."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        organizations: Mapping[str, OrganizationProfile],
        missing: Sequence[MissingSecret] = (),
    ) -> None:
        self.missing = tuple(missing)
        """The secrets that can't be had, of endpoints or in settings."""
        self._endpoints = dict(endpoints)
        # Asked with every delivery: Mapping's own would go a longer way, and by an exception.
        self.get = self._endpoints.get  # type: ignore[method-assign]
        self.organizations: Mapping[str, OrganizationProfile] = MappingProxyType(
            dict(organizations)
        )
        """By their id."""

    def __getitem__(self, endpoint_id: str) -> Endpoint:
        return self._endpoints[endpoint_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._endpoints)

    def __len__(self) -> int:
        return len(self._endpoints)


class CurrentEndpoints(Protocol):
    """Who knows the endpoints of this moment: an `EndpointsFile`, or a fake of it."""

    current: Endpoints


def nearest(name: str, known: Collection[str]) -> str:
    """A hint such as ``"; did you mean 'secrets'?"``, or nothing where no name is near."""
    by_letters = {each.lower(): each for each in known}  # whatever their case
    close = get_close_matches(name.lower(), by_letters, n=1)
    return f"; did you mean {by_letters[close[0]]!r}?" if close else ""
