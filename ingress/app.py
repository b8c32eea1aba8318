"""The life of the ingress: it opens, serves, and drains without losing a request."""

import resource

from ingress.http.answers import REDIS_AWAITED
from ingress.http.listener import BACKLOG, Readiness, listening
from ingress.http.receive import Receiver, Writer
from ingress.http.secret_use import SecretUse, WrongSignatures
from ingress.http.site import Site
from ingress.http.traced import TracedSite, TracedWriter
from ingress.primaries import Primaries, connections
from ingress.settings import IngressSettings
from shared.endpoints.file import EndpointsFile
from shared.observe import metrics
from shared.observe.logs import get_logger
from shared.observe.tracing import Tracing, open_tracing
from shared.program import forking, garbage
from shared.program.admin import admin_site
from shared.program.awaiting import AwaitedRedis
from shared.program.stopping import stop_signal
from shared.queue import marker
from shared.queue.gauges import Gauges
from shared.queue.partitions import open_partitions

_OTHER_FILES = 52
"""Open files beside all connections: the admin site, logs, the listener."""

_log = get_logger()


async def serve(settings: IngressSettings, endpoints: EndpointsFile) -> None:
    """Take deliveries in until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    Args:
        settings: how.
        endpoints: the endpoints file, loaded already.

    Raises:
        SettingsError: Redis doesn't keep what it is given or can't be worked with at all, or a
            port can't be listened on. Where it only can't be reached yet, that is waited for.
    """
    with open_tracing(settings.common.tracing, "sellfern-ingress") as tracing:
        await _serve(settings, endpoints, tracing)


async def _serve(
    settings: IngressSettings, endpoints: EndpointsFile, tracing: Tracing | None
) -> None:
    forking.guard()
    metrics.tell_program("ingress")
    common = settings.common
    to_redis = connections(common)
    _raise_file_limit(settings.limits.connections, to_redis * common.clients)
    async with (
        stop_signal() as stop,
        open_partitions(common, connections=to_redis) as partitions,
        endpoints.watching(),
        # The last, so the first to close: what the writers still hold needs Redis.
        Primaries.opened(settings, partitions, endpoints) as primaries,
    ):
        awaited = _awaited(primaries, settings)
        ready = Readiness(awaited.before(primaries.problems))
        gauges = Gauges(
            partitions,
            organizations=settings.organization_series,
            bytes_limit_of=primaries.limit_of,
            log=_log,
        )
        gauges.is_awaiting = True
        receiver, site = _receiver_and_site(endpoints, primaries.writer, settings, tracing)
        # All that stays for as long as the process is there by now: no look at it finds garbage.
        garbage.tune()
        named = settings.organization_series
        wrong = WrongSignatures(endpoints, receiver.wrong, named)
        with gauges.registered(), metrics.registered(wrong):
            async with (
                gauges.walking(),
                admin_site(
                    settings.admin,
                    ready.problems,
                    routes=SecretUse(endpoints, receiver.verified).routes(),
                    refresh=gauges.refresh,
                    notes=lambda: [*endpoints.notes, *primaries.notes()],
                ),
            ):
                # Where all is well, nobody sees the port before it takes deliveries. Else it is
                # open meanwhile: its senders are told when to come again, as in any other outage,
                # and a port that is taken is found out now rather than when Redis is back.
                if not await awaited.look(stop):
                    receiver.closed = REDIS_AWAITED
                async with listening(settings, receiver, ready, site) as listener:
                    if await awaited.found(stop):
                        receiver.closed, gauges.is_awaiting = None, False
                        async with (
                            primaries.watching(),
                            marker.watching(partitions, _log, primaries.are_right),
                        ):
                            await stop.wait()
                        await listener.drain()
    _log.info("ingress_stopped")


def _awaited(primaries: Primaries, settings: IngressSettings) -> AwaitedRedis:
    mode = settings.durability.mode.value
    return AwaitedRedis(
        primaries.first_look,
        url=" ".join(map(str, settings.common.redis_urls)),
        expected=f"a Redis that keeps accepted events (DURABILITY={mode})",
    )


def _receiver_and_site(
    endpoints: EndpointsFile, writer: Writer, settings: IngressSettings, tracing: Tracing | None
) -> tuple[Receiver, Site]:
    """What takes deliveries in, with spans around it where they are asked for."""
    if tracing is None:
        receiver = Receiver(endpoints, writer, settings.limits)
        return receiver, Site(receiver, settings.trusted_proxies)
    receiver = Receiver(endpoints, TracedWriter(writer, tracing), settings.limits)
    return receiver, TracedSite(receiver, tracing, settings.trusted_proxies)


def _raise_file_limit(connections: int, to_redis: int) -> None:
    """Let the process have a file for each connection, as far as the system allows it.

    Those that the system has taken for us come all at once, before any other is closed for them.
    """
    needed = connections + to_redis + _OTHER_FILES
    wanted = needed + BACKLOG
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted or soft == resource.RLIM_INFINITY:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        _log.warning("few_files", connections=connections, open_files=allowed)
