"""Facts about reading, from a busy worker's log, when the probed events were handled."""

import json
from datetime import UTC, datetime

from tests.bench import events
from tests.bench.probe import KIND, HandledEvents

STARTED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def line(event: str, event_id: str, at: int = 0) -> bytes:
    """A line as of so many milliseconds after the start."""
    stamp = f"2026-01-01T00:00:00.{at:03}Z"
    fields = {"timestamp": stamp, "event": event, "event_id": event_id}
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


PROBED = [events.event_id(number, KIND) for number in range(3)]
LOG = (
    line("worker_started", "")
    + line("event_handled", PROBED[0], 1)
    + line("event_handled", events.event_id(7), 2)
    + line("event_handled", PROBED[1], 7)
    + line("event_handled", PROBED[2], 7)
)
TIMES = {PROBED[0]: 2, PROBED[1]: 8, PROBED[2]: 8}
"""The ends of the milliseconds that the lines tell."""


def milliseconds(handled: HandledEvents) -> dict[str, int]:
    return {name: round((at - STARTED) * 1000) for name, at in handled.times.items()}


def test_the_probed_events_are_found_among_the_others() -> None:
    handled = HandledEvents()
    handled.data_received(LOG)
    assert milliseconds(handled) == TIMES
    assert handled.started.is_set()


def test_a_line_counts_once_all_of_it_has_come_however_it_is_split() -> None:
    for split in range(1, len(LOG)):
        handled = HandledEvents()
        handled.data_received(LOG[:split])
        assert len(handled.times) == sum(LOG[:split].count(b'%b"}\n' % p.encode()) for p in PROBED)
        handled.data_received(LOG[split:])
        assert milliseconds(handled) == TIMES
        assert handled.started.is_set()
