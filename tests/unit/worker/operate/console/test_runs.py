"""Facts about how runs are kept, and told when they end."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from shared.errors import Unavailable
from shared.observe.logs import get_logger
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach
from worker.operate.console.runs import Run, Runs
from worker.operate.dead_letters import Selection


async def nothing() -> None:
    pass


def runs_that(monkeypatch: pytest.MonkeyPatch, do: Callable[[Run, Reach], Awaitable[None]]) -> Runs:
    """Runs that do this in place of what they do in Redis."""

    async def run_(_: Runs, run: Run, __: Selection, reach: Reach) -> None:
        await do(run, reach)

    monkeypatch.setattr(Runs, "_run", run_)
    return Runs(Partitions.only(Redis()), get_logger(), 1.0, nothing)


async def until_ended(run: Run) -> None:
    async with asyncio.timeout(60):
        while run.ended is None:
            await asyncio.sleep(0)


async def test_a_run_that_goes_on_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(run: Run, _: Reach) -> None:
        if run.about == "long":
            await asyncio.Event().wait()

    runs, long = runs_that(monkeypatch, do), Run("replay", "long", "Ada", 1)
    assert runs.start(long, Selection())
    for _ in range(30):
        quick = Run("replay", "quick", "Ada", 1)
        assert runs.start(quick, Selection())
        await until_ended(quick)
    assert runs.going == [long]
    assert len(runs.known) == 21
    assert runs.find(long.id) is long
    await runs.stop(long)
    assert long.state == "stopped"


async def test_a_run_that_breaks_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def do(_: Run, __: Reach) -> None:
        raise KeyError("a bug")

    runs, run = runs_that(monkeypatch, do), Run("discard", "all", "Ada", 1)
    runs.start(run, Selection())
    await until_ended(run)
    assert (run.state, runs.going) == ("failed", [])


@pytest.mark.parametrize(
    ("is_stopped", "is_away", "state"),
    [(False, False, "finished"), (True, False, "stopped"), (False, True, "failed")],
)
async def test_who_waits_no_more_for_fates_is_told_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch, *, is_stopped: bool, is_away: bool, state: str
) -> None:
    waits = asyncio.Event()

    async def do(run: Run, reach: Reach) -> None:
        if is_away:
            reach.leave_out(reach.partitions.all[0], Unavailable("redis_timeout", "it is away"))
            await reach.gather(lambda _: nothing())
        run.progress.stopped = is_stopped
        run.progress.is_awaited = True
        waits.set()
        await asyncio.Event().wait()

    runs, run = runs_that(monkeypatch, do), Run("replay", "all", "Ada", 1)
    runs.start(run, Selection())
    await waits.wait()
    await runs.stop(run)
    assert run.state == state
