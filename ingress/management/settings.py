"""The settings of the commands that ask Sellfern's management API."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from ingress.management.exchange import Persistence
from shared.errors import SettingsError
from shared.files.plain_text import UNWRAPPED, split_wrapping
from shared.program.listening import read_address
from shared.settings.config import CommonSettings
from shared.settings.reader import NOTHING, Reader, Settings
from shared.settings.secret import Secret

API_URL: Final = "https://api.sellfern.com"
"""Where the management API is."""

STATE_FOLDER: Final = ".sellfern"
"""What the folder of the journal is called, beside the endpoints file."""

# Printable, without what would have to be quoted in a header.
_KEY: Final = re.compile(r"[!#-\[\]-~]{8,256}")
_BASE: Final = "https://host[:port][/path]"
_LOCAL: Final = " (http:// only for a host of this machine or this network)"


@dataclass(frozen=True, slots=True)
class ManagementSettings(Settings):
    """What the commands need to be told.

    Attributes:
        common: what both programs need.
        api_url: of Sellfern's API, without a slash at its end (``SELLFERN_API_URL``).
        public_url: what comes before ``/webhooks/{endpoint}`` in the URLs of this ingress, as
            Sellfern reaches it; None if it isn't told (``INGRESS_PUBLIC_URL``).
        admin_url: of the admin site of the ingress (``INGRESS_ADMIN_HOST``, ``…_PORT``); None if
            only the ingress knows its port.
        journal: the file of the requests whose outcome isn't known (``SELLFERN_STATE_DIR``).
        persistence: how long to go on asking (``SELLFERN_DEADLINE``, ``SELLFERN_TIMEOUT``).
    """

    common: CommonSettings
    api_url: str
    public_url: str | None
    admin_url: str | None
    journal: Path
    persistence: Persistence

    @classmethod
    def from_reader(cls, reader: Reader) -> Self:
        """Read them in its block."""
        common = CommonSettings.from_reader(reader)
        folder = reader.text("SELLFERN_STATE_DIR", str(common.endpoints_file.parent / STATE_FOLDER))
        return cls(
            common=common,
            api_url=_url(reader, "SELLFERN_API_URL", API_URL),
            public_url=_url(reader, "INGRESS_PUBLIC_URL", "") or None,
            # The command mostly runs where an ingress does, with its environment.
            admin_url=read_address(reader, "INGRESS_ADMIN", 9101).url,
            journal=Path(folder) / "journal.json",
            persistence=Persistence(
                deadline=reader.duration("SELLFERN_DEADLINE", "60s", minimum="100ms", maximum="1h"),
                timeout=reader.duration("SELLFERN_TIMEOUT", "15s", minimum="10ms", maximum="10m"),
            ),
        )


def read_all(reader: Reader) -> None:
    """Read all settings of the commands in the reader's block, even those that few ask for."""
    ManagementSettings.from_reader(reader)
    reader.secret("SELLFERN_API_KEY", "")
    reader.text("SELLFERN_ORGANIZATION", "")


def api_key(environ: Mapping[str, str]) -> Secret:
    """The API key, from ``SELLFERN_API_KEY`` or from the file ``SELLFERN_API_KEY_FILE``.

    Raises:
        SettingsError: there is none, or both, or it can't be one. No message holds it.
    """
    reader = Reader(environ)
    if not (key := reader.secret("SELLFERN_API_KEY", "")):
        expected = "an API key of the organization, here or in the file SELLFERN_API_KEY_FILE"
        raise SettingsError("SELLFERN_API_KEY", expected, NOTHING)
    if not _KEY.fullmatch(key.reveal()):
        name = reader.name_of("SELLFERN_API_KEY")
        raise SettingsError(name, "8 to 256 printable characters, no spaces", "something else")
    return key


def base_url(setting: str, text: str) -> str:
    """A URL that paths can be put behind.

    Raises:
        SettingsError: it is none, or a secret would cross a network in the clear.
    """
    before, inside, after = split_wrapping(text)
    if inside and (before or after):
        base_url(setting, inside)  # so nothing in it is secret
        raise SettingsError(setting, UNWRAPPED, repr(text)[:80])
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise SettingsError(setting, _BASE, "something else") from None
    if parts.username is not None or parts.query or parts.fragment or not parts.hostname:
        raise SettingsError(setting, _BASE, "something else")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise SettingsError(setting, _BASE, "something else")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_near(parts)):
        raise SettingsError(setting, _BASE + _LOCAL, f"{parts.scheme}://{parts.hostname}")
    return text.rstrip("/")


def _is_near(parts: SplitResult) -> bool:
    """Whether a host is this machine's, or by a name or address that only a private network has."""
    host = parts.hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_loopback or address.is_private


def _url(reader: Reader, name: str, default: str) -> str:
    return reader.parsed(name, default, lambda text: base_url(name, text), _BASE)
