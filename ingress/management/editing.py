"""Edits the endpoints file; its comments, its order and its mode stay."""

import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.items import AoT, InlineTable, Table
from tomlkit.toml_document import TOMLDocument

from shared.endpoints.endpoint import Endpoint, Endpoints, EndpointSecret
from shared.endpoints.place import TableLines
from shared.endpoints.union import parse_endpoints
from shared.errors import SettingsError
from shared.files.atomic import replace_file
from shared.files.plain_text import decoded, no_text
from shared.settings.secret import Secret

_SETTING: Final = "ENDPOINTS_FILE"
_READ_BY_OTHERS: Final = 0o077

Selects = Callable[[EndpointSecret], bool]
"""Says whether a secret is meant."""


class EndpointsEditor:
    """The endpoints file as it is, and as it is to be.

    Every change is written at once, and only if the ingress can read the result. Doing one again
    that is done already changes nothing, so that an interrupted command can be run again.

    Args:
        path: the file; it needn't be there yet.
        environ: where ``{ env = "…" }`` secrets are.

    Raises:
        SettingsError: the file is there but wrong, or can't be written.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ
        self._check_writable()
        self._open()

    @property
    def endpoints(self) -> Endpoints:
        """What the file says now.

        Raises:
            SettingsError: it is wrong.
        """
        return read_endpoints(self.path, self._environ)

    @property
    def is_read_by_others(self) -> bool:
        """Whether others on this machine can read the file, and so its secrets."""
        return self.path.exists() and bool(self.path.stat().st_mode & _READ_BY_OTHERS)

    def add(self, endpoint_id: str, organization_id: str, secret: Secret) -> None:
        """Add an endpoint at the end; if it is there, let it accept the secret.

        Raises:
            SettingsError: the file can't be written, or would be wrong.
        """
        draft = self._open()
        if endpoint_id in draft.endpoints:
            self.accept(endpoint_id, secret)
            return
        row = {"id": endpoint_id, "organization_id": organization_id, "secrets": [secret.reveal()]}
        array: Any = draft.document.get("endpoint")
        if array is None or isinstance(array, AoT):
            self._write(draft, draft.text + _gap(draft.text) + _block(row))
        else:
            array.append(row)
            self._write(draft)

    def accept(self, endpoint_id: str, secret: Secret) -> None:
        """Put a secret before the others, unless it is there.

        Raises:
            SettingsError: the file can't be written, or would be wrong.
        """
        draft = self._open()
        endpoint, table = draft.find(endpoint_id)
        if any(known.value == secret and known.until is None for known in endpoint.secrets):
            return
        # From the end, since a deletion moves what is behind it.
        secrets = table["secrets"]
        for number, known in reversed(list(enumerate(endpoint.secrets))):
            if known.value == secret:  # it had an end
                del secrets[number]
        secrets.insert(0, _entry(secrets, secret))
        if not isinstance(secrets, AoT) and "\n" not in secrets.as_string():
            table["secrets"] = _spaced(secrets)
        self._write(draft)

    def retire(self, endpoint_id: str, meant: Selects, until: datetime) -> None:
        """Let secrets end at a moment; those that end already keep theirs.

        Raises:
            SettingsError: the file can't be written, or would be wrong.
        """
        draft = self._open()
        endpoint, table = draft.find(endpoint_id)
        for number, secret in enumerate(endpoint.secrets):
            if meant(secret) and secret.until is None:
                _end(table["secrets"], number, until)
        self._write(draft)

    def drop(self, endpoint_id: str, meant: Selects) -> None:
        """Take secrets out of the file; the endpoint has to keep one.

        Raises:
            SettingsError: the file can't be written, or would be wrong.
        """
        draft = self._open()
        endpoint, table = draft.find(endpoint_id)
        for number, secret in reversed(list(enumerate(endpoint.secrets))):
            if meant(secret):
                del table["secrets"][number]
        self._write(draft)

    def remove(self, endpoint_id: str) -> None:
        """Take an endpoint out of the file, unless it is gone or the only one.

        Raises:
            SettingsError: the file can't be written, or would be wrong.
        """
        draft = self._open()
        # A file without an endpoint is refused by both programs, so the last one stays.
        if endpoint_id not in draft.endpoints or len(draft.endpoints) == 1:
            return
        tables: Any = draft.document["endpoint"]
        place = _place_of(tables, endpoint_id)
        if isinstance(tables, AoT):
            self._write(draft, _without_table(draft.text, place))
        else:
            del tables[place]
            self._write(draft)

    def _open(self) -> "_Draft":
        """The file as it is at this moment: somebody may edit it while a command waits."""
        text = _read(self.path)
        endpoints = _parsed(text, self.path, self._environ)
        return _Draft(self.path, text, tomlkit.parse(text), endpoints)

    def _write(self, draft: "_Draft", text: str | None = None) -> None:
        """Write what the file is to say, after reading it as the ingress will."""
        text = tomlkit.dumps(draft.document) if text is None else text
        if text == draft.text:
            return
        # Before it is there: a running ingress would go on with the old one, but no new one would
        # start.
        parse_endpoints(text, path=self.path, environ=self._environ)
        try:
            replace_file(self.path, text.encode())
        except OSError as exc:
            raise self._unwritable(exc.strerror) from exc

    def _check_writable(self) -> None:
        """Refuse early: before Sellfern has been asked for anything."""
        # Where a link points to, since that is what is replaced.
        target = self.path.resolve()
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise self._unwritable("its folder can't be written to")

    def _unwritable(self, why: str | None) -> SettingsError:
        return SettingsError(_SETTING, "a file that can be replaced", f"{self.path} ({why})")


def read_endpoints(path: Path, environ: Mapping[str, str]) -> Endpoints:
    """What an endpoints file says; nothing where there is no file yet, or only comments in it.

    Raises:
        SettingsError: it is there but can't be read, or it is wrong.
    """
    return _parsed(_read(path), path, environ)


@dataclass(frozen=True, slots=True)
class _Draft:
    """One reading of the file, and what is to become of it."""

    path: Path
    text: str
    document: TOMLDocument
    endpoints: Endpoints

    def find(self, endpoint_id: str) -> tuple[Endpoint, Any]:
        """An endpoint and its table."""
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None:
            raise SettingsError("ENDPOINT", f"one that is in {self.path}", repr(endpoint_id))
        tables: Any = self.document["endpoint"]
        return endpoint, tables[_place_of(tables, endpoint_id)]


def named(wanted: Collection[str]) -> Selects:
    """Whether a secret is one of those with these fingerprints."""
    return lambda secret: secret.fingerprint in wanted


def expired(now: float) -> Selects:
    """Whether a secret's end has passed."""
    return lambda secret: not secret.is_active(now)


def fingerprints(endpoint: Endpoint) -> list[str]:
    """The fingerprints of an endpoint's secrets."""
    return [secret.fingerprint for secret in endpoint.secrets]


def _parsed(text: str, path: Path, environ: Mapping[str, str]) -> Endpoints:
    if _says_nothing(text):
        return Endpoints({}, {})
    return parse_endpoints(text, path=path, environ=environ)


def _says_nothing(text: str) -> bool:
    try:
        return not tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False


def _read(path: Path) -> str:
    try:
        return decoded(path.read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        why = no_text(exc) if isinstance(exc, UnicodeDecodeError) else exc.strerror
        raise SettingsError(_SETTING, "a readable file", f"{path} ({why})") from exc


def _block(row: Mapping[str, object]) -> str:
    """The text of an ``[[endpoint]]`` table."""
    table = tomlkit.table()
    table.update(row)
    tables = tomlkit.aot()
    tables.append(table)
    return tomlkit.dumps({"endpoint": tables})


def _gap(text: str) -> str:
    """What makes an empty line before the next table."""
    if not text:
        return ""
    return "\n" if text.endswith("\n") else "\n\n"


def _place_of(tables: Any, endpoint_id: str) -> int:
    return next(number for number, table in enumerate(tables) if table["id"] == endpoint_id)


def _without_table(text: str, place: int) -> str:
    """A text without an ``[[endpoint]]`` table and the comment right above it."""
    lines = text.split("\n")
    headers = TableLines(text, "endpoint")
    first, after = headers.table(place), headers.table(place + 1)
    kept = lines[: _above(lines, first)] if first else lines
    if after:
        return "\n".join(kept + lines[_above(lines, after) :])
    return "\n".join(kept).rstrip() + "\n"


def _above(lines: list[str], header: int) -> int:
    """The place of a header's line, or of the first of the comments right above it."""
    place = header - 1
    while place and lines[place - 1].lstrip().startswith("#"):
        place -= 1
    return place


def _spaced(secrets: Any) -> Any:
    """The same array on one line, with a space after each comma."""
    array = tomlkit.array()
    array.extend(secrets)
    return array


def _entry(secrets: Any, secret: Secret) -> Any:
    if not isinstance(secrets, AoT):
        return secret.reveal()
    table = tomlkit.table()
    table["value"] = secret.reveal()
    return table


def _end(secrets: Any, number: int, until: datetime) -> None:
    entry = secrets[number]
    if isinstance(entry, InlineTable | Table):
        entry["until"] = until
        return
    table = tomlkit.inline_table()
    table["value"] = str(entry)
    table["until"] = until
    secrets[number] = table
