"""How long to measure: in full, or quickly to see that everything works."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Effort:
    """The size of each measurement.

    Attributes:
        rounds: how often everything is measured, one contender after the other in each.
        few_rounds: the same of what takes long.
        jobs: that the fastest contender drains.
        peer_processes: with how many processes the peers are measured.
        handler_seconds: that workers with slow handlers are busy.
        load_seconds: under load, for each ingress.
        probe_seconds: of events at a low rate, for each latency.
        waiting: events of another organization that wait meanwhile.
        counted: events whose bytes in Redis are measured.
        round_trips: to Redis, in milliseconds, at which is measured what a distance costs.
        bytes_of_bodies: that are sent in each measurement of large bodies.
        organizations: of which each has an event waiting.
        endured: events of the long run after which memory is looked at.
    """

    rounds: int
    few_rounds: int
    jobs: int
    peer_processes: tuple[int, ...]
    handler_seconds: float
    load_seconds: float
    probe_seconds: float
    waiting: int
    counted: int
    round_trips: tuple[float, ...]
    bytes_of_bodies: int
    organizations: int
    endured: int


FULL: Final = Effort(
    rounds=3,
    few_rounds=2,
    jobs=20_000,
    peer_processes=(1, 2, 4),
    handler_seconds=4.0,
    load_seconds=4.0,
    probe_seconds=10.0,
    waiting=100_000,
    counted=50_000,
    round_trips=(0.0, 1.0, 5.0, 20.0),
    bytes_of_bodies=200_000_000,
    organizations=100_000,
    endured=500_000,
)
QUICK: Final = Effort(
    rounds=1,
    few_rounds=1,
    jobs=5_000,
    peer_processes=(1,),
    handler_seconds=1.5,
    load_seconds=1.0,
    probe_seconds=3.0,
    waiting=20_000,
    counted=10_000,
    round_trips=(0.0, 5.0),
    bytes_of_bodies=50_000_000,
    organizations=10_000,
    endured=20_000,
)
