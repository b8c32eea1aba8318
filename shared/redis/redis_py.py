"""What redis-py's connections lack here, added to whichever kind of connection a pool has."""

from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

_subclasses: dict[type[AbstractConnection], type[AbstractConnection]] = {}


class _Mended:
    """Overrides of a connection's methods."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as bytes; what hiredis doesn't take, redis-py packs or refuses.

        redis-py 5 uses hiredis for this on its blocking connections alone. A command of ours has
        hundreds of arguments, and packing them was a fifth of the ingress's processor time.
        """
        if " " not in args[0]:  # "CONFIG GET" is one word to redis-py
            try:
                return [hiredis.pack_command(args)]
            except TypeError:
                pass
        return super().pack_command(*args)  # type: ignore[misc,no-any-return]

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        """Send; a connection that has just ended is an error of Redis, as any other.

        Where asyncio's own transport fails later, uvloop's raises RuntimeError, which redis-py
        lets through; nobody who calls Redis expects that.
        """
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]
        except RuntimeError as exc:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise RedisConnectionError("the connection has ended") from exc


def mended(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, with what it lacks."""
    if kind not in _subclasses:
        _subclasses[kind] = type(kind.__name__, (_Mended, kind), {})
    return _subclasses[kind]
