"""Failure groups: the largest ones, and one with what came of replaying some of it."""

from http import HTTPStatus
from typing import Final

from aiohttp import web

from worker.operate import dead_letters as records
from worker.operate import failure_groups
from worker.operate.console.context import console_of, doubt_about, reach_of
from worker.operate.console.paging import filled_in, filter_of
from worker.operate.console.views import message, render
from worker.operate.failure_groups import MINUTES
from worker.operate.runs import new_id

_MOST: Final = 30
_MOST_SHOWN: Final = 500
_FIELDS: Final = ("organization", "reason", "type")
_SAMPLE: Final = 5
_RUNS: Final = 3


async def show(request: web.Request) -> web.Response:
    """List the largest ones that match."""
    reach = reach_of(request)
    given = filled_in(request.query, _FIELDS)
    most = _MOST if request.query.get("most", "") in {"", str(_MOST)} else _MOST_SHOWN
    groups, number, unlisted, problem = list[failure_groups.FailureGroup](), None, 0, ""
    try:
        wanted = filter_of(given)
    except web.HTTPBadRequest as exc:
        problem = str(exc.text)
    else:
        groups, number = await failure_groups.largest(reach, wanted, most + 1)
        unlisted = await failure_groups.unlisted(reach)
        if not groups and wanted.organization not in {None, "?"}:
            problem = await doubt_about(request, str(wanted.organization))
    return render(
        request,
        "failure_groups.html",
        groups=groups[:most],
        number=number,
        is_cut=len(groups) > most,
        most=most,
        most_shown=_MOST_SHOWN,
        unlisted=unlisted,
        minutes=MINUTES,
        problem=problem,
        given=given,
        reasons=records.REASONS,
    )


async def show_one(request: web.Request) -> web.Response:
    """Show one, with its last letter, and what came of those that were replayed."""
    reach = reach_of(request)
    group_id = request.query.get("id", "")
    group = await failure_groups.find(reach, group_id)
    if group is None:
        return _gone(request)
    letters = await records.read_named(reach, [group.sample])
    about = f"group {group.id}"
    return render(
        request,
        "failure_group.html",
        group=group,
        letter=letters[0] if letters else None,
        runs=[run for run in console_of(request).runs.known if about in run.about][:_RUNS],
        sample_size=_SAMPLE,
        run_id=new_id(reach),
        given=filled_in(request.query, _FIELDS),
    )


def _gone(request: web.Request) -> web.Response:
    if reach_of(request).missing:
        text = "The group may be where Redis can't be read just now."
        return message(request, HTTPStatus.SERVICE_UNAVAILABLE, "Not found", text)
    text = (
        "No dead letter is in this group any more: all were replayed or discarded, or have expired."
    )
    return message(request, HTTPStatus.NOT_FOUND, "None left", text)


routes = [
    web.get("/dead-letters/groups", show),
    web.get("/dead-letters/group", show_one),
]
