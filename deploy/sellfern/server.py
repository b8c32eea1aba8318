"""The simulator as a server that is open for the time of a block."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from deploy.sellfern.api_key import ApiKey, ApiKeys, parse_api_key
from deploy.sellfern.control import Control
from deploy.sellfern.delivery import delivering
from deploy.sellfern.event import Clock
from deploy.sellfern.management import Management, in_our_shape
from deploy.sellfern.openapi import document
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.errors import SettingsError
from shared.program.listening import blaming_settings

LARGEST_BODY: Final = 256 * 1024
"""Bytes of a request's body."""

_SHUTDOWN_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.05  # how soon a rate or a subscription that has changed is seen
_LAGGED_SECONDS: Final = 1.0  # behind by more, what was missed is dropped rather than hurried


@contextlib.asynccontextmanager
async def simulator(
    *api_keys: str | ApiKey,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock = time.time,
    **settings: Any,
) -> AsyncIterator[Sellfern]:
    """A simulated Sellfern that is open while the block runs.

    Args:
        api_keys: such as ``sk_test_1:org_123`` (see `parse_api_key`).
        host: the address to listen on.
        port: the port; 0 picks one.
        clock: tells the time.
        settings: fields of `SimulatorSettings`.

    Raises:
        SettingsError: host and port can't be listened on, or a knob is out of its range.
        ValueError: a key is not in its form, or there twice.
    """
    keys = ApiKeys(parse_api_key(key) if isinstance(key, str) else key for key in api_keys)
    async with opened(keys, SimulatorSettings(**settings), host, port, clock) as sellfern:
        yield sellfern


@contextlib.asynccontextmanager
async def opened(
    keys: ApiKeys, settings: SimulatorSettings, host: str, port: int, clock: Clock = time.time
) -> AsyncIterator[Sellfern]:
    """The same, of parts that are made already.

    Raises:
        SettingsError: host and port can't be listened on.
    """
    sellfern = Sellfern(keys, settings, clock)
    async with (
        delivering(sellfern.endpoints, sellfern.deliveries, settings, clock) as sellfern.deliverer,
        _listening(sellfern, host, port),
        _happening(sellfern),
    ):
        yield sellfern


@contextlib.asynccontextmanager
async def _listening(sellfern: Sellfern, host: str, port: int) -> AsyncIterator[None]:
    # No access log: what was asked is kept in `Sellfern.requests`, and shown.
    runner = web.AppRunner(_app(sellfern), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            with blaming_settings("", host, port):
                await site.start()
        except SettingsError as exc:
            raise _named_as_option(exc) from exc
        # Only now is it known where it listens, if the system picks the port.
        sellfern.url = f"http://{f'[{host}]' if ':' in host else host}:{site.port}"
        yield
    finally:
        # Before anything else: a request that hangs by a fault would hold up the end.
        sellfern.closing.set()
        await sellfern.deliverer.close()  # some request may wait for a delivery's end
        await runner.cleanup()


def _named_as_option(error: SettingsError) -> SettingsError:
    """The same error, blaming the option of the command line: no variable sets it here."""
    option = f"--{error.setting.removeprefix('_').lower()}"
    return SettingsError(option, error.expected, error.got)


def _app(sellfern: Sellfern) -> web.Application:
    async def openapi(_: web.Request) -> web.Response:
        body = msgspec.json.format(msgspec.json.encode(document(sellfern.url, EVENTS)))
        return web.Response(body=body, content_type="application/json")

    app = web.Application(middlewares=[in_our_shape], client_max_size=LARGEST_BODY)
    Management(sellfern).add_to(app.router)
    app.add_routes(Control(sellfern).routes())
    app.add_routes([web.get("/openapi.json", openapi)])
    return app


@contextlib.asynccontextmanager
async def _happening(sellfern: Sellfern) -> AsyncIterator[None]:
    task = asyncio.create_task(keep_happening(lambda: sellfern.settings.rate, sellfern.happen))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def keep_happening(rate: Callable[[], float], happen: Callable[[], Awaitable[bool]]) -> None:
    """Let events happen for ever.

    Args:
        rate: events a second; it may change at any time, and 0 is a pause.
        happen: lets one happen; false if nobody wants any.
    """
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        now, speed = clock(), rate()
        due = max(due, now - _LAGGED_SECONDS)
        if speed <= 0:
            await asyncio.sleep(_LOOK_SECONDS)
        elif now < due:
            await asyncio.sleep(min(_LOOK_SECONDS, due - now))
        elif await happen():
            due += 1 / speed
            await asyncio.sleep(0)  # a rate that can't be kept must not keep others from working
        else:
            await asyncio.sleep(_LOOK_SECONDS)
