"""Commands and scripts, sent without the detours and the faults of redis-py's own connections."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError

from shared.observe import metrics
from shared.redis.primary_pool import PrimaryConnection

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, ready to be called by its digest.

    Attributes:
        name: for metrics.
        text: of it.
        digest: by which Redis knows the text.
        keys: names of which a cluster needs to be told; none where there is but one place to run.
        by_digest: how the command begins that runs it, where Redis has had its text.
        by_text: the same of the command by which Redis knows it from then on.
    """

    name: str
    text: str
    digest: str
    keys: tuple[str, ...] = ()
    by_digest: Command = field(init=False)
    by_text: Command = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_digest", ("EVALSHA", self.digest, len(self.keys), *self.keys))
        object.__setattr__(self, "by_text", ("EVAL", self.text, len(self.keys), *self.keys))

    async def __call__(self, redis: "Redis | Wire", *arguments: Argument) -> Any:
        """Run it; sends the text only where Redis doesn't know the digest (any more)."""
        started = perf_counter()
        try:
            answer = await redis.execute_command(*self.by_digest, *arguments)
        except NoScriptError:
            answer = await redis.execute_command(*self.by_text, *arguments)
        metrics.ROUND_TRIP.labels(self.name).observe(perf_counter() - started)
        return answer

    async def run_each(self, redis: Redis, calls: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Run it once for each call, all in one round trip; an error stands in its place."""
        answers = await _sent(redis, [(*self.by_digest, *call) for call in calls])
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            # Who gets the text knows the digest of those behind it.
            again = [(*self.by_digest, *calls[n]) for n in unknown]
            again[0] = (*self.by_text, *calls[unknown[0]])
            for n, answer in zip(unknown, await _sent(redis, again), strict=True):
                answers[n] = answer
        return answers


async def _sent(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    async with redis.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers


class Wire:
    """Connections of a client's pool for a caller that sends one batch after the other.

    For every command redis-py takes a connection out of the pool, polls it for data that nobody
    asked for, starts a task for the writing and gives it back: a third of a millisecond, which is
    more than what a small batch costs otherwise. A wire keeps its connection while all goes well.
    After any failure the pool gets it back, closed, and the next batch takes another.

    Errors are those of the client. Calls beyond its width take turns.

    Args:
        redis: the client whose pool it is.
        width: how many connections it may keep.
    """

    def __init__(self, redis: Redis, *, width: int = 1) -> None:
        self._pool = redis.connection_pool
        self._idle: list[AbstractConnection] = []
        self._turns = asyncio.Semaphore(width)

    async def execute_command(self, *command: Argument) -> Any:
        """Send one command; its reply.

        Raises:
            redis.exceptions.RedisError: as the client does.
            OSError: the same.
        """
        (reply,) = await self.execute_commands(command)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def execute_commands(self, *commands: Command) -> list[Any]:
        """Send some commands at once; their replies, with each error reply in its place.

        Raises:
            redis.exceptions.RedisError: the connection failed: it is in doubt what was done.
            OSError: the same.
        """
        async with self._turns:
            connection = await self._take()
            try:
                await self._write(connection, commands)
                replies = [await _reply(connection) for _ in commands]
            except BaseException:
                await self._drop(connection)
                raise
            if _is_outdated(connection) or any(isinstance(each, ReadOnlyError) for each in replies):
                await self._drop(connection)  # it is a primary no more
            else:
                self._idle.append(connection)
            return replies

    async def hang_up(self) -> None:
        """Close what it keeps: the next command goes to whoever is the one to ask by then."""
        while self._idle:
            await self._drop(self._idle.pop())

    async def _take(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            if not (_is_closed(connection) or _is_outdated(connection)):
                return connection
            await self._drop(connection)
        return cast("AbstractConnection", await self._pool.get_connection())

    async def _write(self, connection: AbstractConnection, commands: tuple[Command, ...]) -> None:
        # redis-py would start a task for each write.
        writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        try:
            for command in commands:
                writer.writelines(connection.pack_command(*command))
        except RuntimeError as exc:  # of uvloop, where the connection has just ended
            raise RedisConnectionError("the connection has ended") from exc
        if writer.transport.get_write_buffer_size() > 0:
            async with asyncio.timeout(connection.socket_timeout):
                await writer.drain()

    async def _drop(self, connection: AbstractConnection) -> None:
        try:
            await connection.disconnect(nowait=True)
        finally:
            await self._pool.release(connection)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as exc:
        return exc


def _is_closed(connection: AbstractConnection) -> bool:
    """Whether Redis has ended it since the last batch, as a restart does."""
    reader = connection._reader  # noqa: SLF001  the client would poll instead
    return reader is None or reader.at_eof() or reader.exception() is not None


def _is_outdated(connection: AbstractConnection) -> bool:
    """Whether it leads to what was the primary once, as its pool knows."""
    return isinstance(connection, PrimaryConnection) and connection.is_outdated


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
