"""How long Redis was busy with single calls, by its own slow log."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self

from shared.queue import scripts

_LONGEST: Final = 1_000_000
_BY_DIGEST: Final = "EVALSHA"


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as Redis has noted it.

    Attributes:
        name: of the script; of a command with its first word.
        is_script: whether it was one of the queue's scripts.
        seconds: for which Redis served nobody else.
    """

    name: str
    is_script: bool
    seconds: float


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

    def end(self) -> list[Call]:
        """All calls until now; no more are noted."""
        self.redis.config_set("slowlog-log-slower-than", -1)
        return list(map(_read, self.redis.slowlog_get(_LONGEST)))


def longest(calls: list[Call], *, is_script: bool) -> Call:
    """The longest call of a script, or of anything else."""
    found = [call for call in calls if call.is_script == is_script]
    return max(found, key=lambda call: call.seconds, default=Call("nothing", is_script, 0.0))


def _read(entry: dict[str, Any]) -> Call:
    command, *words = entry["command"].decode(errors="replace").split(" ")
    first = words[0] if words else ""
    script = _scripts().get(first) if command.upper() == _BY_DIGEST else None
    return Call(script or f"{command} {first}", script is not None, entry["duration"] / 1e6)


@cache
def _scripts() -> dict[str, str]:
    """The queue's scripts by the digests that Redis names them by."""
    return {
        scripts.load(name, allow_oom=allow_oom).digest: name
        for name in _names()
        for allow_oom in (True, False)
    }


def _names() -> Iterator[str]:
    for path in files(scripts).iterdir():
        name, ending, _ = path.name.partition(".lua")
        if ending:
            yield name
