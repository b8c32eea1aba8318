"""Secrets in ``[endpoint.settings]``, which handlers need; their texts are got where they stand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from types import MappingProxyType
from typing import NoReturn

from msgspec import structs

from shared.endpoints.endpoint import MissingSecret, OrganizationProfile
from shared.endpoints.place import Place
from shared.endpoints.secret_memory import SecretMemory
from shared.endpoints.secret_source import SecretFetcher, SecretSource, cause_of
from shared.endpoints.table import Placed
from shared.errors import SettingsError
from shared.files.pace import Pace
from shared.settings.config import Secret

_Key = tuple[str, SecretSource]


class LostSecret(Secret):
    """A secret that can't be had; a handler that asks for it fails, and its event is tried again.

    Args:
        error: why it can't be had.
    """

    __slots__ = ("_error",)

    def __init__(self, error: SettingsError) -> None:
        super().__init__("")
        self._error = error

    def reveal(self) -> NoReturn:
        """Raise the SettingsError that says why it can't be had."""
        raise self._error.with_traceback(None)


@dataclass(frozen=True, slots=True)
class SettingSecrets:
    """Gets the secrets in the settings of all organizations, again and again.

    Attributes:
        fetcher: gets one.
        memory: of what they last were.
        clock: seconds since the epoch.
    """

    fetcher: SecretFetcher
    memory: SecretMemory
    clock: Callable[[], float] = time

    def fill(
        self, profiles: Mapping[str, OrganizationProfile], tables: Sequence[Placed], pace: Pace
    ) -> tuple[dict[str, OrganizationProfile], list[MissingSecret]]:
        """Put secrets where the settings say where they stand.

        Args:
            profiles: by the id of the organization.
            tables: what they were joined from.
            pace: of the work.

        Returns:
            The profiles, and what can't be had.
        """
        missing: list[MissingSecret] = []
        secrets: dict[_Key, Secret] = {}
        for draft, place in tables:
            for source in sources_in(draft.settings):
                key = (draft.organization_id, source)
                if key not in secrets:
                    secrets[key] = self._secret(key, place, missing)
            pace.breathe()
        self.memory.end_round()
        if not secrets:
            return dict(profiles), missing
        return {name: _filled(profile, secrets) for name, profile in profiles.items()}, missing

    def _secret(self, key: _Key, place: Place, missing: list[MissingSecret]) -> Secret:
        organization, source = key
        try:
            secret = self.fetcher.fetch_setting(source, place)
        except SettingsError as exc:
            recalled = self.memory.recall(key, self.clock())
            secret, kept_until = recalled or (LostSecret(exc), None)
            whose = f"organization {organization}"
            missing.append(MissingSecret(whose, cause_of(exc), exc, kept_until))
        else:
            self.memory.note(key, secret)
        return secret


def sources_in(value: object) -> list[SecretSource]:
    """Where the secrets of some settings stand."""
    if isinstance(value, SecretSource):
        return [value]
    if isinstance(value, Mapping):
        return [source for each in value.values() for source in sources_in(each)]
    if isinstance(value, list):
        return [source for each in value for source in sources_in(each)]
    return []


def _filled(profile: OrganizationProfile, secrets: Mapping[_Key, Secret]) -> OrganizationProfile:
    def fill(value: object) -> object:
        if isinstance(value, SecretSource):
            return secrets[profile.id, value]
        if isinstance(value, Mapping):
            return {key: fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [fill(each) for each in value]
        return value

    if not profile.settings:
        return profile
    settings = {key: fill(value) for key, value in profile.settings.items()}
    return structs.replace(profile, settings=MappingProxyType(settings))
