"""Runs: how far a replay or a discard of many has come, and stopping it."""

from aiohttp import web

from worker.operate.console.context import console_of, tell
from worker.operate.console.runs import Run
from worker.operate.console.views import render


async def show(request: web.Request) -> web.Response:
    """Show one."""
    return render(request, "run.html", run=_run(request))


async def stop(request: web.Request) -> web.Response:
    """End it where it is."""
    run = _run(request)
    await console_of(request).runs.stop(run)
    tell(request, "stop", run=run.id)
    raise web.HTTPSeeOther(f"/runs/{run.id}")


def _run(request: web.Request) -> Run:
    run = console_of(request).runs.find(request.match_info["run"])
    if run is None:
        raise web.HTTPNotFound
    return run


routes = [web.get("/runs/{run}", show), web.post("/runs/{run}/stop", stop)]
