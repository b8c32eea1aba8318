"""What the ingress is measured against: the same aiohttp with less behind it."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

import arq
import uvloop
from aiohttp import web
from arq.connections import RedisSettings

from ingress.http.listener import Readiness, listening
from ingress.http.receive import Receiver
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import Endpoints
from shared.endpoints.file import EndpointsFile
from shared.errors import Problem, SignatureError
from shared.observe import logs
from shared.queue.job import Delivery
from shared.queue.writer import Accepted
from shared.sellfern import signature
from tests.ingress_support import Known

Answer = Callable[[web.Request], Awaitable[web.Response]]


def _endpoints() -> Endpoints:
    return EndpointsFile(Path(os.environ["ENDPOINTS_FILE"]), os.environ).load()


async def _answer_at_once(_: web.Request) -> web.Response:
    return web.Response(status=202)


def _verifying(then: Callable[[bytes], Awaitable[object]] | None = None) -> Answer:
    """Read and verify as any receiver must, and then perhaps do more."""
    endpoints = _endpoints()

    async def answer(request: web.Request) -> web.Response:
        endpoint = endpoints.get(request.match_info["endpoint"])
        if endpoint is None:
            return web.Response(status=404)
        body, now = await request.read(), time()
        secrets = endpoint.active_secrets(now)
        try:
            signature.verify(endpoint.scheme, body, request.headers, secrets, now)
        except SignatureError:
            return web.Response(status=401)
        if then is not None:
            await then(body)
        return web.Response(status=202)

    return answer


async def _enqueueing_with_arq() -> Answer:
    pool = await arq.create_pool(RedisSettings.from_dsn(os.environ["REDIS_URL"]))
    return _verifying(lambda body: pool.enqueue_job("noop", body))


async def _serve(answer: Answer) -> None:
    app = web.Application()
    app.add_routes([web.post("/webhooks/{endpoint}", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    _tell(site.port)
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A queue that stores nothing."""

    async def accept(self, _: Delivery) -> Accepted:
        return Accepted.NEW


async def _serve_ours_without_a_queue() -> None:
    """Our own ingress with everything in front of Redis."""

    async def no_problems() -> list[Problem]:
        return []

    settings = IngressSettings.from_environ({**os.environ, "INGRESS_PORT": "0"})
    logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
    endpoints = _endpoints()
    receiver = Receiver(Known(endpoints), _Nowhere(), settings.limits)
    async with listening(settings, receiver, Readiness(no_problems)) as listener:
        _tell(listener.port)
        await asyncio.Event().wait()


def _tell(port: int) -> None:
    """Say where it listens, as the ingress does."""
    line = json.dumps({"event": "ingress_listening", "port": port}, separators=(",", ":"))
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


async def _main(kind: str) -> None:
    match kind:
        case "bare":
            await _serve(_answer_at_once)
        case "verifying":
            await _serve(_verifying())
        case "arq":
            await _serve(await _enqueueing_with_arq())
        case "ours":
            await _serve_ours_without_a_queue()


KINDS: Final = ("bare", "verifying", "arq", "ours")

if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
