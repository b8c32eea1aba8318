"""Facts about what a worker does every few minutes."""

from typing import Any

import pytest

from worker.operate.upkeep import cron_job


async def test_a_task_that_fails_keeps_none_from_its_turn_and_is_told() -> None:
    done: list[str] = []

    async def fails() -> None:
        raise ConnectionError("away")

    async def works() -> None:
        done.append("works")

    run: Any = cron_job(fails, works, fails).coroutine
    with pytest.raises(ExceptionGroup) as caught:
        await run({})
    assert done == ["works"]
    assert [str(each) for each in caught.value.exceptions] == ["away", "away"]
