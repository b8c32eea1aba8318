"""Dead letters: finding them, replaying or discarding one or many, and the runs that do so."""

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import urlencode

from aiohttp import web
from multidict import MultiMapping

from shared.queue.reach import Reach
from worker.operate import dead_letters as records
from worker.operate import revival
from worker.operate.console import paging
from worker.operate.console.context import console_of, doubt_about, reach_of, tell, who
from worker.operate.console.guard import check_may_act
from worker.operate.console.paging import Place, filled_in, filter_of
from worker.operate.console.runs import AT_ONCE
from worker.operate.console.views import message, render
from worker.operate.console.wording import from_reference, to_reference
from worker.operate.dead_letters import Selection
from worker.operate.dead_lists import number_of
from worker.operate.failure_groups import find
from worker.operate.runs import Run, Verb, new_id

_RUN: Final = re.compile(r"[A-Za-z0-9_-]{8,32}")
_VERBS: Final = frozenset({"replay", "discard"})
_RATE: Final = 100.0
_HIGHEST_RATE: Final = 10_000.0
_SPAN: Final = ("died_after", "died_before")
"""Of a filter, as the page that asks has it: who says yes later means no other ones."""

_LONGEST_MOMENT: Final = 15

_PRESSED_TWICE: Final = 10.0
"""Seconds within which the same page's button means the run that it has begun, though that is over.

Its page may stay open in a tab for hours: then whoever presses it means what is there by then."""

_MOST_PRESSED: Final = 100


async def show(request: web.Request) -> web.Response:
    """List a page of those that match."""
    console, reach = console_of(request), reach_of(request)
    given = filled_in(request.query)
    try:
        wanted = filter_of(given)
    except web.HTTPBadRequest as exc:
        page, number, problem = None, None, str(exc.text)
    else:
        after = Place.read(request.query.get("after", ""))
        page = await paging.read_page(reach, wanted, after)
        number, problem = await number_of(reach, wanted, at_once=True), ""
        if not page.letters and wanted.organization not in {None, "?"}:
            problem = await doubt_about(request, str(wanted.organization))
    return render(
        request,
        "dead_letters.html",
        page=page,
        number=number,
        problem=problem,
        given=given,
        is_filtered=bool(given),
        reasons=records.REASONS,
        organizations=sorted(
            each.organization for each in console.sampler.organizations if each.dead
        ),
        group=await find(reach, given.get("group", "")),
        after=request.query.get("after", ""),
        runs=console.runs.known,
        most=paging.MOST_LOOKED_AT,
    )


async def ask(request: web.Request) -> web.Response:
    """Ask whether these are to be replayed or discarded."""
    check_may_act(request)
    verb = _verb(request.query)
    reach = reach_of(request)
    selection, given = await _selection(reach, request.query)
    letters = await records.read_named(reach, selection.jobs, with_payload=False)
    if selection.jobs and not letters:
        return _not_there(request)
    return render(
        request,
        "dead_letters_confirm.html",
        verb=verb,
        jobs=[letter.job for letter in letters],
        given=given,
        span={name: getattr(selection.filter, name) for name in _SPAN},
        group=await find(reach, given.get("group", "")),
        number=len(letters) or await number_of(reach, selection.filter),
        letters=letters,
        limit=request.query.get("limit", "")[:8],
        rate=f"{_rate(request.query.get('rate', '')):g}",
        force="force" in request.query,
        run_id=new_id(reach),
    )


async def act(request: web.Request) -> web.Response:
    """Do it: one at once, several as a run."""
    form = cast("MultiMapping[str]", await request.post())
    verb = _verb(form)
    selection, given = await _selection(reach_of(request), form)
    # One needs no run to be watched: what became of it is shown on its own page.
    if len(selection.jobs) == 1:
        return await _one(request, verb, selection.jobs[0], force="force" in form)
    limit = None if selection.jobs or verb == "discard" else _limit(form.get("limit", ""))
    sample = "" if limit is None else f"the oldest {limit:,} of: "
    run = Run(
        verb=verb,
        about=sample + _about(selection, given),
        who=who(request),
        address=request.remote or "",
        total=len(selection.jobs) or await number_of(reach_of(request), selection.filter),
        rate=_rate(form.get("rate", "")),
        force="force" in form,
        limit=limit,
        selection=selection,
        id=await _id_of(request, form.get("run", "")),
    )
    return await _start(request, run, verb, "begun")


async def _id_of(request: web.Request, drawn: str) -> str:
    """What a run is called: as its page has drawn, unless that one was over long ago.

    Then by its number behind that, so that a second press means the same one again.
    """
    run_id = _run_id(drawn)
    for again in range(2, _MOST_PRESSED):
        run = await console_of(request).runs.find(run_id) if run_id else None
        if run is None or run.state == "running" or time.time() - run.started < _PRESSED_TWICE:
            break
        run_id = _run_id(f"{drawn}-{again}")
    return run_id or new_id(reach_of(request))


async def _start(request: web.Request, run: Run, action: str, outcome: str) -> web.Response:
    """Begin it, or take it up, unless somebody has: a second press comes to the same page."""
    runs = console_of(request).runs
    if runs.is_full and not runs.goes_on(run.id):
        text = f"{AT_ONCE} runs go on already. Wait for one, or stop it."
        return message(request, HTTPStatus.CONFLICT, "Not now", text)
    if await runs.start(run) == "begun":
        await tell(request, action, run=run.id, about=run.about, outcome=outcome)
    # Somewhere else, so that reloading the page does nothing again.
    raise web.HTTPSeeOther(f"/runs/{run.id}")


async def _one(request: web.Request, verb: Verb, job: str, *, force: bool) -> web.Response:
    console = console_of(request)
    reach = reach_of(request)
    letter = await records.find_anywhere(reach, job)
    if letter is None and reach.missing:
        return _not_there(request)
    if letter is None:
        outcome = "absent"
    elif verb == "discard":
        retention = console.settings.dedupe_retention
        partition = console.partitions.all[letter.partition]
        outcome = await revival.discard(partition, letter.job, retention=retention)
    else:
        partition = console.partitions.all[letter.partition]
        outcome = await revival.revive(partition, letter, force=force, who=who(request))
    organization = letter.organization if letter else ""
    await tell(request, verb, organization=organization, job=job, outcome=outcome)
    await console.sampler.look()
    told = {"job": to_reference(job), "id": letter.event_id if letter else "", "did": outcome}
    raise web.HTTPSeeOther(f"/event?{urlencode(told)}")


def _not_there(request: web.Request) -> web.Response:
    if reach_of(request).missing:
        text = "What was meant may be where Redis can't be read just now. Nothing was changed."
        return message(request, HTTPStatus.SERVICE_UNAVAILABLE, "Not found", text)
    text = "These dead letters are not there any more."
    return message(request, HTTPStatus.NOT_FOUND, "Gone", text)


def _verb(values: Mapping[str, object]) -> Verb:
    verb = str(values.get("verb", ""))
    if verb not in _VERBS:
        raise web.HTTPBadRequest(text="Expected replay or discard.")
    return cast("Verb", verb)


async def _selection(reach: Reach, values: MultiMapping[str]) -> tuple[Selection, dict[str, str]]:
    """What is meant; never everything by accident, nor more than somebody was shown."""
    jobs = tuple(dict.fromkeys(from_reference(each) for each in values.getall("job", [])))
    if jobs:
        return await Selection(jobs[: paging.SIZE]).by_names_of_now(reach), {}
    if "all" not in values:
        raise web.HTTPBadRequest(text="Choose at least one dead letter, or all that match.")
    given = filled_in(values)
    wanted = await records.those_of_now(reach, filter_of(given))
    after, before = (_moment(values.get(name, "")) for name in _SPAN)
    if before is not None:  # else nobody has been shown any
        since = wanted.died_after if after is None else after
        wanted = replace(wanted, died_after=since, died_before=before)
    return Selection(filter=wanted), given


def _moment(text: str) -> int | None:
    is_one = text.isascii() and text.isdigit() and len(text) <= _LONGEST_MOMENT
    return int(text) if is_one else None


def _rate(text: str) -> float:
    # A pace that can't be read is no reason to refuse what somebody has just confirmed.
    try:
        rate = float(text or _RATE)
    except ValueError:
        return _RATE
    return min(_HIGHEST_RATE, max(1.0, rate)) if rate == rate else _RATE  # noqa: PLR0124  # not for NaN


def _limit(text: str) -> int | None:
    """How many a sample is of; what can't be read is no reason to replay all."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text)):  # noqa: PLR2004  # more than there can be
        raise web.HTTPBadRequest(text="Only the oldest: expected a number from 1 to 9,999,999.")
    return int(text)


def _about(selection: Selection, given: Mapping[str, str]) -> str:
    if selection.jobs:
        return f"{len(selection.jobs)} chosen"
    return ", ".join(f"{name} {text}" for name, text in given.items()) or "all"


async def show_run(request: web.Request) -> web.Response:
    """Show how far a run is, and how far it was where nobody goes on with it."""
    did = request.query.get("did", "")
    return render(request, "run.html", run=await _run(request), did=did)


async def stop_run(request: web.Request) -> web.Response:
    """End it where it is, unless somebody has taken it up since that page was shown."""
    run, form = await _run(request), await request.post()
    if run.state == "running" and form.get("times", str(run.times)) != str(run.times):
        raise web.HTTPSeeOther(f"/runs/{run.id}?did=nothing")
    if run.state == "running":
        await console_of(request).runs.stop(run, who(request))
        await tell(request, "stop", run=run.id, about=run.about)
    raise web.HTTPSeeOther(f"/runs/{run.id}")


async def take_up_run(request: web.Request) -> web.Response:
    """Go on with it here, once nobody else does."""
    run, form = await _run(request), await request.post()
    # Else somebody has, since that page was shown, and what has come of it is for who looks at it.
    if run.can_be_taken_up and form.get("times") == str(run.times):
        return await _start(
            request, run.again(who(request), request.remote or ""), "take up", run.verb
        )
    raise web.HTTPSeeOther(f"/runs/{run.id}")


async def _run(request: web.Request) -> Run:
    run_id = _run_id(request.match_info["run"])
    run = await console_of(request).runs.find(run_id) if run_id else None
    if run is None:
        raise web.HTTPNotFound
    return run


def _run_id(text: object) -> str:
    """A text, if it may be a run's id; else nothing."""
    return text if isinstance(text, str) and _RUN.fullmatch(text) else ""


routes = [
    web.get("/dead-letters", show),
    web.get("/dead-letters/confirm", ask),
    web.post("/dead-letters/confirm", act),
    web.get("/runs/{run}", show_run),
    web.post("/runs/{run}/stop", stop_run),
    web.post("/runs/{run}/go-on", take_up_run),
]
