"""The console: a command that puts it together and serves it until it is told to stop."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

import click
import uvloop
from aiohttp import web

from shared.observe import logs
from shared.observe.logs import get_logger
from shared.program.admin import served
from shared.program.findings import log_warnings
from shared.program.listening import hosts_of, port_of
from shared.program.setting_names import near_misses
from shared.program.stopping import stop_signal
from shared.queue.partitions import Partitions, open_partitions
from shared.redis.connection import end
from worker.operate.console import guard
from worker.operate.console.context import CONSOLE, Console
from worker.operate.console.guesses import Guesses
from worker.operate.console.pages import (
    dead_letters,
    events,
    failure_groups,
    organizations,
    overview,
    session,
)
from worker.operate.console.runs import Runs
from worker.operate.console.sampling import INTERVAL, Sampler
from worker.operate.console.sessions import Sessions, browser_key
from worker.operate.console.settings import ConsoleSettings
from worker.operate.console.views import answer_errors, static_file
from worker.operate.fates import PATIENCE

_CONNECTIONS: Final = 12
# Seconds; a worker has more patience, but in front of a page somebody waits.
_SOCKET_TIMEOUT: Final = 2.0
_LARGEST_FORM: Final = 64 * 1024


async def serve(settings: ConsoleSettings) -> None:
    """Serve the console until SIGTERM or SIGINT; a second one ends it at once.

    Raises:
        SettingsError: the address can't be listened on.
    """
    async with (
        stop_signal() as stopped,
        open_partitions(
            settings.common, connections=_CONNECTIONS, socket_timeout=_SOCKET_TIMEOUT
        ) as partitions,
        serving(settings, partitions),
    ):
        await stopped.wait()


@contextlib.asynccontextmanager
async def serving(
    settings: ConsoleSettings,
    partitions: Partitions,
    *,
    interval: float = INTERVAL,
    patience: float = PATIENCE,
) -> AsyncIterator[int]:
    """The console, open while the block runs; gives the port.

    Args:
        settings: how it is started.
        partitions: all that it needs.
        interval: seconds between two looks at the system.
        patience: seconds for which a replay waits for what becomes of the last ones.

    Raises:
        SettingsError: the address can't be listened on.
    """
    console = _console(settings, partitions, interval, patience)
    async with served(application(console), settings.address) as sockets:
        looking = [
            asyncio.create_task(console.sampler.look_forever(), name="sampler"),
            asyncio.create_task(
                console.runs.look_forever(lambda: console.sampler.missing), name="runs"
            ),
        ]
        port = port_of(sockets)
        console.log.info("console_listening", host=hosts_of(sockets), port=port)
        try:
            yield port
        finally:
            await console.runs.close()
            await end(looking)


def application(console: Console) -> web.Application:
    """The pages, behind the guard."""
    # The errors outermost: a refusal of the guard is a page as well.
    app = web.Application(middlewares=[answer_errors, guard.admit], client_max_size=_LARGEST_FORM)
    app[CONSOLE] = console
    app.on_response_prepare.append(guard.add_headers)
    for page in (overview, organizations, events, dead_letters, failure_groups, session):
        app.add_routes(page.routes)
    app.add_routes([web.get(guard.STATIC + "{name}", static_file)])
    return app


def _console(
    settings: ConsoleSettings, partitions: Partitions, interval: float, patience: float
) -> Console:
    log = get_logger()
    sampler = Sampler(partitions, log, interval)
    return Console(
        settings=settings,
        partitions=partitions,
        sampler=sampler,
        sessions=Sessions(
            # Else whoever guesses keeps everybody out that a restart has signed out.
            browsers={
                True: browser_key(settings.token.reveal()),
                False: browser_key(settings.read_token.reveal()),
            }
        ),
        guesses=Guesses(),
        runs=Runs(partitions, log, settings.dedupe_retention, sampler.look, patience),
        log=log,
    )


@click.command()
def console() -> None:
    """Serve a web page to see what happens and to act on it. It needs nothing but Redis.

    It listens on CONSOLE_HOST (127.0.0.1) and CONSOLE_PORT (9200). Beyond this machine it asks
    for CONSOLE_TOKEN; who signs in with CONSOLE_READ_TOKEN may only look. Bodies are shown with
    CONSOLE_SHOW_PAYLOADS=1.
    """
    settings = ConsoleSettings.from_mapping(os.environ)
    logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
    log_warnings(near_misses(os.environ))
    uvloop.run(serve(settings))
