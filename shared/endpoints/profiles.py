"""What the endpoints of each organization say about it together."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shared.endpoints.endpoint import DEFAULT_WEIGHT, NO_SETTINGS, OrganizationProfile
from shared.endpoints.place import Place, shown
from shared.endpoints.secret_source import foreign_secret
from shared.endpoints.table import EndpointDraft
from shared.settings.config import Secret


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
        self._join("weight", draft.weight, draft, place)
        self._join("concurrency", draft.concurrency, draft, place)
        self._join("max_bytes", draft.max_bytes, draft, place)
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
                settings=self._joined_settings(organization),
            )
            for organization, said in self._said.items()
        }

    def _joined_settings(self, organization: str) -> Mapping[str, object]:
        settings = self._settings.get(organization)
        return MappingProxyType(settings) if settings else NO_SETTINGS

    def _join(self, key: str, value: object, draft: EndpointDraft, place: Place) -> None:
        said = self._said.setdefault(draft.organization_id, {})
        if value is None:
            return
        first = said.setdefault(key, value)
        if first != value:
            same = f"{first!r} as in another endpoint of organization {draft.organization_id}"
            raise place.wrong(key, same, repr(value))

    def _join_secrets(self, draft: EndpointDraft, place: Place) -> None:
        """The secret is what tells organizations apart."""
        for entry in draft.secrets:
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
