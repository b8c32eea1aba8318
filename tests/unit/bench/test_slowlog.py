"""Facts about the longest calls, as Redis's slow log has them."""

from typing import Any

from shared.queue import scripts
from tests.bench.slowlog import Call, Slowlog, longest

CLAIM = scripts.load("claim").digest
ENQUEUE = scripts.load("enqueue", allow_oom=False).digest


class Redis:
    """Has noted these calls."""

    def __init__(self) -> None:
        self.settings = dict[str, int]()

    def config_set(self, name: str, value: int) -> None:
        self.settings[name] = value

    def slowlog_reset(self) -> None:
        """Nothing was noted before."""

    def slowlog_get(self, number: int) -> list[dict[str, Any]]:
        calls = {
            f"EVALSHA {CLAIM} 0 1": 4_000,
            f"EVALSHA {ENQUEUE} 0": 9_000,
            f"EVALSHA {'0' * 40} 0": 1_000,
            "HGETALL sellfern:dead": 20_000,
            "TIME": 1,
        }
        return [{"command": words.encode(), "duration": taken} for words, taken in calls.items()][
            :number
        ]


def test_scripts_are_known_by_their_names_and_other_calls_by_their_first_word() -> None:
    assert Slowlog.begin(Redis()).end() == [
        Call("claim", is_script=True, seconds=0.004),
        Call("enqueue", is_script=True, seconds=0.009),
        Call(f"EVALSHA {'0' * 40}", is_script=False, seconds=0.001),
        Call("HGETALL sellfern:dead", is_script=False, seconds=0.02),
        Call("TIME ", is_script=False, seconds=1e-6),
    ]


def test_reading_the_log_is_no_part_of_it() -> None:
    redis = Redis()
    slowlog = Slowlog.begin(redis, microseconds=200)
    assert redis.settings["slowlog-log-slower-than"] == 200
    slowlog.end()
    assert redis.settings["slowlog-log-slower-than"] == -1


def test_the_longest_script_is_told_from_other_commands() -> None:
    calls = Slowlog(Redis()).end()
    assert longest(calls, is_script=True).name == "enqueue"
    assert longest(calls, is_script=False).name == "HGETALL sellfern:dead"
    assert longest([], is_script=True) == Call("nothing", is_script=True, seconds=0.0)
