"""Where a secret stands, and how it is got from there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from shared.config import Secret
from shared.endpoint_place import Place, shown
from shared.errors import SettingsError
from shared.sellfern import signature

SourceKind = Literal["value", "env", "file"]
"""In the endpoints file itself, in a variable of the environment, in a file of its own."""

SOURCES: Final[tuple[SourceKind, ...]] = ("value", "env", "file")
"""All of them."""

ReadSecretFile = Callable[[Path], str]
"""Reads a file that holds a secret; raises OSError or ValueError where it can't."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret stands.

    Attributes:
        kind: which of the sources.
        text: the secret itself, or the name of the variable or the file. Masked either way: a
            secret may have been written where a name belongs.
    """

    kind: SourceKind
    text: Secret

    @property
    def nothing(self) -> str:
        """What is there where there is no secret."""
        name = shown(self.text.reveal())
        return {
            "value": "an empty text",
            "env": f"nothing in the environment variable {name}",
            "file": f"nothing in the file {name}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class SecretFetcher:
    """Gets secrets from where they stand.

    Attributes:
        environ: where ``{ env = "…" }`` secrets are.
        read_file: reads ``{ file = "…" }`` secrets.
    """

    environ: Mapping[str, str]
    read_file: ReadSecretFile

    def fetch(self, source: SecretSource, place: Place) -> Secret:
        """Get a secret.

        Args:
            source: where it stands.
            place: of the table that names it; secret files are relative to its file's folder.

        Raises:
            SettingsError: it can't be had, or is none. The message names the line of the table.
        """
        text = self._text(source, place).rstrip("\r\n")
        if not text:
            raise place.wrong("secrets", "a secret that isn't empty", source.nothing)
        return Secret(text)

    def _text(self, source: SecretSource, place: Place) -> str:
        text = source.text.reveal()
        if source.kind == "value":
            return text
        if source.kind == "env":
            return self.environ.get(text, "")
        try:
            return self.read_file(place.path.parent / text)
        except UnicodeDecodeError:
            why = "not UTF-8"
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or "not a path"
        got = f"{shown(text)} ({why})"
        raise place.wrong("secrets", "a secret in a readable file", got)


def check_key(secret: Secret, scheme: signature.Scheme, place: Place) -> None:
    """Refuse a secret that the scheme finds no key in: it would silently verify nothing.

    Raises:
        SettingsError: it is one.
    """
    if not signature.has_key(scheme, secret.reveal().encode()):
        expected = f"{scheme.secret_encoding} secrets, as the scheme {scheme.name} needs them"
        raise place.wrong("secrets", expected, "one without a key in it")


def foreign_secret(owner: str, place: Place) -> SettingsError:
    """The error about a secret that another organization has as well."""
    expected = "secrets of this organization alone"
    return place.wrong("secrets", expected, f"one of organization {owner} as well")
