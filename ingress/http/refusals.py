"""What the ingress refuses, in the log and in the metrics."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Final

from ingress.http.answers import Refusal
from shared.observe import metrics
from shared.observe.logs import get_logger
from shared.observe.tally import Count

LINES_A_SECOND: Final = 10
"""Refusals of one kind that are logged in one second; nobody is to fill the disk."""

_SHOWN_LENGTH: Final = 64
_log = get_logger()


def counter(outcome: str) -> Count:
    """The counter of the requests that ended so."""
    return metrics.INGRESS_REQUESTS.labels(outcome)


class Refusals:
    """Counts every refusal and logs some of each second.

    What clients do wrong and what goes wrong here have a budget each, so that a flood of the one
    doesn't hide the other.

    Args:
        clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._theirs = _Budget(clock)
        self._ours = _Budget(clock)

    def note(
        self,
        refusal: Refusal,
        request_id: str,
        *,
        endpoint: str | None = None,
        details: Callable[[], Mapping[str, object]] = dict,
        **more: object,
    ) -> None:
        """Take one refusal down.

        Args:
            refusal: why it was refused.
            request_id: as in the answer.
            endpoint: the last part of the URL, as the client wrote it.
            details: gives further fields that take a while to tell; asked for only where the
                refusal is logged.
            more: further fields; nothing of a body, a header or a secret.
        """
        counter(refusal.code).inc()
        is_ours = refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        suppressed = (self._ours if is_ours else self._theirs).spend()
        if suppressed is None:
            return
        if suppressed:
            more["suppressed"] = suppressed
        if endpoint is not None:
            more["endpoint"] = endpoint[:_SHOWN_LENGTH]
        _log.warning(
            "delivery_refused",
            status=int(refusal.status),
            code=refusal.code,
            request_id=request_id,
            **more,
            **details(),
        )


class _Budget:
    """So many lines a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._spent = 0
        self._suppressed = 0

    def spend(self) -> int | None:
        """How many lines were suppressed before this one; None where this one is, too."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._spent = second, 0
        self._spent += 1
        if self._spent > LINES_A_SECOND:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
