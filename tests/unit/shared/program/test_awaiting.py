"""Waiting for Redis at the start: what is waited for, what is said, and what ends it."""

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.errors import Problem, SettingsError
from shared.program.awaiting import MENDS_ITSELF, AwaitedRedis
from shared.settings.redis_url import RedisUrl
from tests.log_support import CapturedLog, captured_log

SHARED = Path(__file__).parents[4] / "shared" / "redis"
PASSWORD = "hunter2"
URL = RedisUrl(f"redis://:{PASSWORD}@redis:6379/0")
SHOWN = "redis://:***@redis:6379/0"
AWAY = Problem("redis_unreachable", "no connection to Redis")
LOADING = Problem("redis_loading", "Redis is loading its data")
WRONG = Problem("redis_evicts", "maxmemory-policy: expected noeviction")


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    with captured_log() as captured:
        yield captured


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.program.awaiting.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("shared.program.awaiting.LONGEST_PAUSE", 0.001)


def awaited(*looks: list[Problem]) -> AwaitedRedis:
    """A Redis that is found like this, one look after the other; the last state stays."""
    states = list(looks)

    async def check() -> list[Problem]:
        return states.pop(0) if len(states) > 1 else states[0]

    return AwaitedRedis(check, url=URL, expected="a Redis that works")


def codes_of(module: str) -> set[str]:
    """The codes that a module of ours has for what is wrong with Redis."""
    found = set()
    for node in ast.walk(ast.parse((SHARED / module).read_text())):
        match node:
            case ast.Tuple(elts=[ast.Constant(value=str(code)), ast.Constant(value=str())]):
                found.add(code)
            case ast.Call(
                func=ast.Name(id="Problem" | "Unavailable"),
                args=[ast.Constant(value=str(code)), *_],
            ):
                found.add(code)
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)+", code)}


def test_of_every_code_somebody_has_decided_whether_to_wait_for_its_end() -> None:
    modules = ("connection.py", "durability.py", "../queue/partitions.py")
    codes = set[str]().union(*map(codes_of, modules))
    assert {"redis_error", "redis_timeout", "redis_cluster", "not_durable"} <= codes
    assert codes == MENDS_ITSELF.keys()


async def test_a_redis_that_is_there_is_found_without_a_word(log: CapturedLog) -> None:
    redis = awaited([])
    assert [problem.code for problem in redis.problems] == ["redis_awaited"]
    assert await redis.found(asyncio.Event())
    assert (redis.problems, log.text) == ([], "")


async def test_nobody_is_ready_before_it_has_noticed_that_redis_is_well() -> None:
    async def draining() -> list[Problem]:
        return [WRONG]

    redis = awaited([AWAY], [])
    ready = redis.before(draining)
    assert [problem.code for problem in await ready()] == ["redis_awaited"]
    assert not await redis.look(asyncio.Event())
    assert await ready() == [AWAY]
    assert await redis.look(asyncio.Event())
    assert await ready() == [WRONG]


async def test_each_reason_for_waiting_is_told_once_and_the_end_of_it(log: CapturedLog) -> None:
    redis = awaited([AWAY], [AWAY], [AWAY], [LOADING, AWAY], [LOADING, AWAY], [AWAY], [])
    assert await redis.found(asyncio.Event())
    assert [(line["event"], line.get("code"), line.get("message")) for line in log.lines] == [
        ("redis_awaited", "redis_unreachable", "no connection to Redis"),
        ("redis_awaited", "redis_loading", f"{LOADING.message}; {AWAY.message}"),
        ("redis_awaited", "redis_unreachable", "no connection to Redis"),
        ("redis_found", None, None),
    ]
    assert {line["url"] for line in log.lines} == {SHOWN}
    assert log.lines[-1]["seconds"] >= 0
    assert PASSWORD not in log.text


@pytest.mark.parametrize("code", sorted(MENDS_ITSELF))
async def test_what_mends_itself_is_waited_for_and_nothing_else(code: str) -> None:
    redis = awaited([Problem(code, "why")], [])
    if MENDS_ITSELF[code]:
        assert await redis.found(asyncio.Event())
    else:
        with pytest.raises(SettingsError):
            await redis.found(asyncio.Event())


@pytest.mark.parametrize(
    "looks", [([WRONG],), ([AWAY], [WRONG]), ([AWAY, WRONG],), ([Problem("new", WRONG.message)],)]
)
async def test_what_somebody_has_to_mend_ends_the_start(looks: tuple[list[Problem], ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        await awaited(*looks).found(asyncio.Event())
    said = str(caught.value)
    assert said.startswith(f"REDIS_URL: expected a Redis that works, got {SHOWN}: ")
    assert said.endswith(WRONG.message)


async def test_a_stop_between_two_looks_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.program.awaiting.FIRST_PAUSE", 3600.0)
    monkeypatch.setattr("shared.program.awaiting.LONGEST_PAUSE", 3600.0)
    stop = asyncio.Event()
    redis = awaited([AWAY])
    waiting = asyncio.create_task(redis.found(stop))
    while redis.problems != [AWAY]:  # nothing tells of it
        await asyncio.sleep(0)
    stop.set()
    assert await waiting is False
    assert redis.problems == [AWAY]


async def test_a_stop_does_not_wait_for_a_look_even_one_that_loses_a_cancellation() -> None:
    looking, stop = asyncio.Event(), asyncio.Event()
    cancelled = 0

    async def check() -> list[Problem]:
        nonlocal cancelled
        looking.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                if cancelled > 1:
                    raise

    redis = AwaitedRedis(check, url=URL, expected="a Redis that works")
    waiting = asyncio.create_task(redis.found(stop))
    await looking.wait()
    stop.set()
    assert await waiting is False
    assert cancelled == 2


async def test_a_cancellation_ends_the_waiting_as_well() -> None:
    looking, ended = asyncio.Event(), asyncio.Event()

    async def check() -> list[Problem]:
        looking.set()
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    redis = AwaitedRedis(check, url=URL, expected="a Redis that works")
    waiting = asyncio.create_task(redis.found(asyncio.Event()))
    await looking.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
