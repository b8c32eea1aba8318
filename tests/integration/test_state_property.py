"""Handlers that run at the same time leave the state that they would leave one after another."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.integration.jobs import NOTHING, account
from tests.integration.workplace import Workplace, body, now
from worker import Event, Handlers, Organization
from worker.pipeline.transitions import Settled

LIFE = 600.0
Step = tuple[Any, ...]

_TEXTS = st.sampled_from(["a", "b"])
_NUMBERS = st.sampled_from(["m", "n"])
_EXPIRE = st.sampled_from([None, LIFE])
_VERSIONS = st.integers(-2, 2)
_STEPS = st.one_of(
    st.tuples(st.just("get"), _TEXTS | _NUMBERS),
    st.tuples(st.just("put"), _TEXTS, _EXPIRE),
    st.tuples(st.just("put_if_newer"), _TEXTS, _EXPIRE, _VERSIONS),
    st.tuples(st.just("delete"), _TEXTS | _NUMBERS, st.none() | _VERSIONS),
    st.tuples(st.just("increment"), _NUMBERS, _EXPIRE, st.integers(-3, 3)),
)
_PROGRAMS = st.lists(
    st.tuples(st.lists(_STEPS, max_size=4), st.lists(_STEPS, max_size=3)), min_size=2, max_size=4
)


@dataclass(frozen=True)
class Cell:
    """What stands under a key."""

    value: Any = None
    version: tuple[int, int, str] | None = None
    expires: bool = False


@dataclass
class Table:
    """A plain dictionary with the same methods, for one event after another."""

    writer: str = ""
    received_at: int = 0
    cells: dict[str, Cell] = field(default_factory=dict)

    def cell(self, key: str) -> Cell:
        return self.cells.get(key, Cell())

    async def get(self, key: str) -> Any:
        return self.cell(key).value

    async def put(self, key: str, value: Any, expire: float | None) -> None:
        self.cells[key] = Cell(value, None, expire is not None)

    async def put_if_newer(self, key: str, value: Any, version: int, expire: float | None) -> None:
        if self._is_newer(key, version):
            self.cells[key] = Cell(
                value, (version, self.received_at, self.writer), expire is not None
            )

    async def delete(self, key: str, version: int | None) -> None:
        if version is None:
            self.cells[key] = Cell(None, self.cell(key).version)
        elif self._is_newer(key, version):
            self.cells[key] = Cell(None, (version, self.received_at, self.writer))

    async def increment(self, key: str, by: int, expire: float | None) -> None:
        before = self.cell(key)
        expires = before.expires if expire is None else True
        self.cells[key] = replace(before, value=(before.value or 0) + by, expires=expires)

    def _is_newer(self, key: str, version: int) -> bool:
        known = self.cell(key).version
        return known is None or (version, self.received_at, self.writer) >= known


class OfTheProduct:
    """The same methods on an organization's state."""

    def __init__(self, organization: Organization) -> None:
        self.state = organization.state

    async def get(self, key: str) -> Any:
        return await self.state.get(key)

    async def put(self, key: str, value: Any, expire: float | None) -> None:
        await self.state.put(key, value, expire=expire)

    async def put_if_newer(self, key: str, value: Any, version: int, expire: float | None) -> None:
        await self.state.put_if_newer(key, value, version, expire=expire)

    async def delete(self, key: str, version: int | None) -> None:
        await self.state.delete(key, version=version)

    async def increment(self, key: str, by: int, expire: float | None) -> None:
        await self.state.increment(key, by, expire=expire)


async def play(state: Table | OfTheProduct, steps: Sequence[Step], seen: list[Any]) -> None:
    """Take steps; what is written depends on what has been read, as in a handler."""
    for name, key, *rest in steps:
        match name:
            case "get":
                seen.append(await state.get(key))
            case "put":
                await state.put(key, f"{len(seen)} {seen[-2:]}"[:80], *rest)
            case "put_if_newer":
                expire, version = rest
                await state.put_if_newer(key, f"{seen[-2:]} at {version}"[:80], version, expire)
            case "delete":
                await state.delete(key, *rest)
            case "increment":
                expire, by = rest
                await state.increment(key, by, expire)


@dataclass
class Scene:
    """All handlers do the first half of their steps, then one after another all the rest."""

    programs: dict[str, tuple[list[Step], list[Step]]]
    order: list[str]
    received_at: dict[str, int]
    runs: Counter[str] = field(default_factory=Counter)
    halfway: set[str] = field(default_factory=set)
    done: dict[str, asyncio.Event] = field(default_factory=dict)
    everybody: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, event_id: str, organization: Organization) -> None:
        """Be the handler of one event."""
        first, second = self.programs[event_id]
        seen: list[Any] = []
        state = OfTheProduct(organization)
        self.runs[event_id] += 1
        await play(state, first, seen)
        if self.runs[event_id] == 1:
            self.halfway.add(event_id)
            if len(self.halfway) == len(self.programs):
                self.everybody.set()
            await self.everybody.wait()
            place = self.order.index(event_id)
            if place:
                await self.done[self.order[place - 1]].wait()
        await play(state, second, seen)

    def handlers(self) -> Handlers:
        """The registry with it."""
        handlers = Handlers()

        @handlers.on("*")
        async def act(event: Event[Any], organization: Organization) -> None:
            await self.handle(event.id, organization)

        return handlers


async def committed(redis: Redis, scene: Scene) -> None:
    """Run all at once, and let each be committed in its turn."""
    place = Workplace(redis, scene.handlers())
    for event_id in scene.programs:
        await place.accept(body(event_id), received_at=scene.received_at[event_id])
    claims = await place.claim(len(scene.programs))

    async def run(job: Any, event_id: str) -> None:
        assert await place.run(*job) is Settled.DONE
        scene.done[event_id].set()

    scene.done = {event_id: asyncio.Event() for event_id in scene.programs}
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        for job, event_id in zip(claims, scene.programs, strict=True):
            tasks.create_task(run(job, event_id))


async def one_by_one(scene: Scene) -> tuple[Table, set[str]]:
    """What a plain dictionary holds afterwards, and who has seen what was changed meanwhile."""
    table, early = Table(), set[str]()
    for event_id in scene.order:
        first, second = scene.programs[event_id]
        if any(table.cell(key) != Cell() for key in _read(first)):
            early.add(event_id)
        table.writer, table.received_at = event_id, scene.received_at[event_id]
        seen: list[Any] = []
        await play(table, [*first, *second], seen)
    return table, early


def _read(steps: Sequence[Step]) -> set[str]:
    """The keys that are read before the attempt itself has put something there."""
    read, put = set[str](), set[str]()
    for name, key, *_ in steps:
        if name == "get" and key not in put:
            read.add(key)
        if name == "put":
            put.add(key)
    return read


async def held(redis: Redis, key: str) -> tuple[Any, bool]:
    """What Redis holds under a key, and whether it expires."""
    name = keys.state("org_a", key)
    json = (await redis.get(name) or b"").partition(b"\n")[0]
    if not json:
        return None, False
    left = await redis.pttl(name)
    assert left == -1 or 0.9 * LIFE * 1000 < left <= LIFE * 1000
    return msgspec.json.decode(json), left != -1


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as redis:
        yield redis


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(programs=_PROGRAMS, data=st.data())
async def test_handlers_at_once_do_what_they_do_one_after_another(
    client: Redis, programs: list[tuple[list[Step], list[Step]]], data: st.DataObject
) -> None:
    named = {f"evt_{number}": program for number, program in enumerate(programs)}
    at = round(now().timestamp() * 1000)
    received_at = {event_id: at + data.draw(st.integers(0, 1)) for event_id in named}
    scene = Scene(named, data.draw(st.permutations(list(named))), received_at)
    await client.flushall()
    await committed(client, scene)
    table, early = await one_by_one(scene)
    for key in ("a", "b", "m", "n"):
        cell = table.cell(key)
        assert await held(client, key) == (cell.value, cell.expires)
    assert {event_id for event_id, runs in scene.runs.items() if runs > 1} <= early
    assert max(scene.runs.values()) <= 2
    assert await account(client) == NOTHING


async def test_what_was_read_and_has_changed_runs_the_handler_again(redis: Redis) -> None:
    """The property would hold as well if nothing ever conflicted: here it does."""
    program: tuple[list[Step], list[Step]] = ([("get", "a")], [("put", "a", None)])
    at = round(now().timestamp() * 1000)
    both = {"evt_0": program, "evt_1": program}
    scene = Scene(both, ["evt_1", "evt_0"], dict.fromkeys(both, at))
    await committed(redis, scene)
    assert scene.runs == {"evt_0": 2, "evt_1": 1}
    assert await held(redis, "a") == ("1 ['1 [None]']", False)
