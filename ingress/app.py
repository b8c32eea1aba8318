"""The life of the ingress: it opens, serves, and drains without losing a request."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from ingress.health import Readiness
from ingress.listener import listening
from ingress.receive import Receiver, Writer
from ingress.settings import IngressSettings
from ingress.site import Site
from ingress.traced import TracedReceiver, TracedSite
from shared import garbage
from shared.admin import admin_site
from shared.connection import open_redis
from shared.durability import check_durability
from shared.endpoints import Endpoints
from shared.endpoints_file import EndpointsFile
from shared.errors import SettingsError
from shared.gauges import Gauges
from shared.logs import get_logger
from shared.queue import open_queue
from shared.tracing import Tracing, open_tracing

_OTHER_FILES = 64
"""Open files beside the clients' connections: Redis, the admin site, logs, the listener."""

_log = get_logger()


async def serve(settings: IngressSettings, endpoints: EndpointsFile) -> None:
    """Take deliveries in until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    Args:
        settings: how.
        endpoints: the endpoints file, loaded already.

    Raises:
        SettingsError: Redis can't be reached or doesn't keep what it is given, or a port can't
            be listened on.
    """
    with open_tracing(settings.common.tracing, "sellfern-ingress") as tracing:
        await _serve(settings, endpoints, tracing)


async def _serve(
    settings: IngressSettings, endpoints: EndpointsFile, tracing: Tracing | None
) -> None:
    stop = asyncio.Event()
    _raise_file_limit(settings.limits.connections)
    async with _signals(stop), open_redis(settings.common.redis_url) as redis:
        await _check_redis(redis, settings)
        ready = Readiness(lambda: check_durability(redis, settings.durability))
        gauges = Gauges(redis, organizations=settings.organization_series, log=_log)
        async with (
            endpoints.watching(),
            open_queue(redis, settings.durability, settings.backlog) as writer,
        ):
            receiver, site = _receiver_and_site(endpoints, writer, settings, tracing)
            garbage.tune()
            async with (
                admin_site(
                    settings.admin,
                    ready.problems,
                    routes=receiver.secret_use.routes(),
                    refresh=gauges.refresh,
                    notes=lambda: endpoints.notes,
                ),
                listening(settings, receiver, ready, site) as listener,
            ):
                with gauges.registered():
                    await stop.wait()
                await listener.drain()
    _log.info("ingress_stopped")


def _receiver_and_site(
    endpoints: EndpointsFile, writer: Writer, settings: IngressSettings, tracing: Tracing | None
) -> tuple[Receiver, Site]:
    """What takes deliveries in, with spans around it where they are asked for."""

    def current() -> Endpoints:
        return endpoints.current

    if tracing is None:
        receiver = Receiver(current, writer, settings.limits)
        return receiver, Site(receiver, settings.trusted_proxies)
    receiver = TracedReceiver(current, writer, settings.limits, tracing)
    return receiver, TracedSite(receiver, tracing, settings.trusted_proxies)


async def _check_redis(redis: Redis, settings: IngressSettings) -> None:
    problems = await check_durability(redis, settings.durability)
    if problems:
        expected = (
            f"a Redis that keeps accepted events (DURABILITY={settings.durability.mode.value})"
        )
        got = "; ".join(problem.message for problem in problems)
        raise SettingsError("REDIS_URL", expected, f"{settings.common.redis_url}: {got}")


@contextlib.asynccontextmanager
async def _signals(stop: asyncio.Event) -> AsyncIterator[None]:
    """Set ``stop`` on the first signal; leave a second one to the system, which ends us."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def first() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _raise_file_limit(connections: int) -> None:
    """Let the process have a file for each connection, as far as the system allows it."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning("few_files", connections=connections, open_files=allowed)
