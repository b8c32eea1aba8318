"""Signing in and out, and the probes."""

import re
from http import HTTPStatus
from math import ceil
from typing import Final

from aiohttp import web
from yarl import URL

from shared.settings.secret import Secret
from worker.operate.console.context import console_of, session_of
from worker.operate.console.guard import (
    SIGN_OUT,
    forget_session,
    keep_browser,
    keep_session,
    place_of,
)
from worker.operate.console.sessions import same_secret
from worker.operate.console.views import render

_NAME: Final = re.compile(r"[\w.@+ -]{1,64}")
# Not `//host` nor `/\host`, which lead elsewhere.
_HERE: Final = re.compile(r"/(?![/\\])[!-~]*")


async def ask(request: web.Request) -> web.Response:
    """Ask for a name and a token."""
    if not console_of(request).settings.asks:
        raise web.HTTPSeeOther("/")
    return _form(request)


async def sign_in(request: web.Request) -> web.StreamResponse:
    """Begin a session for who knows a token."""
    console = console_of(request)
    form = await request.post()
    name, token = str(form.get("name", "")).strip(), str(form.get("token", ""))
    may_act = _kind(request, token)
    if may_act is None:
        return _refused(request, name)
    if not _NAME.fullmatch(name):
        problem = "A name has up to 64 letters, digits, spaces or . @ + _ -."
        return _form(request, problem, name, HTTPStatus.FORBIDDEN)
    session = console.sessions.begin(name, has_token=True, may_act=may_act)
    console.log.info("console_signed_in", who=name, address=request.remote, may_act=may_act)
    response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": _next(request)})
    keep_session(request, response, session)
    keep_browser(request, response, may_act=may_act)
    return response


def _kind(request: web.Request, token: str) -> bool | None:
    """Whether who knows this token may act; ``None``: it isn't right, or isn't looked at."""
    settings, guesses = console_of(request).settings, console_of(request).guesses
    for may_act, expected in ((True, settings.token), (False, settings.read_token)):
        if not guesses.wait(place_of(request, may_act=may_act)) and _is(token, expected):
            return may_act
    return None


def _refused(request: web.Request, name: str) -> web.Response:
    """Take note of a wrong token, where it was looked at, and say so."""
    console = console_of(request)
    places = {place_of(request, may_act=may_act) for may_act in (True, False)}
    wait = ceil(max(map(console.guesses.wait, places)))
    looked_at = [each for each in places if not console.guesses.wait(each)]
    who = {"who": name[:64], "address": request.remote}
    if looked_at:
        console.log.warning("console_sign_in_refused", **who)
    if any([console.guesses.wrong(each) for each in looked_at]):  # noqa: C419  # each is told
        console.log.warning("console_sign_in_slowed", **who)
    if not wait:
        return _form(request, "That is not the token.", name, HTTPStatus.FORBIDDEN)
    problem = f"Too many wrong tokens have come from here. Try again in {wait} s."
    answer = _form(request, problem, name, HTTPStatus.TOO_MANY_REQUESTS)
    answer.headers["Retry-After"] = str(wait)
    return answer


def _is(token: str, expected: Secret) -> bool:
    # An empty one is nobody's: it isn't set.
    return same_secret(token, expected.reveal()) and bool(expected)


async def sign_out(request: web.Request) -> web.StreamResponse:
    """End the session, in whichever browser its cookie is."""
    console, session = console_of(request), session_of(request)
    if session is not None:
        console.sessions.end(session)
        console.log.info("console_signed_out", who=session.who, address=request.remote)
    response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/login"})
    forget_session(request, response)
    return response


async def livez(_: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"alive": True})


async def readyz(request: web.Request) -> web.Response:
    """Redis answers the console."""
    outage = console_of(request).sampler.outage
    status = HTTPStatus.SERVICE_UNAVAILABLE if outage else HTTPStatus.OK
    return web.json_response(
        {"ready": outage is None, "problems": [outage.cause.code] if outage else []}, status=status
    )


def _form(
    request: web.Request, problem: str = "", name: str = "", status: HTTPStatus = HTTPStatus.OK
) -> web.Response:
    return render(request, "login.html", status, problem=problem, name=name, next=_next(request))


def _next(request: web.Request) -> str:
    """Where to go afterwards; nowhere but here."""
    try:
        wanted = str(URL(request.query.get("next", "/")))
    except ValueError:  # a stranger's
        return "/"
    return wanted if _HERE.fullmatch(wanted) else "/"


routes = [
    web.get("/login", ask),
    web.post("/login", sign_in),
    web.post(SIGN_OUT, sign_out),
    web.get("/livez", livez),
    web.get("/readyz", readyz),
]
