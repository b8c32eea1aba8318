"""Signing in and out, and the probes."""

import asyncio
import re
from http import HTTPStatus
from typing import Final

from aiohttp import web
from yarl import URL

from worker.operate.console.context import console_of
from worker.operate.console.guard import forget_session, keep_session
from worker.operate.console.sessions import same_secret
from worker.operate.console.views import render

_NAME: Final = re.compile(r"[\w.@+ -]{1,64}")
# Not `//host` nor `/\host`, which lead elsewhere.
_HERE: Final = re.compile(r"/(?![/\\])[!-~]*")
_PENALTY_SECONDS: Final = 1.0


async def ask(request: web.Request) -> web.Response:
    """Ask for a name and the token."""
    if not console_of(request).settings.token:
        raise web.HTTPSeeOther("/")
    return _form(request)


async def sign_in(request: web.Request) -> web.StreamResponse:
    """Begin a session for who knows the token."""
    console = console_of(request)
    form = await request.post()
    name, token = str(form.get("name", "")).strip(), str(form.get("token", ""))
    if not console.settings.token or not same_secret(token, console.settings.token.reveal()):
        console.log.warning("console_sign_in_refused", who=name[:64], address=request.remote)
        # Whoever guesses waits, and nobody else does.
        await asyncio.sleep(_PENALTY_SECONDS)
        return _form(request, "That is not the token.", name)
    if not _NAME.fullmatch(name):
        return _form(request, "A name has up to 64 letters, digits, spaces or . @ + _ -.", name)
    session = console.sessions.begin(name, has_token=True)
    console.log.info("console_signed_in", who=name, address=request.remote)
    response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": _next(request)})
    keep_session(request, response, session)
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """Forget the session."""
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


def _form(request: web.Request, problem: str = "", name: str = "") -> web.Response:
    status = HTTPStatus.FORBIDDEN if problem else HTTPStatus.OK
    return render(request, "login.html", status, problem=problem, name=name, next=_next(request))


def _next(request: web.Request) -> str:
    """Where to go afterwards; nowhere but here."""
    wanted = str(URL(request.query.get("next", "/")))
    return wanted if _HERE.fullmatch(wanted) else "/"


routes = [
    web.get("/login", ask),
    web.post("/login", sign_in),
    web.post("/logout", sign_out),
    web.get("/livez", livez),
    web.get("/readyz", readyz),
]
