"""One ``[[endpoint]]`` table, taken apart key by key."""

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Never

import msgspec

from shared.endpoints.endpoint import ENDPOINT_PATTERN, NO_SETTINGS, RATE_EXPECTED, Rate, nearest
from shared.endpoints.place import Place, kind, shown
from shared.endpoints.secret_source import SOURCES, SecretSource, SourceKind, usable_secret
from shared.queue.keys import ORGANIZATION_PATTERN
from shared.sellfern import identifier
from shared.sellfern.scheme import SELLFERN, STANDARD_WEBHOOKS, TIMESTAMPED, Scheme
from shared.sellfern.signature import scheme_from_table
from shared.settings.secret import Secret

MIN_WEIGHT: Final = 0.01
MAX_WEIGHT: Final = 100.0

MAX_SECRETS: Final = 16
"""How many secrets one endpoint may have: each costs a pass over every body that is refused."""

_KEYS: Final = (
    *("id", "organization_id", "secrets", "scheme"),
    *("weight", "concurrency", "max_bytes", "rate", "burst", "settings"),
)
_SECRET_KEYS: Final = (*SOURCES, "until")
_SCHEMES: Final = {
    "sellfern": SELLFERN,
    "standard-webhooks": STANDARD_WEBHOOKS,
    "timestamped": TIMESTAMPED,
}


class SecretEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of ``secrets``.

    Attributes:
        source: where the secret stands.
        until: the first moment at which it verifies no more; None: never.
    """

    source: SecretSource
    until: datetime | None = None


class EndpointDraft(msgspec.Struct, frozen=True, gc=False):
    """An endpoint as its table says it; its secrets are still where they stand.

    Attributes:
        id: the last part of its URL.
        organization_id: the one organization whose events it takes.
        secrets: at least one.
        scheme: how the vendor signs.
        weight: the organization's share; None where it isn't written.
        concurrency: of the organization's handlers; None where it isn't written.
        max_bytes: of the organization in Redis; None where it isn't written.
        rate: of starts of the organization's handlers; None where it isn't written.
        settings: what this endpoint adds to its organization's settings.
    """

    id: str
    organization_id: str
    secrets: tuple[SecretEntry, ...]
    scheme: Scheme
    weight: float | None
    concurrency: int | None
    max_bytes: int | None
    rate: Rate | None
    settings: Mapping[str, object]


Placed = tuple[EndpointDraft, Place]
"""An endpoint, and where its table stands."""


def read_table(raw: object, place: Place) -> EndpointDraft:
    """Read a table.

    Args:
        raw: as tomllib gives it.
        place: where it stands.

    Raises:
        SettingsError: something in it is wrong. The message names the line and holds no part of
            any secret.
    """
    if not isinstance(raw, dict):
        raise place.misplaced("", "an [[endpoint]] table", kind(raw))
    return _Table(raw, place).draft()


class _Table:
    def __init__(self, raw: dict[str, Any], place: Place) -> None:
        self._raw = raw
        self._place = place

    def draft(self) -> EndpointDraft:
        self._refuse_unknown_keys(self._raw, _KEYS)
        scheme = self._scheme()
        return EndpointDraft(
            id=self._checked("id", self._raw.get("id"), ENDPOINT_PATTERN),
            organization_id=self._organization(),
            secrets=self._secrets(scheme),
            scheme=scheme,
            weight=self._weight(),
            concurrency=self._whole_number("concurrency", 1),
            max_bytes=self._whole_number("max_bytes", 0),
            rate=self._rate(),
            settings=self._settings(),
        )

    def refuse(self, key: str, expected: str, got: str) -> Never:
        raise self._place.wrong(key, expected, got)

    def _refuse_unknown_keys(self, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                got = f"{shown(key)}{nearest(key, known)}"
                raise self._place.misplaced(key, f"one of the keys {', '.join(known)}", got)

    def _organization(self) -> str:
        """Its id, which Sellfern's own pages show as text and as a whole number."""
        value = self._raw.get("organization_id")
        with contextlib.suppress(ValueError):  # refused below
            value = identifier.text(value)
        return self._checked("organization_id", value, ORGANIZATION_PATTERN)

    def _checked(self, key: str, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            got = shown(value) if isinstance(value, str) else kind(value)
            self.refuse(key, "1 to 64 characters of A-Z a-z 0-9 _ -", got)
        return value

    def _secrets(self, scheme: Scheme) -> tuple[SecretEntry, ...]:
        value = self._raw.get("secrets")
        if not isinstance(value, list):
            self.refuse("secrets", "a list of secrets", kind(value))
        if not 1 <= len(value) <= MAX_SECRETS:
            self.refuse("secrets", f"a list of 1 to {MAX_SECRETS} secrets", f"{len(value)}")
        return tuple(self._secret(entry, scheme) for entry in value)

    def _secret(self, entry: object, scheme: Scheme) -> SecretEntry:
        if isinstance(entry, str):
            return SecretEntry(self._source("value", entry, scheme))
        if not isinstance(entry, dict):
            self.refuse("secrets", "texts or tables", kind(entry))
        self._refuse_unknown_keys(entry, _SECRET_KEYS)
        sources = [source for source in SOURCES if source in entry]
        if len(sources) != 1:
            got = " and ".join(sources) or "none of them"
            self.refuse("secrets", f"tables with one of {', '.join(SOURCES)}", got)
        source = sources[0]
        if not isinstance(entry[source], str):
            self.refuse("secrets", f"tables whose {source} is a text", kind(entry[source]))
        return SecretEntry(self._source(source, entry[source], scheme), self._until(entry))

    def _source(self, source: SourceKind, text: str, scheme: Scheme) -> SecretSource:
        where = SecretSource(source, Secret(text))
        if source == "value":  # what stands elsewhere is looked at where it is read
            where = SecretSource(source, usable_secret(text, where, scheme, self._place))
        return where

    def _until(self, entry: Mapping[str, Any]) -> datetime | None:
        until = entry.get("until")
        if until is None:
            return None
        # Without an offset it would be another moment on each machine.
        if not isinstance(until, datetime) or until.tzinfo is None:
            got = until.isoformat() if isinstance(until, datetime) else kind(until)
            expected = "a date and time with an offset, as in 2026-12-01T00:00:00Z"
            self.refuse("secrets", f"tables whose until is {expected}", got)
        return until

    def _scheme(self) -> Scheme:
        value = self._raw.get("scheme", "sellfern")
        if isinstance(value, dict):
            return self._described(value)
        if not isinstance(value, str) or value not in _SCHEMES:
            hint = nearest(value, _SCHEMES) if isinstance(value, str) else ""
            got = shown(value) if isinstance(value, str) else kind(value)
            names = ", ".join(_SCHEMES)
            self.refuse("scheme", f"one of {names}, or a table that describes an HMAC", got + hint)
        return _SCHEMES[value]

    def _described(self, table: dict[str, Any]) -> Scheme:
        try:
            return scheme_from_table(table)
        except ValueError as exc:
            self.refuse("scheme", "a table that describes an HMAC", str(exc))

    def _weight(self) -> float | None:
        value = self._raw.get("weight")
        if value is None:
            return None
        # To Python a flag is a number.
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not MIN_WEIGHT <= value <= MAX_WEIGHT:
            self.refuse("weight", f"a number from {MIN_WEIGHT} to {MAX_WEIGHT:g}", shown(value))
        return float(value)

    def _whole_number(self, key: str, least: int) -> int | None:
        value = self._raw.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(key, f"a whole number from {least}", shown(value))
        return value

    def _rate(self) -> Rate | None:
        value, burst = self._raw.get("rate"), self._whole_number("burst", 1)
        if value is None:
            if burst is not None:
                self.refuse("burst", 'a rate beside it, such as rate = "5/s"', shown(burst))
            return None
        if not isinstance(value, str):
            self.refuse("rate", RATE_EXPECTED, kind(value))
        try:
            return Rate.parse(value, burst or 1)
        except ValueError:
            self.refuse("rate", RATE_EXPECTED, shown(value))

    def _settings(self) -> Mapping[str, object]:
        value = self._raw.get("settings", {})
        if not isinstance(value, dict):
            self.refuse("settings", "a table", kind(value))
        if not value:
            # One for all: most of ten thousand endpoints have none.
            return NO_SETTINGS
        return MappingProxyType({key: _setting(each) for key, each in value.items()})


def _setting(value: object) -> object:
    """A value of the settings; a table that only says where a secret stands is that."""
    if isinstance(value, list):
        return [_setting(each) for each in value]
    if not isinstance(value, dict):
        return value
    for source in ("env", "file"):
        if value.keys() == {source} and isinstance(value[source], str):
            return SecretSource(source, Secret(value[source]))
    return {key: _setting(each) for key, each in value.items()}
