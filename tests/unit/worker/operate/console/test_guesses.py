"""Facts about how guesses of the token are slowed."""

import pytest

from worker.operate.console.guesses import AT_ONCE, SECONDS, Guesses, network


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_few_are_free_then_one_in_ten_seconds() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    taken = 0
    for _ in range(6000):  # ten minutes of guessing ten times a second
        if not guesses.wait("here"):
            guesses.wrong("here")
            taken += 1
        clock.now += 0.1
    assert taken <= AT_ONCE + 600 / SECONDS


def test_who_is_told_to_wait_is_told_how_long_and_others_are_not() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    assert [guesses.wrong("here") for _ in range(AT_ONCE)] == [False] * (AT_ONCE - 1) + [True]
    assert guesses.wait("here") == SECONDS
    assert guesses.wait("there") == 0
    clock.now += SECONDS
    assert guesses.wait("here") == 0


def test_no_number_of_places_takes_more_memory() -> None:
    guesses = Guesses(Clock())
    for number in range(10_000):
        guesses.wrong(f"place {number}")
    assert len(guesses._even_at) == 4096
    assert guesses.wrong("place 9999") is False


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        (None, ""),
        ("nonsense", ""),
    ],
)
def test_a_place_is_an_address_or_its_network(address: str | None, expected: str) -> None:
    assert network(address) == expected
