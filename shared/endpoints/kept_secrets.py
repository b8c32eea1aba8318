"""The secrets of all endpoints; one that can't be had concerns its endpoint only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time

import msgspec

from shared.endpoints.endpoint import EndpointSecret, MissingSecret
from shared.endpoints.place import Place
from shared.endpoints.secret_memory import SecretMemory
from shared.endpoints.secret_source import SecretFetcher, SecretSource, cause_of, foreign_secret
from shared.endpoints.table import EndpointDraft, Placed, SecretEntry
from shared.errors import SettingsError
from shared.files.pace import Pace
from shared.settings.config import Secret

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
        attempts: list[_Attempt] = []
        for draft, place in tables:
            attempts += [self._attempt(draft, place, entry) for entry in draft.secrets]
            pace.breathe()
        self._settle_all(attempts, pace)
        known: dict[str, Known] = {}
        start = 0
        for draft, _ in tables:
            end = start + len(draft.secrets)
            known[draft.id] = _known(attempts[start:end])
            start = end
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

    def _settle_all(self, attempts: "list[_Attempt]", pace: Pace) -> None:
        """Give each secret to one organization; whoever had it already goes first."""
        now = self.clock()
        owners: dict[Secret, str] = {}
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
