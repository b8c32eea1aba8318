"""How long Redis was busy with single calls, by its own slow log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

_LONGEST: Final = 1_000_000
_SCRIPTS: Final = ("EVAL", "EVALSHA", "FCALL")


@dataclass(frozen=True, slots=True)
class Slowlog:
    """The slow log of a Redis from one moment on.

    Args:
        redis: a blocking client.
    """

    redis: Any

    @classmethod
    def begin(cls, redis: Any, *, microseconds: int = 0) -> Self:
        """Have calls noted that take so long."""
        redis.config_set("slowlog-max-len", _LONGEST)
        redis.config_set("slowlog-log-slower-than", microseconds)
        redis.slowlog_reset()
        return cls(redis)

    def of_script(self, digest: str) -> list[float]:
        """The seconds of each call of a script, by the digest that Redis names it by."""
        return [seconds for words, seconds in self._calls() if digest in words[1:2]]

    def longest(self, *, is_script: bool) -> tuple[float, str]:
        """The seconds of the longest call of a script, or of anything else, and its first words."""
        found = [
            (seconds, " ".join(words[:2]))
            for words, seconds in self._calls()
            if (words[0].upper() in _SCRIPTS) == is_script
        ]
        return max(found, default=(0.0, "nothing"))

    def _calls(self) -> Iterator[tuple[list[str], float]]:
        for entry in self.redis.slowlog_get(_LONGEST):
            words = entry["command"].decode(errors="replace").split(" ")
            yield words, entry["duration"] / 1e6
