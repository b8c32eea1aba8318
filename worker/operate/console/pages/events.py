"""Events: where one is, found by its id or its job, and those that have waited longest."""

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from shared.queue import keys
from shared.queue.job import organization_of
from worker.operate import lookup
from worker.operate.console.context import console_of, doubt_about, reach_of
from worker.operate.console.views import render
from worker.operate.console.wording import from_reference
from worker.operate.failure_groups import find
from worker.operate.lookup import FoundEvent
from worker.operate.searching import Search, search_everywhere
from worker.operate.timeline import timeline

_LONGEST: Final = 512
_SHOWN_BYTES: Final = 64 * 1024


async def search(request: web.Request) -> web.Response:
    """Find events, or list the oldest unfinished ones."""
    reach = reach_of(request)
    typed = request.query.get("q", "")[:_LONGEST]
    text = typed.strip()  # as it comes with what is copied
    organization = request.query.get("organization", "").strip()[:_LONGEST]
    if organization and not keys.ORGANIZATION_PATTERN.fullmatch(organization):
        problem = "Organization: expected up to 64 letters, digits, _ or -."
        return _listed(request, text, organization, problem=problem)
    if not text:
        return _listed(request, text, organization, oldest=await lookup.oldest(reach))
    search = await search_everywhere(reach, text, organization or None)
    if not search.found and typed != text:  # an id may begin or end with blanks
        search = await search_everywhere(reach, typed, organization or None)
    if len(search.found) == 1:
        return await _shown(request, search.found[0])
    problem = "" if search.found or not organization else await doubt_about(request, organization)
    return _listed(request, text, organization, search=search, problem=problem)


def _listed(  # what the page shows
    request: web.Request,
    text: str,
    organization: str,
    *,
    problem: str = "",
    search: Search | None = None,
    oldest: Sequence[FoundEvent] = (),
) -> web.Response:
    return render(
        request,
        "events.html",
        text=text,
        organization=organization,
        problem=problem,
        search=search,
        found=search.found if search else [],
        oldest=oldest,
    )


async def show(request: web.Request) -> web.Response:
    """Show one."""
    reach = reach_of(request)
    job = from_reference(request.query.get("job", ""))
    found = await lookup.find_anywhere(reach, job)
    event_id = request.query.get("id", "")
    if found is None and event_id:  # it has left the queue, but perhaps with a mark
        bearing = reach.partitions.bearing(job := await reach.name_now(job))
        organization = organization_of(job, bearing.names.job_prefix if bearing else "")
        partition = bearing or await reach.living(organization)
        found = await lookup.find_by_mark(partition, organization, event_id)
    if found is None:
        return render(request, "event_gone.html", job=job)
    return await _shown(request, found)


async def _shown(request: web.Request, found: FoundEvent) -> web.Response:
    console = console_of(request)
    body = found.body if console.settings.show_payloads else None
    return render(
        request,
        "event.html",
        event=found,
        group=await find(reach_of(request), found.letter.group_id) if found.letter else None,
        timeline=timeline(found),
        organization=console.sampler.organization(found.organization),
        size=None if found.body is None else len(found.body),
        body=None if body is None else body[:_SHOWN_BYTES].decode(errors="backslashreplace"),
        is_cut=body is not None and len(body) > _SHOWN_BYTES,
        did=request.query.get("did", ""),
    )


routes = [web.get("/events", search), web.get("/event", show)]
