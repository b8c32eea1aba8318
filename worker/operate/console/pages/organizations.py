"""The organizations: how each one does, all of one on a page, and stopping or resuming one."""

import contextlib
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from shared.endpoints.endpoint import Rate
from shared.errors import Unavailable
from shared.queue import keys
from shared.redis.connection import REDIS_ERRORS
from worker.operate import failure_groups, organizations, waiting
from worker.operate.console.context import console_of, doubt_about, reach_of, tell, who
from worker.operate.console.guard import check_may_act
from worker.operate.console.views import message, render
from worker.operate.dead_lists import Filter
from worker.operate.overview import OrganizationOverview
from worker.operate.runs import new_id
from worker.operate.workers import running

_SIZE: Final = 25
_LONGEST_RATE: Final = 20
_MOST_GROUPS: Final = 10
_SAMPLE: Final = 5
_SORTS: Final[dict[str, Callable[[OrganizationOverview], Any]]] = {
    "waiting": lambda each: (-each.waiting, each.organization),
    "running": lambda each: (-each.running, each.organization),
    "failing": lambda each: (
        *(-each.failures, -(each.trouble.failed if each.trouble else 0), each.organization),
    ),
    "dead": lambda each: (-each.dead, each.organization),
    "bytes": lambda each: (-each.bytes_held, each.organization),
    "name": lambda each: each.organization,
}
_SHOWN: Final[dict[str, Callable[[OrganizationOverview], bool]]] = {
    "": lambda _: True,
    "held": lambda each: bool(
        each.paused is not None
        or each.breaker
        or each.failures
        or each.trouble
        or each.throttled is not None
    ),
    "paused": lambda each: each.paused is not None,
}


async def show(request: web.Request) -> web.Response:
    """List them, from what was seen last."""
    text, shown = request.query.get("q", ""), request.query.get("show", "")
    shown = shown if shown in _SHOWN else ""
    sort = request.query.get("sort", "waiting")
    sort = sort if sort in _SORTS else "waiting"
    found = console_of(request).sampler.ranked((sort, shown), _SORTS[sort], _SHOWN[shown])
    found = [each for each in found if text in each.organization] if text else found
    page = _page(request)
    return render(
        request,
        "organizations.html",
        organizations=found[page * _SIZE : (page + 1) * _SIZE],
        number=len(found),
        page=page,
        has_more=len(found) > (page + 1) * _SIZE,
        text=text,
        shown=shown,
        sort=sort,
    )


async def show_one(request: web.Request) -> web.Response:
    """Show one: what was seen last of it, what waits of it, and what it died of."""
    name, console, reach = _named(request), console_of(request), reach_of(request)
    found, latest = console.sampler.organization(name), console.sampler.latest
    groups, number = await failure_groups.largest(reach, Filter(organization=name), _MOST_GROUPS)
    looks = [await waiting.look(each, name, time.time()) for each in await reach.holding(name)]
    long = running(latest.workers if latest else [])
    return render(
        request,
        "organization.html",
        name=name,
        found=found,
        doubt="" if found else await doubt_about(request, name),
        # While it moves it may be in both: then it is the same.
        waiting=max(looks, key=lambda each: each.number),
        running=[each for each in long if each.organization == name],
        groups=groups,
        group_number=number or 0,
        sample_size=_SAMPLE,
        run_id=new_id(reach),
        did=request.query.get("did", ""),
    )


async def ask(request: web.Request) -> web.Response:
    """Ask whether an organization is to be paused or resumed."""
    check_may_act(request)
    return await _asked(request)


async def _asked(request: web.Request, problem: str = "", rate: str = "") -> web.Response:
    organization, verb = _named(request), request.match_info["verb"]
    doubt = ""
    with contextlib.suppress(*REDIS_ERRORS):  # whoever says yes is told
        doubt = await doubt_about(request, organization)
    return render(
        request,
        "organization_confirm.html",
        HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK,
        organization=organization,
        verb=verb,
        found=console_of(request).sampler.organization(organization),
        doubt=doubt,
        problem=problem,
        # Of a form that was sent once the session was over, too.
        why=request.query.get("why", "")[: organizations.LONGEST_WHY],
        rate=rate or request.query.get("rate", "")[:_LONGEST_RATE],
    )


async def act(request: web.Request) -> web.Response:
    """Pause or resume it."""
    organization, verb = _named(request), request.match_info["verb"]
    console = console_of(request)
    form = await request.post()
    if "anyway" not in form and (doubt := await doubt_about(request, organization)):
        return message(request, HTTPStatus.CONFLICT, "Nothing has changed", doubt)
    about = str(form.get("why" if verb == "pause" else "rate", "")).strip()
    about = about[: organizations.LONGEST_WHY]
    try:
        starts = 1000 / Rate.parse(about).interval if verb == "resume" and about else None
    except ValueError as exc:
        return await _asked(request, f"Rate: expected {exc}, got {about}.", about)
    partition = await console.partitions.living(organization)
    try:
        if verb == "pause":
            about = about or f"by {who(request)}"
            changed = await organizations.pause(partition, organization, about, who(request))
        else:
            about = f"at {starts:g}/s" if starts else ""
            changed = await organizations.resume(partition, organization, starts)
    except Unavailable as exc:
        return message(request, HTTPStatus.CONFLICT, "Not now", f"{organization}: {exc.message}.")
    was = "was paused already" if verb == "pause" else "was neither paused nor held"
    outcome = "" if changed else was
    await tell(request, verb, organization=organization, about=about, outcome=outcome)
    await console.sampler.look()
    if not changed:
        return message(
            request, HTTPStatus.CONFLICT, "Nothing has changed", f"{organization} {was}."
        )
    # Somewhere else, so that reloading the page does nothing again.
    raise web.HTTPSeeOther(f"/organizations/{organization}?did={verb}")


def _named(request: web.Request) -> str:
    organization = request.match_info["organization"]
    if not keys.ORGANIZATION_PATTERN.fullmatch(organization):
        raise web.HTTPNotFound
    return organization


def _page(request: web.Request) -> int:
    text = request.query.get("page", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0  # noqa: PLR2004  # no page is that far


_ACTION: Final = "/organizations/{organization}/{verb:pause|resume}"
routes = [
    web.get("/organizations", show),
    web.get("/organizations/{organization}", show_one),
    web.get(_ACTION, ask),
    web.post(_ACTION, act),
]
