"""The organizations: how each one does, and stopping or resuming one."""

import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from shared.errors import Unavailable
from shared.queue import keys
from shared.redis.connection import REDIS_ERRORS
from worker.operate import organizations
from worker.operate.console.context import console_of, doubt_about, tell, who
from worker.operate.console.guard import check_may_act
from worker.operate.console.views import message, render
from worker.operate.overview import OrganizationOverview

_SIZE: Final = 100
_LONGEST_WHY: Final = 200
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
    sort = request.query.get("sort", "waiting")
    seen = console_of(request).sampler.organizations
    found = [each for each in seen if text in each.organization]
    shown = shown if shown in _SHOWN else ""
    found = list(filter(_SHOWN[shown], found))
    found.sort(key=_SORTS.get(sort, _SORTS["waiting"]))
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
        sort=sort if sort in _SORTS else "waiting",
        did=request.query.get("did", ""),
    )


async def ask(request: web.Request) -> web.Response:
    """Ask whether an organization is to be paused or resumed."""
    check_may_act(request)
    organization, verb = _named(request)
    doubt = ""
    with contextlib.suppress(*REDIS_ERRORS):  # whoever says yes is told
        doubt = await doubt_about(request, organization)
    return render(
        request,
        "organization_confirm.html",
        organization=organization,
        verb=verb,
        found=console_of(request).sampler.organization(organization),
        doubt=doubt,
        why=request.query.get("why", "")[:_LONGEST_WHY],
    )


async def act(request: web.Request) -> web.Response:
    """Pause or resume it."""
    organization, verb = _named(request)
    console = console_of(request)
    form = await request.post()
    if "anyway" not in form and (doubt := await doubt_about(request, organization)):
        return message(request, HTTPStatus.CONFLICT, "Nothing has changed", doubt)
    partition = await console.partitions.living(organization)
    why = ""
    try:
        if verb == "pause":
            given = str(form.get("why", "")).strip()[:_LONGEST_WHY]
            why = given or f"by {who(request)}"
            changed = await organizations.pause(partition, organization, why, who(request))
        else:
            changed = await organizations.resume(partition, organization)
    except Unavailable as exc:
        return message(request, HTTPStatus.CONFLICT, "Not now", f"{organization}: {exc.message}.")
    was = "was paused already" if verb == "pause" else "was neither paused nor held"
    outcome = "" if changed else was
    await tell(request, verb, organization=organization, about=why, outcome=outcome)
    await console.sampler.look()
    if not changed:
        return message(
            request, HTTPStatus.CONFLICT, "Nothing has changed", f"{organization} {was}."
        )
    # Somewhere else, so that reloading the page does nothing again.
    raise web.HTTPSeeOther(f"/organizations?q={organization}&did={verb}")


def _named(request: web.Request) -> tuple[str, str]:
    organization = request.match_info["organization"]
    if not keys.ORGANIZATION_PATTERN.fullmatch(organization):
        raise web.HTTPNotFound
    return organization, request.match_info["verb"]


def _page(request: web.Request) -> int:
    text = request.query.get("page", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0  # noqa: PLR2004  # no page is that far


_ACTION: Final = "/organizations/{organization}/{verb:pause|resume}"
routes = [web.get("/organizations", show), web.get(_ACTION, ask), web.post(_ACTION, act)]
