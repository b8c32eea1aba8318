"""How long to measure: in full, or quickly to see that everything works."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """The size of each measurement.

    Attributes:
        rounds: how often everything is measured, one contender after the other in each.
        jobs: that the fastest contender drains.
        peer_processes: with how many processes the peers are measured.
        handler_seconds: that workers with slow handlers are busy.
        load_seconds: under load, for each ingress.
        probe_seconds: of events at a low rate, for each latency.
        waiting: events of another organization that wait meanwhile.
        counted: events whose bytes in Redis are measured.
    """

    rounds: int
    jobs: int
    peer_processes: tuple[int, ...]
    handler_seconds: float
    load_seconds: float
    probe_seconds: float
    waiting: int
    counted: int


FULL: Final = Effort(
    rounds=3,
    jobs=20_000,
    peer_processes=(1, 2, 4),
    handler_seconds=4.0,
    load_seconds=4.0,
    probe_seconds=10.0,
    waiting=100_000,
    counted=50_000,
)
QUICK: Final = Effort(
    rounds=1,
    jobs=5_000,
    peer_processes=(1,),
    handler_seconds=1.5,
    load_seconds=1.0,
    probe_seconds=2.0,
    waiting=20_000,
    counted=10_000,
)
