"""Facts about what a worker says of its load."""

import json

from shared.observe import metrics
from worker.engine.leases import with_load


def test_a_description_is_kept_and_the_load_put_beside_it() -> None:
    said = json.loads(with_load(b'{"host": "h", "version": "1"}', running=3, started=12.3456))
    assert said["host"] == "h"
    assert said["version"] == "1"
    assert said["running"] == 3
    assert said["started"] == 12.346


def test_what_was_handled_is_told_by_how_long_it_took() -> None:
    before = json.loads(with_load(b"{}", running=0, started=0))
    for seconds in (0.0001, 0.0001, 1e9):
        metrics.ACCEPTED_TO_HANDLED.observe(seconds)
    after = json.loads(with_load(b"{}", running=0, started=0))
    assert after["handled"] == before["handled"] + 3
    fastest = next(iter(after["latency"]))
    assert after["latency"][fastest] == before["latency"][fastest] + 2
    assert after["latency"]["+Inf"] == before["latency"]["+Inf"] + 1


def test_what_is_said_is_small() -> None:
    assert len(with_load(b"{}", running=0, started=0)) < 600
