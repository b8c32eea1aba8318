"""What a worker says of its load with each sign of life."""

from collections.abc import Iterator

import msgspec

from shared.observe import metrics


def with_load(description: bytes, *, running: int, started: float, stuck: int = 0) -> bytes:
    """The description with what changes from one sign of life to the next.

    How long events took is told as counts by upper bound, since counts of several workers can be
    added up, and percentiles can't.

    Args:
        description: a JSON object that stays the same.
        running: how many events the worker holds.
        started: when it began, seconds since the epoch.
        stuck: how many handlers go on in it though their events are settled.
    """
    latency = dict(_latency())
    return msgspec.json.encode(
        {
            **msgspec.json.decode(description, type=dict[str, object]),
            "started": round(started, 3),
            "running": running,
            "stuck": stuck,
            "handled": sum(latency.values()),
            "latency": latency,
        }
    )


def _latency() -> Iterator[tuple[str, int]]:
    """Events handled by the upper bound of the time that they took."""
    below: dict[str, float] = {}
    for family in metrics.ACCEPTED_TO_HANDLED.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bound = sample.labels["le"]
                below[bound] = below.get(bound, 0.0) + sample.value
    last = 0.0
    for bound in sorted(below, key=float):
        yield bound, round(below[bound] - last)
        last = below[bound]
