"""Facts about what is added to redis-py's connections."""

from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import DataError

from shared.redis.wire import mended

KINDS = [Connection, SSLConnection, UnixDomainSocketConnection]
Command = tuple[Any, ...]


def connection(kind: type[Any]) -> Any:
    """A connection that isn't opened."""
    return kind(path="/nowhere") if kind is UnixDomainSocketConnection else kind()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "command",
    [
        ("GET", "name"),
        ("SET", b"\x00\xff\r\n", "\u00e9\U0001f600"),
        ("EVALSHA", "0" * 40, 0, 1, -5, 1.5, 2**62),
        ("CONFIG GET", "maxmemory"),
        ("SET", "large", b"x" * 100_000),
        ("SET", "view", memoryview(b"x")),
        ("PING",),
    ],
)
def test_a_command_is_the_same_bytes(kind: type[Any], command: Command) -> None:
    ours = b"".join(connection(mended(kind)).pack_command(*command))
    assert ours == b"".join(connection(kind).pack_command(*command))


@pytest.mark.parametrize("wrong", [None, True, [], object()])
def test_what_is_no_argument_is_refused_as_redis_py_does(wrong: object) -> None:
    with pytest.raises(DataError, match="Invalid input of type"):
        connection(mended(Connection)).pack_command("SET", "name", wrong)


def test_a_kind_of_connection_keeps_its_kind_and_its_name() -> None:
    for kind in KINDS:
        fast = mended(kind)
        assert issubclass(fast, kind)
        assert fast.__name__ == kind.__name__
        assert mended(kind) is fast
