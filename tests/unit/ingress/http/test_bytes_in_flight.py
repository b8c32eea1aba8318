"""Facts about the bytes in flight: who holds how many, and who ends where there are too many."""

import pytest

from ingress.http.bytes_in_flight import SMALL_BYTES, STALLED_SECONDS, BytesInFlight, Holding
from shared.observe import metrics

LARGE = 10 * SMALL_BYTES


class Senders:
    """Senders that take down which of them have to end.

    Args:
        in_flight: what they share.
    """

    def __init__(self, in_flight: BytesInFlight) -> None:
        self.in_flight = in_flight
        self.ended: list[str] = []

    def sender(self, name: str) -> Holding:
        """One of them."""
        senders = self

        class Named:
            def give_up(self) -> None:
                senders.ended.append(name)

        return Holding(self.in_flight, Named())

    def body(self, name: str, size: int, now: float, announced: int | None = LARGE) -> Holding:
        """One of whose body so much has come at once."""
        holding = self.sender(name)
        holding.take(size)
        holding.wait(self.in_flight.bodies, now, announced)
        return holding

    def head(self, name: str, size: int, now: float) -> Holding:
        """One of whose head so much has come at once."""
        holding = self.sender(name)
        holding.take(size)
        holding.wait(self.in_flight.heads, now)
        return holding


@pytest.fixture
def senders() -> Senders:
    return Senders(BytesInFlight(2000, heads=100))


def test_what_was_taken_is_held_until_it_is_given_back(senders: Senders) -> None:
    one, other = senders.sender("one"), senders.sender("other")
    one.take(30)
    other.take(12)
    assert metrics.REGISTRY.get_sample_value("sellfern_ingress_bytes_in_flight") == 42
    one.keep(20)
    one.keep(25)
    assert (senders.in_flight.held, one.size) == (32, 20)
    one.keep(0)
    other.keep(0)
    assert metrics.REGISTRY.get_sample_value("sellfern_ingress_bytes_in_flight") == 0


def test_the_oldest_of_the_unfinished_heads_ends_for_the_others(senders: Senders) -> None:
    first = senders.head("first", 40, 0.0)
    senders.head("second", 40, 1.0)
    first.take(20)
    first.wait(senders.in_flight.heads, 2.0)
    assert senders.ended == []
    senders.head("third", 1, 3.0)
    assert senders.ended == ["first"]
    assert (senders.in_flight.heads.held, senders.in_flight.held) == (41, 41)


def test_a_complete_one_ends_for_nobody(senders: Senders) -> None:
    senders.body("complete", 900, 0.0).go_on()
    senders.head("complete too", 90, 0.0).go_on()
    senders.body("one", 900, 10.0)
    senders.head("other", 90, 10.0)
    assert senders.ended == []


def test_bodies_that_are_read_share_half(senders: Senders) -> None:
    senders.body("slow", 400, 0.0)
    senders.body("fast", 600, 0.2)
    assert senders.ended == []
    senders.body("new", 1, 0.2)
    assert senders.ended == ["slow"]
    assert senders.in_flight.bodies.held == 601


def test_a_body_that_has_stalled_ends_first_however_fast_it_was(senders: Senders) -> None:
    slow = senders.body("slow", 200, 0.0)
    senders.body("stalled", 700, 9.0)
    slow.take(100)
    slow.wait(senders.in_flight.bodies, 9.0 + STALLED_SECONDS)
    assert senders.ended == []
    senders.body("new", 1, 9.0 + STALLED_SECONDS)
    assert senders.ended == ["stalled"]


@pytest.mark.parametrize("announced", [LARGE, None])
def test_a_small_body_ends_last_even_when_it_has_stalled(
    senders: Senders, announced: int | None
) -> None:
    senders.body("small", 300, 0.0, announced=SMALL_BYTES)
    senders.body("large", 700, 9.9, announced=announced)
    senders.body("new", 1, 10.0)
    assert senders.ended == ["large"]


def test_what_is_announced_ends_nobody(senders: Senders) -> None:
    for number in range(100):
        senders.body(f"{number}", 1, 0.0, announced=10**6)
    assert senders.ended == []


def test_where_many_come_one_choice_is_for_many(senders: Senders) -> None:
    """Choosing takes longer the more there are: it is not done for each read."""
    for number in range(1001):
        senders.body(f"{number}", 1, number / 1000)
    assert len(senders.ended) > 50
    assert senders.ended[0] == "0"
