"""The endpoints: which organization and which secrets stand behind each URL."""

import contextlib
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Never

from shared.config import Secret
from shared.display import truncate
from shared.errors import SettingsError
from shared.keys import ORGANIZATION_PATTERN
from shared.sellfern import identifier, signature
from shared.toml_lines import TableLines

ENDPOINT_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What an endpoint's id may look like: the last part of its URL."""

MIN_WEIGHT: Final = 0.01
MAX_WEIGHT: Final = 100.0
DEFAULT_WEIGHT: Final = 1.0

MAX_SECRETS: Final = 16
"""How many secrets one endpoint may have: each costs a pass over every body that is refused."""

FINGERPRINT_LENGTH: Final = 12
"""Characters of a secret's fingerprint: too few to find a guessed secret by."""

ReadSecretFile = Callable[[Path], str]
"""Reads a file that holds a secret; raises OSError or UnicodeDecodeError where it can't."""

_KEYS: Final = ("id", "organization_id", "secrets", "scheme", "weight", "concurrency", "settings")
_SECRET_KEYS: Final = ("value", "env", "file", "until")
_SCHEMES: Final = {
    "sellfern": signature.SELLFERN,
    "standard-webhooks": signature.STANDARD_WEBHOOKS,
    "timestamped": signature.TIMESTAMPED,
}


@dataclass(frozen=True, slots=True)
class EndpointSecret:
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
        """What tells it from others without telling it."""
        return sha256(self.value.reveal().encode()).hexdigest()[:FINGERPRINT_LENGTH]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL that Sellfern delivers to.

    Attributes:
        id: the last part of its URL.
        organization_id: the one organization whose events it takes.
        secrets: at least one; a delivery that any active one verifies is genuine.
        scheme: how the vendor signs.
        weight: the organization's share under contention, 0.01 to 100.
        concurrency: how many of the organization's handlers may run at once; None: the default.
        settings: what this endpoint adds to its organization's settings.
    """

    id: str
    organization_id: str
    secrets: tuple[EndpointSecret, ...]
    scheme: signature.Scheme
    weight: float
    concurrency: int | None
    settings: Mapping[str, object]

    def active(self, now: float) -> list[EndpointSecret]:
        """The secrets that verify at ``now``, seconds since the epoch; perhaps none."""
        return [secret for secret in self.secrets if secret.is_active(now)]

    def active_secrets(self, now: float) -> list[bytes]:
        """The same, as bytes."""
        return [secret.value.reveal().encode() for secret in self.active(now)]


@dataclass(frozen=True, slots=True)
class OrganizationProfile:
    """What the endpoints of one organization say about it together.

    Attributes:
        id: the organization.
        weight: its share under contention, 0.01 to 100.
        concurrency: how many of its handlers may run at once; None: the default.
        settings: handed to its handlers; read-only.
    """

    id: str
    weight: float
    concurrency: int | None
    settings: Mapping[str, object]


class Endpoints(Mapping[str, Endpoint]):
    """All endpoints by their id, and the organizations behind them; never changes."""

    def __init__(
        self, endpoints: Mapping[str, Endpoint], organizations: Mapping[str, OrganizationProfile]
    ) -> None:
        self._endpoints = dict(endpoints)
        self._organizations = MappingProxyType(dict(organizations))

    def organizations(self) -> Mapping[str, OrganizationProfile]:
        """The organizations by their id."""
        return self._organizations

    def __getitem__(self, endpoint_id: str) -> Endpoint:
        return self._endpoints[endpoint_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._endpoints)

    def __len__(self) -> int:
        return len(self._endpoints)


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text; the usual `ReadSecretFile`."""
    return path.read_text(encoding="utf-8")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint such as ``"; did you mean 'secrets'?"``, or nothing where no name is near."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse_endpoints(
    text: str,
    *,
    path: Path,
    environ: Mapping[str, str],
    read_secret_file: ReadSecretFile = read_text,
) -> Endpoints:
    """Read the endpoints file.

    Args:
        text: its contents, TOML.
        path: where it is, for messages; secret files are relative to its folder.
        environ: where ``{ env = "…" }`` secrets are.
        read_secret_file: reads ``{ file = "…" }`` secrets.

    Raises:
        SettingsError: something in it is wrong. The message names file and line and holds
            no part of any secret.
    """
    return _Parser(text, path, environ, read_secret_file).endpoints()


class _Parser:
    """One reading of one text."""

    def __init__(
        self, text: str, path: Path, environ: Mapping[str, str], read_secret_file: ReadSecretFile
    ) -> None:
        self._text = text
        self._path = path
        self._environ = environ
        self._read_secret_file = read_secret_file
        self._lines = TableLines(text, "endpoint")

    def endpoints(self) -> Endpoints:
        endpoints: dict[str, Endpoint] = {}
        merge = _Merge()
        for index, raw in enumerate(self._tables()):
            table = _Table(self, raw, index)
            endpoint = table.endpoint()
            if endpoint.id in endpoints:
                table.refuse("id", "an id that no other endpoint has", repr(endpoint.id))
            endpoints[endpoint.id] = endpoint
            merge.add(endpoint, table)
        organizations = merge.profiles()
        return Endpoints(
            {
                endpoint.id: _agreed(endpoint, organizations[endpoint.organization_id])
                for endpoint in endpoints.values()
            },
            organizations,
        )

    def _tables(self) -> list[Any]:
        try:
            document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as exc:
            raise self._syntax_error(exc) from None
        except RecursionError:
            raise self.error(None, "valid TOML", "brackets nested too deeply") from None
        except ValueError:  # Python's own, which says no line
            raise self.error(None, "valid TOML", "a number of too many digits") from None
        for key in document:
            if key != "endpoint":
                hint = nearest(key, ["endpoint"])
                line = self._lines.top(key)
                self.refuse(line, "only [[endpoint]] tables", f"the key {_shown(key)}{hint}")
        tables = document.get("endpoint")
        if not isinstance(tables, list) or not tables:
            self.refuse(None, "at least one [[endpoint]] table", "none")
        return tables

    def _syntax_error(self, exc: tomllib.TOMLDecodeError) -> SettingsError:
        # tomllib says what and where, and quotes at most a single character.
        what, _, place = str(exc).rpartition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = int(found.group(1)) if found else self._text.count("\n") + 1
        return self.error(line, "valid TOML", f"a mistake: {what or 'unreadable'}")

    def error(self, line: int | None, expected: str, got: str) -> SettingsError:
        return SettingsError(f"ENDPOINTS_FILE ({self._path})", expected, got, line=line)

    def refuse(self, line: int | None, expected: str, got: str) -> Never:
        raise self.error(line, expected, got)

    def table_line(self, index: int) -> int | None:
        return self._lines.table(index)

    def key_line(self, index: int, key: str) -> int | None:
        return self._lines.key(index, key)

    def secret_from_environment(self, name: str) -> str | None:
        return self._environ.get(name)

    def secret_from_file(self, name: str) -> str:
        return self._read_secret_file(self._path.parent / name)


class _Table:
    """One ``[[endpoint]]`` table, taken apart key by key."""

    def __init__(self, parser: _Parser, raw: object, index: int) -> None:
        self._parser = parser
        self._index = index
        if not isinstance(raw, dict):
            parser.refuse(parser.table_line(index), "an [[endpoint]] table", _kind(raw))
        self._raw: dict[str, Any] = raw

    def refuse(self, key: str, expected: str, got: str) -> Never:
        """Raise what `wrong` gives."""
        raise self.wrong(key, expected, got)

    def wrong(self, key: str, expected: str, got: str) -> SettingsError:
        """The error that names the key and its line."""
        line = self._parser.key_line(self._index, key)
        return self._parser.error(line, f"{key} to be {expected}", got)

    def endpoint(self) -> Endpoint:
        self._refuse_unknown_keys(self._raw, _KEYS)
        scheme = self._scheme()
        return Endpoint(
            id=self._name("id", ENDPOINT_PATTERN),
            organization_id=self._organization(),
            secrets=self._secrets(scheme),
            scheme=scheme,
            weight=self._weight(),
            concurrency=self._concurrency(),
            settings=self._settings(),
        )

    def says(self, key: str) -> bool:
        """Whether the key is written in the file, rather than left to its default."""
        return key in self._raw

    def _refuse_unknown_keys(self, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                line = self._parser.key_line(self._index, key)
                got = f"{_shown(key)}{nearest(key, known)}"
                self._parser.refuse(line, f"one of the keys {', '.join(known)}", got)

    def _organization(self) -> str:
        """Its id, which Sellfern's own pages show as text and as a whole number."""
        value = self._raw.get("organization_id")
        with contextlib.suppress(ValueError):  # refused below
            value = identifier.text(value)
        return self._checked("organization_id", value, ORGANIZATION_PATTERN)

    def _name(self, key: str, pattern: re.Pattern[str]) -> str:
        return self._checked(key, self._raw.get(key), pattern)

    def _checked(self, key: str, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            got = _shown(value) if isinstance(value, str) else _kind(value)
            self.refuse(key, "1 to 64 characters of A-Z a-z 0-9 _ -", got)
        return value

    def _secrets(self, scheme: signature.Scheme) -> tuple[EndpointSecret, ...]:
        value = self._raw.get("secrets")
        if not isinstance(value, list):
            self.refuse("secrets", "a list of secrets", _kind(value))
        if not 1 <= len(value) <= MAX_SECRETS:
            self.refuse("secrets", f"a list of 1 to {MAX_SECRETS} secrets", f"{len(value)}")
        secrets = tuple(self._secret(entry) for entry in value)
        for secret in secrets:
            self._refuse_useless(secret, scheme)
        return secrets

    def _refuse_useless(self, secret: EndpointSecret, scheme: signature.Scheme) -> None:
        """A secret that the scheme finds no key in would silently verify nothing."""
        if not signature.has_key(scheme, secret.value.reveal().encode()):
            expected = f"{scheme.secret_encoding} secrets, as the scheme {scheme.name} needs them"
            self.refuse("secrets", expected, "one without a key in it")

    def _secret(self, entry: object) -> EndpointSecret:
        if isinstance(entry, str):
            return EndpointSecret(self._filled(entry, "an empty text"))
        if not isinstance(entry, dict):
            self.refuse("secrets", "texts or tables", _kind(entry))
        self._refuse_unknown_keys(entry, _SECRET_KEYS)
        sources = [key for key in ("value", "env", "file") if key in entry]
        if len(sources) != 1:
            got = " and ".join(sources) or "none of them"
            self.refuse("secrets", "tables with one of value, env, file", got)
        source = sources[0]
        if not isinstance(entry[source], str):
            self.refuse("secrets", f"tables whose {source} is a text", _kind(entry[source]))
        return EndpointSecret(self._from(source, entry[source]), self._until(entry))

    def _from(self, source: str, text: str) -> Secret:
        if source == "value":
            return self._filled(text, "an empty text")
        if source == "env":
            found = (self._parser.secret_from_environment(text) or "").rstrip("\r\n")
            return self._filled(found, f"nothing in the environment variable {_shown(text)}")
        return self._filled(self._from_file(text), f"nothing in the file {_shown(text)}")

    def _from_file(self, name: str) -> str:
        try:
            return self._parser.secret_from_file(name).rstrip("\r\n")
        except UnicodeDecodeError:
            why = "not UTF-8"
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or "not a path"
        raise self.wrong("secrets", "a secret in a readable file", f"{_shown(name)} ({why})")

    def _filled(self, text: str, otherwise: str) -> Secret:
        if not text:
            self.refuse("secrets", "a secret that isn't empty", otherwise)
        return Secret(text)

    def _until(self, entry: Mapping[str, Any]) -> datetime | None:
        until = entry.get("until")
        if until is None:
            return None
        if not isinstance(until, datetime) or until.tzinfo is None:
            got = until.isoformat() if isinstance(until, datetime) else _kind(until)
            expected = "a date and time with an offset, as in 2026-12-01T00:00:00Z"
            self.refuse("secrets", f"tables whose until is {expected}", got)
        return until

    def _scheme(self) -> signature.Scheme:
        value = self._raw.get("scheme", "sellfern")
        if isinstance(value, dict):
            return self._described(value)
        if not isinstance(value, str) or value not in _SCHEMES:
            hint = nearest(value, _SCHEMES) if isinstance(value, str) else ""
            got = _shown(value) if isinstance(value, str) else _kind(value)
            names = ", ".join(_SCHEMES)
            self.refuse("scheme", f"one of {names}, or a table that describes an HMAC", got + hint)
        return _SCHEMES[value]

    def _described(self, table: dict[str, Any]) -> signature.Scheme:
        try:
            return signature.scheme_from_table(table)
        except ValueError as exc:
            self.refuse("scheme", "a table that describes an HMAC", str(exc))

    def _weight(self) -> float:
        value = self._raw.get("weight", DEFAULT_WEIGHT)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not MIN_WEIGHT <= value <= MAX_WEIGHT:
            self.refuse("weight", f"a number from {MIN_WEIGHT} to {MAX_WEIGHT:g}", _shown(value))
        return float(value)

    def _concurrency(self) -> int | None:
        value = self._raw.get("concurrency")
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.refuse("concurrency", "a whole number from 1", _shown(value))
        return value

    def _settings(self) -> Mapping[str, object]:
        value = self._raw.get("settings", {})
        if not isinstance(value, dict):
            self.refuse("settings", "a table", _kind(value))
        return MappingProxyType(value)


class _Merge:
    """Joins what several endpoints say about one organization."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Any]] = {}
        self._owners: dict[Secret, str] = {}
        self._settings: dict[str, dict[str, object]] = {}

    def add(self, endpoint: Endpoint, table: _Table) -> None:
        """Take one endpoint in; raises SettingsError where it contradicts an earlier one."""
        said = self._said.setdefault(endpoint.organization_id, {})
        for key in ("weight", "concurrency"):
            if table.says(key):
                self._join(said, key, getattr(endpoint, key), endpoint, table)
        for secret in endpoint.secrets:
            # The secret is what tells organizations apart.
            owner = self._owners.setdefault(secret.value, endpoint.organization_id)
            if owner != endpoint.organization_id:
                other = f"one of organization {owner} as well"
                table.refuse("secrets", "secrets of this organization alone", other)
        settings = self._settings.setdefault(endpoint.organization_id, {})
        for key, value in endpoint.settings.items():
            # Settings may hold anything, so their values stay out of the message.
            if settings.setdefault(key, value) != value:
                same = f"the same {_shown(key)} as in the other endpoints of its organization"
                table.refuse("settings", same, "another value")

    def _join(
        self, said: dict[str, Any], key: str, value: object, endpoint: Endpoint, table: _Table
    ) -> None:
        first = said.setdefault(key, value)
        if first != value:
            same = f"{first!r} as in another endpoint of organization {endpoint.organization_id}"
            table.refuse(key, same, repr(value))

    def profiles(self) -> dict[str, OrganizationProfile]:
        return {
            organization: OrganizationProfile(
                id=organization,
                weight=said.get("weight", DEFAULT_WEIGHT),
                concurrency=said.get("concurrency"),
                settings=MappingProxyType(self._settings[organization]),
            )
            for organization, said in self._said.items()
        }


def _agreed(endpoint: Endpoint, organization: OrganizationProfile) -> Endpoint:
    return replace(endpoint, weight=organization.weight, concurrency=organization.concurrency)


def _shown(value: object) -> str:
    if isinstance(value, str) and "whsec_" in value:
        return "something that looks like a secret"
    return truncate(repr(value), 60)


def _kind(value: object) -> str:
    """Name a value without showing it: it may be a secret in the wrong place."""
    names = {type(None): "nothing", str: "a text", dict: "a table", list: "a list", bool: "a flag"}
    return names.get(type(value), f"a {type(value).__name__}")
