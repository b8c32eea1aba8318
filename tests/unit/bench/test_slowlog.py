"""Facts about the longest calls, as Redis's slow log has them."""

from typing import Any

from tests.bench.slowlog import Slowlog


class Redis:
    """Has noted these calls."""

    def slowlog_get(self, number: int) -> list[dict[str, Any]]:
        calls = {
            b"EVALSHA abc 0 1": 4_000,
            b"EVALSHA abc 0 2": 6_000,
            b"EVALSHA def 0": 9_000,
            b"HGETALL sellfern:dead": 20_000,
        }
        return [{"command": words, "duration": taken} for words, taken in calls.items()][:number]


def test_the_calls_of_one_script_are_known_by_its_digest() -> None:
    assert Slowlog(Redis()).of_script("abc") == [0.004, 0.006]


def test_the_longest_script_is_told_from_other_commands() -> None:
    slowlog = Slowlog(Redis())
    assert slowlog.longest(is_script=True) == (0.009, "EVALSHA def")
    assert slowlog.longest(is_script=False) == (0.02, "HGETALL sellfern:dead")
