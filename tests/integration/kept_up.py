"""A worker that does its upkeep by itself, as an arq cron job."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.integration.jobs import nothing_is_left
from tests.integration.workplace import Workplace
from worker.operate.upkeep import cron_job


async def keep_up(
    place: Workplace, task: Callable[[], Awaitable[None]], has_shown: Callable[[], Awaitable[bool]]
) -> None:
    """Run a worker with this task until that has shown, and nothing is left to do."""
    cron = cron_job(task)
    cron.run_at_startup = True  # rather than within five minutes
    worker = place.worker(cron_jobs=[cron])
    running = asyncio.create_task(worker.async_run())
    try:
        async with asyncio.timeout(20):
            while not await has_shown():
                await asyncio.sleep(0.01)
            while not await nothing_is_left(place.redis):
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await worker.close()
