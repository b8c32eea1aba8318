"""Where a secret stands, and how it is got from there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from shared.endpoints.endpoint import MissingCause
from shared.endpoints.place import Place, shown
from shared.errors import SecretDefect, SettingsError
from shared.files.patient import FileHangs
from shared.files.plain_text import no_text
from shared.sellfern.scheme import SELLFERN, STANDARD_WEBHOOKS, TIMESTAMPED, Scheme
from shared.sellfern.signature import has_key
from shared.settings.secret import Secret, secret_in

SourceKind = Literal["value", "env", "file"]
"""In the endpoints file itself, in a variable of the environment, in a file of its own."""

SOURCES: Final[tuple[SourceKind, ...]] = ("value", "env", "file")
"""All of them."""

VENDORS: Final = (SELLFERN, TIMESTAMPED)
"""The schemes whose secrets are Sellfern's own, and the keys themselves."""

_PUBLIC: Final = STANDARD_WEBHOOKS.public_secret_prefix

ReadSecretFile = Callable[[Path], str]
"""Reads a file that holds a secret; raises OSError or ValueError where it can't."""


class SecretSource(msgspec.Struct, frozen=True, gc=False):
    """Where a secret stands.

    Attributes:
        kind: which of the sources.
        text: the secret itself, or the name of the variable or the file. Masked either way: a
            secret may have been written where a name belongs.
    """

    kind: SourceKind
    text: Secret

    @property
    def where(self) -> str:
        """The same for a message."""
        noun = {"value": "", "env": "environment variable", "file": "file"}[self.kind]
        return noun and f" in the {noun} {shown(self.text.reveal())}"


@dataclass(frozen=True, slots=True)
class SecretFetcher:
    """Gets secrets from where they stand.

    Attributes:
        environ: where ``{ env = "…" }`` secrets are.
        read_file: reads ``{ file = "…" }`` secrets.
    """

    environ: Mapping[str, str]
    read_file: ReadSecretFile

    def fetch(self, source: SecretSource, scheme: Scheme, place: Place) -> Secret:
        """Get a secret of an endpoint.

        Args:
            source: where it stands.
            scheme: that it is for.
            place: of the table that names it; secret files are relative to its file's folder.

        Raises:
            SettingsError: it can't be had, or is none. The message names the line of the table.
        """
        if source.kind == "value":  # judged already, with its table
            return source.text
        text = self._text(source, place, "secrets")
        return usable_secret(text, source, scheme, place)

    def fetch_setting(self, source: SecretSource, place: Place) -> Secret:
        """Get a secret of an organization's settings; any text may be one.

        Raises:
            SettingsError: as `fetch`.
        """
        try:
            return Secret(secret_in(self._text(source, place, "settings"), is_free=True))
        except SecretDefect as exc:
            raise place.wrong("settings", exc.expected, exc.got + source.where) from None

    def _text(self, source: SecretSource, place: Place, key: str) -> str:
        text = source.text.reveal()
        # What isn't set is no secret, as an empty one is none: both are told alike, behind this.
        if source.kind == "env":
            return self.environ.get(text, "")
        kind: type[SettingsError] = SettingsError
        try:
            return self.read_file(place.path.parent / text)
        except UnicodeDecodeError as exc:
            why = no_text(exc)
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or "not a path"
            kind = HangingSecret if isinstance(exc, FileHangs) else UnreadableSecret
        got = f"{shown(text)} ({why})"
        raise place.wrong(key, "a secret in a readable file", got, kind)


class UnreadableSecret(SettingsError):
    """The file of a secret can't be read."""


class HangingSecret(UnreadableSecret):
    """The file system doesn't answer about the file of a secret."""


def cause_of(error: SettingsError | None) -> MissingCause:
    """Why a secret can't be had."""
    if isinstance(error, HangingSecret):
        return "hangs"
    return "unreadable" if isinstance(error, UnreadableSecret) else "unusable"


def usable_secret(text: str, source: SecretSource, scheme: Scheme, place: Place) -> Secret:
    """The secret in a text, if the scheme can verify by it.

    Raises:
        SettingsError: the text is no secret, or the scheme finds no key in it. The message names
            the line, and shows nothing of the text.
    """
    try:
        secret = secret_in(text, is_free=is_free(scheme))
    except SecretDefect as exc:
        got = exc.got + source.where
        raise place.wrong("secrets", exc.expected, got) from None
    # Whoever knows a public key could sign, if it were the key of an HMAC.
    if secret.startswith(_PUBLIC) and not scheme.public_secret_prefix:
        expected = f"a secret, as the scheme {scheme.name} needs it"
        raise place.wrong("secrets", expected, f"a public key ({_PUBLIC}…){source.where}")
    if not has_key(scheme, secret.encode()):
        expected = f"{scheme.secret_encoding} secrets, as the scheme {scheme.name} needs them"
        raise place.wrong("secrets", expected, f"one without a key in it{source.where}")
    return Secret(secret)


def is_free(scheme: Scheme) -> bool:
    """Whether a scheme takes any text as a secret, as GitHub's does where people make one up."""
    is_raw = scheme.secret_encoding == "raw"  # noqa: S105  # how it is written; it is none
    return is_raw and scheme not in VENDORS


def foreign_secret(owner: str, place: Place) -> SettingsError:
    """The error about a secret that another organization has as well."""
    expected = "secrets of this organization alone"
    return place.wrong("secrets", expected, f"one of organization {owner} as well")
