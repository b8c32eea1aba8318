"""What secrets last were, for a while after they can't be had any more."""

from collections.abc import Hashable
from math import inf
from typing import Final

import msgspec

from shared.settings.config import Secret

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
