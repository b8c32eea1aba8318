"""Hashes with a field for each organization, read some fields at a time.

Redis serves nobody else while it answers, and whoever digests a hundred thousand fields at once
does nothing else meanwhile. What comes and goes between two pages may be missed; a field may come
twice where Redis makes a hash smaller.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

AT_ONCE: Final = 500
"""Fields of one call."""

Page: TypeAlias = dict[bytes, bytes]
Begun: TypeAlias = tuple[int, Page]
"""Where to go on, and the first fields: of few, that is all."""

Rest: TypeAlias = Callable[[], Awaitable[None]]
"""Waited for between two pages."""


def begin(pipe: Pipeline, name: str) -> None:
    """Put the question for the first page into a pipeline."""
    pipe.hscan(name, 0, count=AT_ONCE)


async def let_others() -> None:
    """Let others of this event loop have their turn."""
    await asyncio.sleep(0)


async def pages(
    redis: Redis, name: str, begun: Begun | None = None, rest: Rest = let_others
) -> AsyncIterator[Page]:
    """All fields of a hash, a page at a time.

    Args:
        redis: where it is.
        name: of the hash.
        begun: the first page, where somebody has it already.
        rest: between two of them.
    """
    async for page in _scanned(partial(redis.hscan, name), begun, rest):
        yield page


async def members(
    redis: Redis, name: str, pattern: str, rest: Rest = let_others
) -> AsyncIterator[list[tuple[bytes, float]]]:
    """The members of a sorted set that a pattern names, with their scores; the same."""
    async for page in _scanned(partial(redis.zscan, name, match=pattern), None, rest):
        yield page


async def whole(redis: Redis, name: str, begun: Begun | None = None) -> Page:
    """The hash, gathered."""
    fields: Page = {}
    async for page in pages(redis, name, begun):
        fields |= page
    return fields


async def total(
    redis: Redis, name: str, begun: Begun | None = None, rest: Rest = let_others
) -> int:
    """The sum of a hash of numbers."""
    return sum([sum(map(int, page.values())) async for page in pages(redis, name, begun, rest)])


async def _scanned(
    scan: Callable[..., Awaitable[Any]], begun: tuple[int, Any] | None, rest: Rest
) -> AsyncIterator[Any]:
    cursor, page = begun or await scan(cursor=0, count=AT_ONCE)
    yield page
    while cursor:
        await rest()
        cursor, page = await scan(cursor=cursor, count=AT_ONCE)
        yield page
