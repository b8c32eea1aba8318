"""The endpoints of all tables together, and what those of one organization say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shared.endpoints.endpoint import (
    DEFAULT_WEIGHT,
    NO_SETTINGS,
    Endpoint,
    Endpoints,
    MissingSecret,
    OrganizationProfile,
)
from shared.endpoints.kept_secrets import NONE_KNOWN, KeptSecrets, Known, SecretMemory
from shared.endpoints.place import Place, shown
from shared.endpoints.secret_source import ReadSecretFile, SecretFetcher, foreign_secret
from shared.endpoints.table import EndpointDraft, Placed
from shared.endpoints.text import read_tables
from shared.files.background import Pace
from shared.files.plain_text import decoded
from shared.settings.secret import Secret


class ProfileUnion:
    """Joins endpoints, and refuses one that contradicts an earlier one."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._said: dict[str, dict[str, Any]] = {}
        self._owners: dict[Secret, str] = {}
        self._settings: dict[str, dict[str, object]] = {}

    def add(self, draft: EndpointDraft, place: Place) -> None:
        """Take one endpoint in.

        Args:
            draft: it.
            place: where it stands.

        Raises:
            SettingsError: it contradicts one that is in already.
        """
        if draft.id in self._ids:
            raise place.wrong("id", "an id that no other endpoint has", repr(draft.id))
        self._ids.add(draft.id)
        for key in ("weight", "concurrency", "max_bytes", "rate"):
            self._join(key, getattr(draft, key), draft, place)
        self._join_secrets(draft, place)
        self._join_settings(draft, place)

    def profiles(self) -> dict[str, OrganizationProfile]:
        """The organizations by their id."""
        return {
            organization: OrganizationProfile(
                id=organization,
                weight=said.get("weight", DEFAULT_WEIGHT),
                concurrency=said.get("concurrency"),
                max_bytes=said.get("max_bytes"),
                rate=said.get("rate"),
                settings=self._joined_settings(organization),
            )
            for organization, said in self._said.items()
        }

    def _joined_settings(self, organization: str) -> Mapping[str, object]:
        settings = self._settings.get(organization)
        return MappingProxyType(settings) if settings else NO_SETTINGS

    def _join(self, key: str, value: object, draft: EndpointDraft, place: Place) -> None:
        said = self._said.setdefault(draft.organization_id, {})
        # Not said here: what another endpoint says holds for the organization.
        if value is None:
            return
        first = said.setdefault(key, value)
        if first != value:
            same = f"{first!r} as in another endpoint of organization {draft.organization_id}"
            raise place.wrong(key, same, repr(value))

    def _join_secrets(self, draft: EndpointDraft, place: Place) -> None:
        """The secret is what tells organizations apart."""
        for entry in draft.secrets:
            # What stands elsewhere is compared where it is read.
            if entry.source.kind == "value":
                owner = self._owners.setdefault(entry.source.text, draft.organization_id)
                if owner != draft.organization_id:
                    raise foreign_secret(owner, place)

    def _join_settings(self, draft: EndpointDraft, place: Place) -> None:
        if not draft.settings:
            return
        settings = self._settings.setdefault(draft.organization_id, {})
        for key, value in draft.settings.items():
            if settings.setdefault(key, value) != value:
                # Settings may hold anything, so their values stay out of the message.
                same = f"the same {shown(key)} as in the other endpoints of its organization"
                raise place.wrong("settings", same, "another value")


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text; the usual `ReadSecretFile`."""
    return decoded(path.read_bytes())


def parse_endpoints(
    text: str,
    *,
    path: Path,
    environ: Mapping[str, str],
    read_secret_file: ReadSecretFile = read_text,
) -> Endpoints:
    """Read an endpoints file with all its secrets.

    Args:
        text: its contents, TOML.
        path: where it is, for messages; secret files are relative to its folder.
        environ: where ``{ env = "…" }`` secrets are.
        read_secret_file: reads ``{ file = "…" }`` secrets.

    Raises:
        SettingsError: something in it is wrong, or a secret can't be had. The message names file
            and line and holds no part of any secret.
    """
    # For a command, which has nothing else to do.
    pace = Pace(rest=0)
    tables = read_tables(text, path, pace=pace).placed
    profiles = ProfileUnion()
    for draft, place in tables:
        profiles.add(draft, place)
    secrets = KeptSecrets(SecretFetcher(environ, read_secret_file), SecretMemory())
    endpoints = joined(tables, profiles.profiles(), secrets.of(tables, pace), (), pace)
    for missing in endpoints.missing:
        raise missing.error
    return endpoints


def joined(
    tables: Sequence[Placed],
    profiles: Mapping[str, OrganizationProfile],
    known: Mapping[str, Known],
    missing: Sequence[MissingSecret],
    pace: Pace,
) -> Endpoints:
    """Put endpoints together from what was found out about them.

    Args:
        tables: all of them.
        profiles: of the organizations, by their id.
        known: the secrets of endpoints, by their id.
        missing: secrets that can't be had, in settings.
        pace: of the work.
    """
    endpoints: dict[str, Endpoint] = {}
    absent = list(missing)
    for draft, _ in tables:
        secrets = known.get(draft.id, NONE_KNOWN)
        endpoints[draft.id] = _endpoint(draft, secrets, profiles[draft.organization_id])
        absent += secrets.missing
        pace.breathe()
    return Endpoints(endpoints, profiles, absent)


def _endpoint(draft: EndpointDraft, known: Known, profile: OrganizationProfile) -> Endpoint:
    return Endpoint(
        id=draft.id,
        organization_id=draft.organization_id,
        secrets=known.secrets,
        scheme=draft.scheme,
        weight=profile.weight,
        concurrency=profile.concurrency,
        max_bytes=profile.max_bytes,
        settings=draft.settings,
        missing=known.missing,
    )
