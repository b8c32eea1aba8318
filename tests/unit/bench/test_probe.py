"""Facts about reading, from a busy worker's log, when the probed events were handled."""

import json

from tests.bench import events
from tests.bench.probe import KIND, HandledEvents


def line(event: str, event_id: str) -> bytes:
    return (
        json.dumps({"event": event, "event_id": event_id}, separators=(",", ":")).encode() + b"\n"
    )


PROBED = [events.event_id(number, KIND) for number in range(3)]
LOG = (
    line("worker_started", "")
    + line("event_handled", PROBED[0])
    + line("event_handled", events.event_id(7))
    + line("event_handled", PROBED[1])
    + line("event_handled", PROBED[2])
)


def test_the_probed_events_are_found_among_the_others() -> None:
    handled = HandledEvents()
    handled.data_received(LOG)
    assert list(handled.times) == PROBED
    assert handled.started.is_set()


def test_a_line_counts_once_all_of_it_has_come_however_it_is_split() -> None:
    for split in range(1, len(LOG)):
        handled = HandledEvents()
        handled.data_received(LOG[:split])
        assert len(handled.times) == sum(LOG[:split].count(b'%b"}\n' % p.encode()) for p in PROBED)
        handled.data_received(LOG[split:])
        assert list(handled.times) == PROBED
        assert handled.started.is_set()
