"""How the simulator behaves, as it is told at its start."""

from dataclasses import dataclass, fields
from typing import Final

from deploy.sellfern.fault import Fault
from shared.errors import SettingsError

_SHARES: Final = ("duplicates", "disorder", "bad_signatures")
_COUNTS: Final = ("attempts", "concurrency", "kept", "most_pending")
_POSITIVE: Final = ("timeout", "backoff", "backoff_cap", "disorder_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """The knobs.

    Attributes:
        rate: events a second that happen by themselves; 0: only when asked.
        duplicates: the part of the events whose delivery is made once more.
        disorder: the part of the events that are held back, so that later ones overtake them.
        disorder_seconds: for how long at most.
        bad_signatures: the part of the events that a forged copy is sent beside.
        latency: seconds that each answer of the management API takes.
        faults: of the management API, to begin with.
        seed: of everything that is drawn.
        events: how many events there will be; None: no end.
        hide_secret: whether a new endpoint's secret is shown on the page only.
        same_url: whether one organization may register a URL twice.
        require_idempotency_key: whether a write without a key is refused.
        rate_limit: management requests a second for each API key; None: no limit.
        attempts: deliveries are given up after so many.
        timeout: seconds until an attempt fails.
        backoff: seconds; the longest delay after the first attempt, doubled with each.
        backoff_cap: seconds; no delay is longer.
        concurrency: attempts under way at once.
        most_pending: deliveries that may wait for their end; then events wait to happen.
        kept: ended deliveries, and management requests, that are remembered.
    """

    rate: float = 0.0
    duplicates: float = 0.0
    disorder: float = 0.0
    disorder_seconds: float = 1.0
    bad_signatures: float = 0.0
    latency: float = 0.0
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    events: int | None = None
    hide_secret: bool = False
    same_url: bool = False
    require_idempotency_key: bool = False
    rate_limit: int | None = None
    attempts: int = 5
    timeout: float = 10.0
    backoff: float = 1.0
    backoff_cap: float = 60.0
    concurrency: int = 32
    most_pending: int = 10_000
    kept: int = 1000

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            SettingsError: a knob is out of its range.
        """
        # In one place, since knobs come from a command line, a test and a request.
        for each in fields(self):
            value = getattr(self, each.name)
            if expected := _expected(each.name, value):
                raise SettingsError(each.name, expected, repr(value))


def _expected(name: str, value: object) -> str:
    """What was expected of a knob, or nothing if it is fine."""
    # A bool is an int in Python; a seed may be any number.
    if not isinstance(value, int | float) or isinstance(value, bool) or name == "seed":
        return ""
    if name in _SHARES:
        return "" if 0 <= value <= 1 else "a share from 0 to 1"
    if name in {*_COUNTS, "events", "rate_limit"}:
        return "" if value >= 1 else "a whole number of at least 1"
    if name in _POSITIVE:
        return "" if 0 < value < float("inf") else "more than 0"
    return "" if 0 <= value < float("inf") else "at least 0"
