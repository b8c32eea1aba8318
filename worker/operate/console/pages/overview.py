"""What the system does, and people: the first page, the workers alive, the last actions."""

import time
from itertools import islice
from typing import Final

from aiohttp import web

from worker.operate.actions import last
from worker.operate.console.attention import findings
from worker.operate.console.charts import overview_charts
from worker.operate.console.context import console_of, reach_of
from worker.operate.console.views import render
from worker.operate.history import quantile
from worker.operate.runs import Run
from worker.operate.workers import WorkerOverview, running, summary

_MINUTES: Final = {"5": 5, "15": 15, "60": 60}
_LARGEST: Final = 8
_MOST_RUNS: Final = 5
_TOLD_SECONDS: Final = 86_400.0
_MOST: Final = 500


async def show(request: web.Request) -> web.Response:
    """Show it, from what was seen last: Redis isn't asked."""
    console = console_of(request)
    history, latest = console.sampler.history, console.sampler.latest
    minutes = _MINUTES.get(request.query.get("minutes", ""), 5)
    largest = console.sampler.ranked("largest", lambda each: -each.waiting)
    return render(
        request,
        "overview.html",
        findings=findings(latest, history) if latest else [],
        charts=overview_charts(history, minutes * 60),
        minutes=minutes,
        choices=list(_MINUTES.values()),
        largest=[*islice((each for each in largest if each.waiting or each.dead), _LARGEST)],
        handled_rate=history.rate("handled"),
        accepted_rate=history.rate("accepted"),
        p99=history.quantile(0.99),
        is_new=len(history.samples) < 2,  # noqa: PLR2004  # a rate needs two looks
        groups=console.sampler.groups,
        runs=[run for run in console.runs.known if _is_told(run)][:_MOST_RUNS],
    )


def _is_told(run: Run) -> bool:
    """Whether it goes on; or was to, and nobody has gone on with it since yesterday."""
    is_left = run.state == "interrupted" and time.time() - run.started < _TOLD_SECONDS
    return run.state == "running" or is_left


async def show_workers(request: web.Request) -> web.Response:
    """List the workers, from what was seen last."""
    latest = console_of(request).sampler.latest
    workers = latest.workers if latest else []
    return render(
        request,
        "workers.html",
        workers=[(each, _p99(each)) for each in workers],
        slots=sum(each.slots for each in workers),
        lost=latest.lost or [] if latest else [],
    )


async def show_running(request: web.Request) -> web.Response:
    """List what takes long now, from what was seen last."""
    latest = console_of(request).sampler.latest
    alive = latest.workers if latest else []
    found = running(alive)
    more = len(found[_MOST:]) + sum(each.more_doing for each in alive)
    told = summary(alive, latest.running) if latest else ""
    return render(request, "running.html", running=found[:_MOST], more=more, summary=told)


async def show_actions(request: web.Request) -> web.Response:
    """List what operators have done last, in any console and by commands."""
    return render(request, "actions.html", actions=await last(reach_of(request)))


def _p99(worker: WorkerOverview) -> float | None:
    return quantile({float(bound): n for bound, n in worker.latency.items()}, 0.99)


routes = [
    web.get("/", show),
    web.get("/workers", show_workers),
    web.get("/running", show_running),
    web.get("/actions", show_actions),
]
