"""Who may ask what: the checks in front of every page, and the headers behind it."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from aiohttp import web

from shared.errors import SellfernError
from worker.operate.console.context import SESSION, Console, console_of
from worker.operate.console.sessions import SECONDS, Session
from worker.operate.console.settings import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM_TOKEN: Final = "form_token"  # noqa: S105  # the name of a field
"""The field of every form that changes something."""

PUBLIC: Final = frozenset({"/login", "/livez", "/readyz"})
"""What is answered without a session, besides the static files."""

STATIC: Final = "/static/"

_SAFE: Final = frozenset({"GET", "HEAD"})
_HEADERS: Final = {
    # Only scripts and styles of our own: what might slip through the escaping can't run.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # with less, browsers send forms with Origin: null
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(SellfernError, web.HTTPForbidden):
    """A request that is refused; its text says why."""


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """What every answer bears."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request through to its page, with its session."""
    console = console_of(request)
    check_host(request, console)
    if request.method not in _SAFE:
        check_origin(request)
    if request.path in PUBLIC or request.path.startswith(STATIC):
        return await handler(request)
    session = _session(request, console)
    fresh = session is None
    if session is None:
        if console.settings.token:
            return _to_login(request)
        session = console.sessions.begin("local", has_token=False)
    request[SESSION] = session
    if request.method not in _SAFE:
        await _check_form(request, console, session)
    response = await handler(request)
    # One that is on its way has sent its headers.
    if fresh and not response.prepared:
        keep_session(request, response, session)
    return response


def check_host(request: web.Request, console: Console) -> None:
    """Refuse a name that isn't this machine's: some other site's name may lead here.

    Where a token is asked for, such a site has no session under its own name.
    """
    if console.settings.token:
        return
    name = request.host.rpartition(":")[0] if _has_port(request.host) else request.host
    if not is_loopback(name) and name.strip("[]") not in console.settings.address.hosts:
        raise Refused(
            text="This console listens on loopback without a token, so it answers only to names of "
            "this machine such as localhost. Set CONSOLE_TOKEN to serve it under another name."
        )


def check_origin(request: web.Request) -> None:
    """Refuse what a page of another site has a browser send."""
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if origin is None or origin.partition("://")[2] != request.host or site != "same-origin":
        raise Refused(text="This request doesn't come from a page of the console.")


def keep_session(request: web.Request, response: web.StreamResponse, session: Session) -> None:
    """Give the browser the session's cookie."""
    response.set_cookie(
        cookie_name(request),
        console_of(request).sessions.seal(session),
        max_age=SECONDS,
        path="/",
        httponly=True,
        samesite="Lax",  # links from an alert keep working; nothing changes by following one
        secure=is_https(request),
    )


def forget_session(request: web.Request, response: web.StreamResponse) -> None:
    """Take the cookie back."""
    response.del_cookie(cookie_name(request), path="/")


def cookie_name(request: web.Request) -> str:
    """Of this console alone: browsers don't tell the ports of a host apart."""
    return f"sellfern_console_{request.url.port or 80}"


def is_https(request: web.Request) -> bool:
    """Whether the browser speaks TLS, perhaps to a proxy; nothing but a stricter cookie follows."""
    return request.secure or request.headers.get("X-Forwarded-Proto") == "https"


def _has_port(host: str) -> bool:
    return ":" in host and not host.endswith("]")


def _session(request: web.Request, console: Console) -> Session | None:
    session = console.sessions.open(request.cookies.get(cookie_name(request), ""))
    if session and bool(console.settings.token) != session.has_token:
        return None
    return session


def _to_login(request: web.Request) -> web.StreamResponse:
    if request.method not in _SAFE:
        raise Refused(text="Your session is over. Sign in, then do it again.")
    if "HX-Request" in request.headers:  # a page that refreshes itself is to go there as a whole
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={"HX-Refresh": "true"})
    raise web.HTTPSeeOther(f"/login?next={quote(request.path_qs, safe='')}")


async def _check_form(request: web.Request, console: Console, session: Session) -> None:
    token = (await request.post()).get(FORM_TOKEN, "")
    if not isinstance(token, str) or not console.sessions.is_form_token(session, token):
        raise Refused(
            text="This form is out of date, or it isn't the console's. Go back, reload the page, "
            "and do it again."
        )
