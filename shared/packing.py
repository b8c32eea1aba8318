"""Commands packed by hiredis, where redis-py would pack them in Python."""

from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

_subclasses: dict[type[AbstractConnection], type[AbstractConnection]] = {}


class _Packing:
    """Overrides how a connection packs a command.

    redis-py 5 uses hiredis for this on its blocking connections alone. A command of ours has
    hundreds of arguments, and packing them was a fifth of the ingress's processor time.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as bytes; what hiredis doesn't take, redis-py packs or refuses."""
        if " " not in args[0]:  # "CONFIG GET" is one word to redis-py
            try:
                return [hiredis.pack_command(args)]
            except TypeError:
                pass
        return super().pack_command(*args)  # type: ignore[misc,no-any-return]


def packing(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, with the faster packing."""
    if kind not in _subclasses:
        _subclasses[kind] = type(kind.__name__, (_Packing, kind), {})
    return _subclasses[kind]
