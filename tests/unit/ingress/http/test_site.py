"""Facts about what the log and the metrics say of refusals."""

from collections.abc import Iterator
from http import HTTPStatus

import pytest

from ingress.http.answers import BYTES_IN_FLIGHT, NOT_FOUND, UNKNOWN_ENDPOINT, Refusal
from ingress.http.site import LINES_A_SECOND, Refusals
from shared.observe import metrics
from tests.log_support import CapturedLog, captured_log


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    with captured_log() as captured:
        yield captured


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock) -> Refusals:
    return Refusals(clock)


def count(code: str) -> float:
    labels = {"outcome": code}
    return metrics.REGISTRY.get_sample_value("sellfern_ingress_requests_total", labels) or 0.0


def test_a_refusal_is_one_warning_with_its_code_and_request(
    refusals: Refusals, log: CapturedLog
) -> None:
    refusals.note(UNKNOWN_ENDPOINT, "req-1", endpoint="acme", client="192.0.2.1")
    (line,) = log.lines
    del line["timestamp"]
    assert line == {
        "level": "warning",
        "event": "delivery_refused",
        "status": 404,
        "code": "unknown_endpoint",
        "request_id": "req-1",
        "endpoint": "acme",
        "client": "192.0.2.1",
    }


def test_the_endpoints_id_is_cut_since_a_client_wrote_it(
    refusals: Refusals, log: CapturedLog
) -> None:
    refusals.note(UNKNOWN_ENDPOINT, "req-1", endpoint="x" * 8000)
    assert log.lines[0]["endpoint"] == "x" * 64


def test_more_than_so_many_lines_a_second_are_counted_and_told_later(
    refusals: Refusals, clock: Clock, log: CapturedLog
) -> None:
    for number in range(LINES_A_SECOND + 7):
        refusals.note(NOT_FOUND, f"req-{number}")
    assert len(log.lines) == LINES_A_SECOND
    assert all("suppressed" not in line for line in log.lines)
    clock.now += 1
    refusals.note(NOT_FOUND, "later")
    refusals.note(NOT_FOUND, "last")
    told, after = log.lines[-2:]
    assert (told["request_id"], told["suppressed"]) == ("later", 7)
    assert "suppressed" not in after


def test_a_suppressed_refusal_is_in_the_metrics_all_the_same(
    refusals: Refusals, log: CapturedLog
) -> None:
    odd = Refusal(HTTPStatus.NOT_FOUND, "counted_here", "for this test")
    for _ in range(LINES_A_SECOND * 3):
        refusals.note(odd, "req-1")
    assert count("counted_here") == LINES_A_SECOND * 3


def test_a_flood_of_the_clients_faults_hides_none_of_our_own(
    refusals: Refusals, log: CapturedLog
) -> None:
    for _ in range(LINES_A_SECOND * 3):
        refusals.note(NOT_FOUND, "theirs")
    refusals.note(BYTES_IN_FLIGHT, "ours")
    assert log.lines[-1]["request_id"] == "ours"
    assert "suppressed" not in log.lines[-1]
