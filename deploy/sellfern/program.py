"""The life of the simulator as a program: it opens, says where, and ends when it should."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from deploy.sellfern.api_key import ApiKeys
from deploy.sellfern.known_endpoints import KnownEndpoints
from deploy.sellfern.server import opened
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import Sellfern
from shared.observe.logs import get_logger

_log = get_logger()


async def run(
    keys: ApiKeys,
    settings: SimulatorSettings,
    known: KnownEndpoints | None,
    *,
    host: str,
    port: int,
    seconds: float | None,
) -> None:
    """Be there until SIGTERM or SIGINT, until ``seconds`` are over, or until the last event.

    After the last event its deliveries come to their end first.

    Raises:
        SettingsError: host and port can't be listened on, or an endpoint can't be registered.
    """
    async with _stop_on_signals() as stop, opened(keys, settings, host, port) as sellfern:
        if known is not None:
            known.register(sellfern)
        _log.info(
            "simulator_listening",
            url=sellfern.url,
            api_keys=[f"{key.masked}:{key.organization}" for key in keys.all],
            seed=settings.seed,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(stop.wait(), _last_event(sellfern))
    counts = dict(sellfern.deliveries.counts)
    _log.info("simulator_stopped", events=sellfern.events, deliveries=counts)


async def _last_event(sellfern: Sellfern) -> None:
    await sellfern.complete.wait()
    await sellfern.settled()


async def _first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait for one of them, and cancel the others."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def _stop_on_signals() -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
