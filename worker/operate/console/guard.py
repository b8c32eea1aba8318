"""Who may ask what: the checks in front of every page, and the headers behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

from aiohttp import web

from shared.errors import SellfernError
from worker.operate.console.context import SESSION, Console, console_of
from worker.operate.console.guesses import network
from worker.operate.console.sessions import SECONDS, Session
from worker.operate.console.settings import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM_TOKEN: Final = "form_token"  # noqa: S105  # the name of a field
"""The field of every form that changes something."""

PUBLIC: Final = frozenset({"/login", "/livez", "/readyz"})
"""What is answered without a session, besides the static files."""

STATIC: Final = "/static/"
SIGN_OUT: Final = "/logout"
BROWSER_SECONDS: Final = 90 * 86_400
"""How long a browser is known in which somebody has signed in."""

_LONGEST_NEXT: Final = 4096
_FORM_SECONDS: Final = 10.0  # from its head to its end

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
        await _read_form(request)
    if request.path in PUBLIC or request.path.startswith(STATIC):
        return await handler(request)
    session = _session(request, console)
    fresh = session is None
    if session is None:
        if console.settings.asks:
            return await _to_login(request)
        session = console.sessions.begin("local", has_token=False)
    request[SESSION] = session
    if request.method not in _SAFE:
        await _check_form(request, console, session)
        if request.path != SIGN_OUT:
            check_may_act(request)
    response = await handler(request)
    # One that is on its way has sent its headers.
    if fresh and not response.prepared:
        keep_session(request, response, session)
    return response


def check_host(request: web.Request, console: Console) -> None:
    """Refuse a name that isn't this machine's: some other site's name may lead here.

    Where a token is asked for, such a site has no session under its own name.
    """
    try:
        _ = request.url
    except ValueError:
        raise web.HTTPBadRequest(text="Host: expected the name of a host.") from None
    if console.settings.asks:
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


def check_may_act(request: web.Request) -> None:
    """Refuse who may only look."""
    session = request.get(SESSION)
    if session is None or not session.may_act:
        raise Refused(
            text="Whoever has signed in with CONSOLE_READ_TOKEN may look at everything, and change "
            "nothing. Sign out, and in again with CONSOLE_TOKEN."
        )


def place_of(request: web.Request, *, may_act: bool) -> str:
    """Where a token of a kind comes from: a browser in which it was right before, or an address.

    Who knows the one to look would else have as many places to guess the other one from as they
    like: each time they sign in, a browser more.
    """
    sealed = request.cookies.get(_browser_cookie(request), "")
    known = console_of(request).sessions.known_browser(sealed, may_act=may_act)
    return f"browser {known}" if known else network(request.remote)


def keep_session(request: web.Request, response: web.StreamResponse, session: Session) -> None:
    """Give the browser the session's cookie."""
    sealed = console_of(request).sessions.seal(session)
    _keep(request, response, cookie_name(request), sealed, SECONDS)


def keep_browser(request: web.Request, response: web.StreamResponse, *, may_act: bool) -> None:
    """Know the browser again, so that no guesses of others keep it from signing in like that."""
    sealed = console_of(request).sessions.seal_browser(may_act=may_act)
    _keep(request, response, _browser_cookie(request), sealed, BROWSER_SECONDS)


def _keep(
    request: web.Request, response: web.StreamResponse, name: str, value: str, seconds: int
) -> None:
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="Lax",  # links from an alert keep working; nothing changes by following one
        secure=is_https(request),
    )


def _browser_cookie(request: web.Request) -> str:
    return f"{cookie_name(request)}_browser"


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
    if session and console.settings.asks != session.has_token:
        return None
    return session


async def _to_login(request: web.Request) -> web.StreamResponse:
    if "HX-Request" in request.headers:  # a page that refreshes itself is to go there as a whole
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={"HX-Refresh": "true"})
    wanted = request.path_qs if request.method in _SAFE else await _asking_again(request)
    raise web.HTTPSeeOther(f"/login?next={quote(wanted, safe='')}")


async def _asking_again(request: web.Request) -> str:
    """The page that asks for what a form would have done, with what was typed into that."""
    if request.path == SIGN_OUT:
        return "/"
    # Of a run, which its own page asks for.
    path = request.path.removesuffix("/stop").removesuffix("/go-on")
    form = await request.post()
    typed = [
        (name, value)
        for name, value in form.items()
        if name != FORM_TOKEN and isinstance(value, str)
    ]
    wanted = f"{path}?{urlencode(typed, errors='surrogateescape')}"
    return wanted if len(wanted) <= _LONGEST_NEXT else path


async def _read_form(request: web.Request) -> None:
    """Read what a page's form sends, once for all who look at it."""
    is_ours = not request.content_type.startswith("multipart/")
    if not is_ours or (request.charset or "utf-8").lower() != "utf-8":
        raise web.HTTPUnsupportedMediaType(text="This isn't how the console's forms are sent.")
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="The form didn't come in time.") from None
    except (ValueError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="The form can't be read.") from None


async def _check_form(request: web.Request, console: Console, session: Session) -> None:
    token = (await request.post()).get(FORM_TOKEN, "")
    if not isinstance(token, str) or not console.sessions.is_form_token(session, token):
        raise Refused(
            text="This form is out of date, or it isn't the console's. Go back, reload the page, "
            "and do it again."
        )
