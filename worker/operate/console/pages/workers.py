"""The workers that are alive, each with its version and its load."""

from aiohttp import web

from worker.operate.console.context import console_of
from worker.operate.console.views import render
from worker.operate.history import quantile
from worker.operate.overview import WorkerOverview


async def show(request: web.Request) -> web.Response:
    """List them, from what was seen last."""
    latest = console_of(request).sampler.latest
    workers = latest.workers if latest else []
    return render(
        request,
        "workers.html",
        workers=[(each, _p99(each)) for each in workers],
        slots=sum(each.slots for each in workers),
    )


def _p99(worker: WorkerOverview) -> float | None:
    return quantile({float(bound): n for bound, n in worker.latency.items()}, 0.99)


routes = [web.get("/workers", show)]
