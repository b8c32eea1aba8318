"""Facts about hooks in a worker's process: whatever they do, the worker goes on."""

import json
import signal
import time
from pathlib import Path

from aiohttp import web
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.pages import blocks
from tests.acceptance.process import ROOT, environment, until
from tests.acceptance.worker_process import running
from tests.integration.jobs import counters
from tests.integration.workplace import Workplace, body

HANDLERS = {"WORKER_HANDLERS": "tests.acceptance.watched:handlers", "MAX_ATTEMPTS": "1"}


async def test_a_worker_bears_whatever_hooks_do_and_says_so(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    environ = environment(redis_server.url, tmp_path, BLOCKED_AFTER="300ms", **HANDLERS)
    async with running(environ) as (worker,):
        for misdeed in ("raise", "exit", "block", "hang"):
            await Workplace(redis).accept(body(f"evt_{misdeed}", data={"hook": misdeed}))
        failed = await worker.logged("failure_hook_failed", times=2)
        assert {line["error"] for line in failed} == {"ValueError: of a hook", "SystemExit: 3"}
        (blocked,) = await worker.logged("loop_blocked")
        assert blocked["handler"] == "on_error: tests.acceptance.watched.watch"
        assert blocked["event_id"] == "evt_block"
        assert "watched.py" in blocked["stack"]
        await Workplace(redis).accept(body("evt_after"))
        await worker.logged("event_handled", event_id="evt_after")
        assert (await counters(redis))["dead"] == 4
        assert worker.is_alive


async def test_a_worker_that_stops_lets_hooks_end_but_not_for_ever(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    environ = environment(redis_server.url, tmp_path, DRAIN_SECONDS="2s", **HANDLERS)
    async with running(environ) as (worker,):
        data = {"hook": "wait", "path": str(told)}
        await Workplace(redis).accept(body("evt_1", data=data))
        await worker.logged("event_dead")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert told.exists()
    async with running(environ) as (worker,):
        await Workplace(redis).accept(body("evt_2", data={"hook": "hang"}))
        await worker.logged("event_dead")
        began = time.monotonic()
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
        assert time.monotonic() - began < 2 + 5 + 5


async def test_the_program_of_the_page_tells_of_a_dead_letter(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    (text,) = (each for each in blocks("worker/README.md", "python") if "# alerts.py" in each)
    (tmp_path / "alerts.py").write_text(text)
    posted: list[dict[str, str]] = []

    async def post(request: web.Request) -> web.Response:
        posted.append(json.loads(await request.read()))
        return web.Response()

    application = web.Application()
    application.router.add_post("/alerts", post)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    environ = environment(
        redis_server.url,
        tmp_path,
        WORKER_HANDLERS="alerts:handlers",
        PYTHONPATH=f"{ROOT}:{tmp_path}",
        ALERTS_URL=f"http://127.0.0.1:{runner.addresses[0][1]}/alerts",
        MAX_ATTEMPTS="2",
    )
    try:
        async with running(environ):
            await Workplace(redis).accept(body("evt_1"))

            async def is_told() -> bool:
                return bool(posted)

            await until(is_told)
    finally:
        await runner.cleanup()
    (told,) = posted
    assert told["text"].startswith("org_a: evt_1 is dead after 2 attempts: exhausted")
    assert 'alerts.py", line ' in told["text"]
