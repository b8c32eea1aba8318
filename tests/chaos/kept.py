"""What Redis holds in the end, read by the names of its keys, of one queue or of partitions."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

_NAME: Final = re.compile(
    r"sellfern:(?:\{(?P<tag>\w+)\}:)?(?P<kind>[a-z-]+):?(?P<rest>.*)", re.DOTALL
)
_PAGE: Final = 1000

_UNFINISHED: Final = frozenset({"queue", "claims", "running", "accepted", "waiting", "moving"})
"""What isn't there when nothing waits, runs or moves."""


@dataclass(slots=True)
class Kept:
    """All that matters of it.

    Attributes:
        applied: how often an event changed the state: organization, event, times.
        dead: of each dead letter the digest of its body, and the reason.
        orders: what each organization's orders hold: the value and its version.
        places: the tags of the partitions in which there is anything of an organization's.
        left: the names of what should be gone.
    """

    applied: list[tuple[str, str, int]] = field(default_factory=list)
    dead: list[tuple[str, str]] = field(default_factory=list)
    orders: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    places: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    left: list[str] = field(default_factory=list)


async def read(primaries: Sequence[Redis]) -> Kept:
    """Read all of it, of each primary."""
    kept = Kept()
    for redis in primaries:
        names = [name.decode() async for name in redis.scan_iter(count=_PAGE)]
        for some in _pages(sorted(names)):
            await _read(redis, some, kept)
    return kept


async def _read(redis: Redis, names: Sequence[str], kept: Kept) -> None:
    found = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
    kept.left += [name for name in names if name.startswith("arq:job:")]
    kept.left += [name for name, match in found if _is_unfinished(match["kind"], match["rest"])]
    values = [(name, match) for name, match in found if match["kind"] in {"state", "event"}]
    letters = [(name, match) for name, match in found if match["kind"] == "dead-letter"]
    async with redis.pipeline(transaction=False) as pipe:
        for name, _ in values:
            pipe.get(name)
        for name, _ in letters:
            pipe.hget(name, "reason")
        # Behind what a mark tells may stand a history, which is no text.
        answers = iter([each.decode(errors="replace") for each in await pipe.execute()])
    for name, match in values:
        organization, _, key = match["rest"].partition(":")
        kept.places[organization].add(match["tag"] or "")
        if match["kind"] == "state":
            _take_state(kept, organization, key, next(answers))
        elif next(answers).startswith("pending:"):
            kept.left.append(name)
    for _, match in letters:
        job, _, sha = match["rest"].rpartition(":")
        kept.places[job.rpartition("}")[2]].add(match["tag"] or "")
        kept.dead.append((sha, next(answers)))


def _is_unfinished(kind: str, rest: str) -> bool:
    return kind == "parked" or (kind in _UNFINISHED and not rest)  # arq's own have more


def _take_state(kept: Kept, organization: str, key: str, value: str) -> None:
    what, _, of = key.partition("/")
    if what == "applied":
        kept.applied.append((organization, of, int(value)))
    elif what == "orders":
        number, version, _ = value.split("\n")
        kept.orders[organization, of] = int(number), float(version)


def _pages(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _PAGE):
        yield names[start : start + _PAGE]
