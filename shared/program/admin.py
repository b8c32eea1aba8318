"""The admin site of a program: whether it lives, whether it is ready, its metrics."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from socket import socket
from time import monotonic
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from shared.errors import Problem, SellfernError
from shared.observe import metrics
from shared.observe.logs import get_logger
from shared.program.listening import Address, hosts_of, open_sockets, port_of

Check = Callable[[], Awaitable[list[Problem]]]
"""Finds what keeps a program from being ready; an empty list when nothing does."""

CACHE_SECONDS: Final = 1.0
"""How long the result of a check is good for."""

CHECK_SECONDS: Final = 5.0
"""How long a check may take until the program counts as not ready."""

IDLE_SECONDS: Final = 60.0
"""How long a connection is kept over which no request comes, or none to its end."""

_log = get_logger()


def cached(check: Check, seconds: float = CACHE_SECONDS) -> Check:
    """The same check, run once in ``seconds`` however many ask, and by one of them at a time."""
    # One asks and the others wait for its answer, so a Redis that hangs is asked once.
    lock = asyncio.Lock()
    found: list[Problem] = []
    good_until = -1.0

    async def ask() -> list[Problem]:
        nonlocal found, good_until
        async with lock:
            if monotonic() >= good_until:
                found = await check()
                good_until = monotonic() + seconds
        return found

    return ask


async def _nothing() -> list[Problem]:
    return []


@contextlib.asynccontextmanager
async def admin_site(
    address: Address,
    ready: Check,
    *,
    alive: Check = _nothing,
    routes: Iterable[web.RouteDef] = (),
    refresh: Callable[[], Awaitable[None]] | None = None,
    notes: Callable[[], list[Problem]] = list,
) -> AsyncIterator[int]:
    """Serve ``/livez``, ``/readyz`` and ``/metrics`` while the block runs.

    Args:
        address: where to listen. The port is logged as ``admin_listening`` and given to the block.
        ready: asked at every ``/readyz``; wrap what is costly in `cached`.
        alive: asked at every ``/livez``; without it the program lives if it answers.
        routes: what else there is to see.
        refresh: awaited before the metrics are shown.
        notes: what ``/readyz`` tells beside, though the program is ready.

    Raises:
        SettingsError: the address can't be listened on.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", partial(_livez, alive)),
            web.get("/readyz", partial(_readyz, ready, notes)),
            web.get("/metrics", partial(_metrics, refresh)),
            *routes,
        ]
    )
    async with served(app, address) as sockets:
        port = port_of(sockets)
        # Several workers on one machine: nobody has to give each its port.
        if address.port not in {0, port}:
            _log.info("admin_port_taken", taken=address.port, instead=port)
        _log.info("admin_listening", host=hosts_of(sockets), port=port)
        yield port


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether aiohttp has failed, or we; not whoever sends what is no request, and is told so."""
    exc = record.exc_info[1] if record.exc_info else None
    return not isinstance(exc, (HttpProcessingError, web.RequestPayloadError))


logging.getLogger("aiohttp.server").addFilter(_is_ours)


@contextlib.asynccontextmanager
async def served(app: web.Application, address: Address) -> AsyncIterator[list[socket]]:
    """Serve a site for operators while the block runs; gives the sockets that listen.

    Raises:
        SettingsError: the address can't be listened on.
    """
    # No access log: scrapes and pages ask again every few seconds. What is under way at the end may
    # end; nobody's exit waits longer for it.
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS
    )
    await runner.setup()
    try:
        sockets = open_sockets(address)
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        yield sockets
    finally:
        await runner.cleanup()


async def _livez(alive: Check, _: web.Request) -> web.Response:
    problems = await _problems(alive)
    shown = {"problems": problems} if problems else {}
    return json_answer(503 if problems else 200, {"alive": not problems, **shown})


async def _readyz(ready: Check, notes: Callable[[], list[Problem]], _: web.Request) -> web.Response:
    problems = await _problems(ready)
    told: dict[str, object] = {"ready": not problems, "problems": problems}
    if noted := notes():
        told["notes"] = noted
    return json_answer(503 if problems else 200, told)


async def _problems(check: Check) -> list[Problem]:
    try:
        # A probe without an answer says less than one that says no.
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return [Problem("check_timeout", f"the check took longer than {CHECK_SECONDS:g} seconds")]
    except SellfernError as exc:
        return [Problem(getattr(exc, "code", "check_failed"), str(exc))]
    except Exception:  # noqa: BLE001  # a check that fails means not ready, whatever it was
        _log.exception("readiness_check_failed")
        return [Problem("check_failed", "the check itself failed; the log says why")]


async def _metrics(refresh: Callable[[], Awaitable[None]] | None, _: web.Request) -> web.Response:
    if refresh is not None:
        await refresh()
    body, content_type = metrics.render()
    return web.Response(body=body, headers={"Content-Type": content_type})


def json_answer(status: int, value: object) -> web.Response:
    """An answer of an admin site."""
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, content_type="application/json")
