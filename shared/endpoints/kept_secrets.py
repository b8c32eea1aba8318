"""All secrets, got where they stand again and again; one that is lost is kept for a while.

One that can't be had concerns its endpoint, or the handlers that ask for it, only.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from math import inf
from time import time
from types import MappingProxyType
from typing import Final, NoReturn

import msgspec
from msgspec import structs

from shared.endpoints.endpoint import EndpointSecret, MissingSecret, OrganizationProfile
from shared.endpoints.place import Place
from shared.endpoints.secret_source import SecretFetcher, SecretSource, cause_of, foreign_secret
from shared.endpoints.table import EndpointDraft, Placed, SecretEntry
from shared.errors import SettingsError
from shared.files.background import Pace
from shared.settings.secret import Secret

KEPT_SECONDS: Final = 24 * 3600.0
"""How long a secret holds that can't be read any more. A mount that went away shouldn't refuse what
is genuine; but for ever would make a secret that nobody can revoke."""


class _Last(msgspec.Struct, frozen=True, gc=False):
    value: Secret
    lost_at: float | None = None


class SecretMemory:
    """Remembers secrets from one round of reading all of them to the next.

    A key has to say whose secret it is and where it stands: what an endpoint of one organization
    had must not verify for another one, and an entry that was removed from the file is gone.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, _Last] = {}
        self._now: dict[Hashable, _Last] = {}

    @property
    def deadline(self) -> float:
        """Seconds since the epoch at which the next lost secret is forgotten; infinite: none is."""
        lost = (last.lost_at for last in self._last.values() if last.lost_at is not None)
        return min(lost, default=inf) + KEPT_SECONDS

    def has(self, key: Hashable, value: Secret) -> bool:
        """Whether this was the secret in the last round."""
        last = self._last.get(key)
        return last is not None and last.value == value

    def note(self, key: Hashable, value: Secret) -> None:
        """Take note of a secret that could be had."""
        self._now[key] = _Last(value)

    def recall(self, key: Hashable, now: float) -> tuple[Secret, float] | None:
        """What a secret was that can't be had now.

        Args:
            key: which one.
            now: seconds since the epoch.

        Returns:
            It, and the moment until which it is remembered; None where nothing is.
        """
        last = self._last.get(key)
        if last is None:
            return None
        if last.lost_at is None:
            last = _Last(last.value, now)
        deadline = (last.lost_at or now) + KEPT_SECONDS
        if now >= deadline:
            return None
        self._now[key] = last
        return last.value, deadline

    def end_round(self) -> None:
        """Forget what was neither noted nor recalled in this round."""
        self._last, self._now = self._now, {}


_Key = tuple[str, str, SecretSource]


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is known of an endpoint's secrets.

    Attributes:
        secrets: those that verify.
        missing: those that can't be had.
    """

    secrets: tuple[EndpointSecret, ...] = ()
    missing: tuple[MissingSecret, ...] = ()


NONE_KNOWN = Known()
"""Of an endpoint whose secrets nobody asked for."""


@dataclass(frozen=True, slots=True)
class KeptSecrets:
    """Gets the secrets of all endpoints, again and again; what is lost is kept for a while.

    Attributes:
        fetcher: gets one.
        memory: of what they last were.
        clock: seconds since the epoch.
    """

    fetcher: SecretFetcher
    memory: SecretMemory
    clock: Callable[[], float] = time

    def of(self, tables: Sequence[Placed], pace: Pace) -> dict[str, Known]:
        """What is known of the secrets of each endpoint, by its id."""
        attempts: dict[str, list[_Attempt]] = {}
        for draft, place in tables:
            attempts[draft.id] = [self._attempt(draft, place, entry) for entry in draft.secrets]
            pace.breathe()
        self._settle_all(chain.from_iterable(attempts.values()), pace)
        known: dict[str, Known] = {}
        for endpoint_id, found in attempts.items():
            known[endpoint_id] = _known(found)
            pace.breathe()
        return known

    def _attempt(self, draft: EndpointDraft, place: Place, entry: SecretEntry) -> "_Attempt":
        key = (draft.id, draft.organization_id, entry.source)
        attempt = _Attempt(key, place, entry)
        try:
            attempt.value = self.fetcher.fetch(entry.source, draft.scheme, place)
        except SettingsError as exc:
            attempt.error = exc.with_traceback(None)  # whose frames hold the attempt
        return attempt

    def _settle_all(self, attempts: "Iterable[_Attempt]", pace: Pace) -> None:
        """Give each secret to one organization; whoever had it already goes first."""
        now = self.clock()
        owners: dict[Secret, str] = {}
        # Who had a secret goes first, then who may keep one, then who is new: nobody takes
        # another's by writing it into a table of his own.
        ranked: tuple[list[_Attempt], list[_Attempt], list[_Attempt]] = ([], [], [])
        for attempt in attempts:
            if attempt.value is None:
                ranked[1].append(attempt)
            else:
                is_new = not self.memory.has(attempt.key, attempt.value)
                ranked[2 if is_new else 0].append(attempt)
            pace.breathe()
        for rank in ranked:
            for attempt in rank:
                self._settle(attempt, owners, now)
                pace.breathe()
        self.memory.end_round()

    def _settle(self, attempt: "_Attempt", owners: dict[Secret, str], now: float) -> None:
        _, organization, _ = attempt.key
        if attempt.value is not None:
            owner = owners.setdefault(attempt.value, organization)
            if owner == organization:
                self.memory.note(attempt.key, attempt.value)
                return
            attempt.value, attempt.error = None, foreign_secret(owner, attempt.place)
        # What is kept verifies for nobody where another organization has it by now.
        recalled = self.memory.recall(attempt.key, now)
        if recalled and owners.setdefault(recalled[0], organization) == organization:
            attempt.value, attempt.kept_until = recalled


@dataclass(slots=True)
class _Attempt:
    """One try at one secret, and what came of it."""

    key: _Key
    place: Place
    entry: SecretEntry
    value: Secret | None = None
    error: SettingsError | None = None
    kept_until: float | None = None

    @property
    def until(self) -> datetime | None:
        """When the secret ends, be it by the file or because it is kept no longer."""
        if self.kept_until is None:
            return self.entry.until
        end = datetime.fromtimestamp(self.kept_until, UTC)
        return end if self.entry.until is None else min(end, self.entry.until)


def _known(attempts: Sequence[_Attempt]) -> Known:
    return Known(
        tuple(
            EndpointSecret(attempt.value, attempt.until)
            for attempt in attempts
            if attempt.value is not None
        ),
        tuple(
            MissingSecret(
                whose=f"endpoint {attempt.key[0]}",
                cause=cause_of(attempt.error),
                error=attempt.error,
                kept_until=attempt.kept_until,
                until=attempt.entry.until,
            )
            for attempt in attempts
            if attempt.error is not None
        ),
    )


_Whose = tuple[str, SecretSource]


class LostSecret(Secret):
    """A secret that can't be had; a handler that asks for it fails, and its event is tried again.

    Args:
        error: why it can't be had.
    """

    __slots__ = ("_error",)

    def __init__(self, error: SettingsError) -> None:
        self._text = ""
        self._error = error

    def reveal(self) -> NoReturn:
        """Raise the SettingsError that says why it can't be had."""
        raise self._error.with_traceback(None)

    # Nobody may sign with what isn't known, be it as text or as bytes.
    raw: NoReturn = property(reveal)  # type: ignore[assignment]


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
        secrets: dict[_Whose, Secret] = {}
        for draft, place in tables:
            for source in sources_in(draft.settings):
                key = (draft.organization_id, source)
                # Several endpoints of an organization may name the same one.
                if key not in secrets:
                    secrets[key] = self._secret(key, place, missing)
            pace.breathe()
        self.memory.end_round()
        # Nearly always: nothing is filled in, so nothing is copied.
        if not secrets:
            return dict(profiles), missing
        return {name: _filled(profile, secrets) for name, profile in profiles.items()}, missing

    def _secret(self, key: _Whose, place: Place, missing: list[MissingSecret]) -> Secret:
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


def _filled(profile: OrganizationProfile, secrets: Mapping[_Whose, Secret]) -> OrganizationProfile:
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
