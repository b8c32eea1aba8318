"""Turns what a page knows, or why it fails, into HTML; all that is shown is escaped here."""

import time
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from shared.display import clock, counted, duration, escape_controls, size
from shared.queue.keys import ORGANIZATION_PATTERN
from shared.redis.connection import REDIS_ERRORS
from worker.operate.console.context import console_of, missing_in, session_of
from worker.operate.console.guard import FORM_TOKEN, Handler, Refused
from worker.operate.console.wording import age, by_kind, short, to_reference

_TEXTS: Final = {
    HTTPStatus.NOT_FOUND: ("Nothing here", "There is no such page, or what it showed is gone."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Not like this", "This page can only be looked at."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("Too large", "The form is larger than forms are here."),
}


_STATIC: Final = files("worker.operate.console").joinpath("static")
_TYPES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# All of them at the start: no request comes to name a file of the disk.
_FILES: Final = {name: _STATIC.joinpath(name).read_bytes() for name in _TYPES}
_VERSIONS: Final = {name: sha256(body).hexdigest()[:12] for name, body in _FILES.items()}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


def _as_text(value: object) -> object:
    """What came from outside can't reorder or hide a line, as in terminals."""
    return escape_controls(value) if type(value) is str else value


def _static(name: str) -> str:
    """The address of a file, another one for other contents."""
    return f"/static/{name}?v={_VERSIONS[name]}"


def _query(**values: object) -> str:
    """A query of those values that are there."""
    return urlencode(
        {name: str(value) for name, value in values.items() if value not in {None, ""}},
        errors="surrogateescape",
    )


_environment: Final = Environment(
    loader=PackageLoader("worker.operate.console"),
    autoescape=True,
    # A name that a template mistypes is an error, not an empty place.
    undefined=StrictUndefined,
    finalize=_as_text,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"static": _static, "query": _query, "now": time.time, "zip": zip}
_environment.tests["organization"] = lambda name: bool(ORGANIZATION_PATTERN.fullmatch(name))
_environment.filters |= {
    "age": age,
    "short": short,
    "duration": duration,
    "timestamp": clock,
    "size": size,
    "by_kind": by_kind,
    "reference": to_reference,
    "number": lambda value: f"{value:,}",
    "counted": counted,
}


def render(
    request: web.Request, template: str, status: HTTPStatus = HTTPStatus.OK, **values: Any
) -> web.Response:
    """A page.

    Args:
        request: it answers.
        template: its name.
        status: of the answer.
        values: what the template shows.
    """
    console, session = console_of(request), session_of(request)
    text = _environment.get_template(template).render(
        console=console,
        session=session,
        outage=console.sampler.outage,
        missing=missing_in(request),
        overview=console.sampler.latest,
        path=request.path or "/",  # that of a CONNECT is none
        here=request.path_qs,
        is_live=request.query.get("live") != "off",
        may_act=session is not None and session.may_act,
        form_token=console.sessions.form_token(session) if session else "",
        form_token_name=FORM_TOKEN,
        **values,
    )
    return web.Response(text=text, status=status, content_type="text/html")


def message(request: web.Request, status: HTTPStatus, title: str, text: str) -> web.Response:
    """A page that says one thing."""
    return render(request, "message.html", status, title=title, text=text)


async def static_file(request: web.Request) -> web.Response:
    """One of the few files that pages need."""
    name = request.match_info["name"]
    if name not in _FILES:
        raise web.HTTPNotFound
    is_current = request.query.get("v") == _VERSIONS[name]
    return web.Response(
        body=_FILES[name],
        content_type=_TYPES[name],
        headers={"Cache-Control": _FOR_EVER if is_current else "no-cache"},
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Show a page for whatever went wrong."""
    try:
        return await handler(request)
    except Refused as exc:
        console_of(request).log.warning(
            "console_refused", path=request.path, address=request.remote, why=exc.text
        )
        return message(request, HTTPStatus.FORBIDDEN, "Refused", str(exc.text))
    except web.HTTPRedirection:
        raise
    except web.HTTPException as exc:
        status = HTTPStatus(exc.status)
        title, text = _TEXTS.get(status, (status.phrase, exc.text or status.description))
        return message(request, status, title, text)
    except REDIS_ERRORS as exc:
        console = console_of(request)
        if len(console.partitions) == 1:  # of several, the next look tells which one is away
            console.sampler.lost(exc)
        return message(
            request,
            HTTPStatus.SERVICE_UNAVAILABLE,
            "Redis does not answer",
            "What you asked for can't be read or done just now. Nothing is lost by waiting: "
            "events that were accepted stay where they are. Whether an action that you have just "
            "confirmed was done is unknown; look when Redis is back.",
        )
    except Exception:  # noqa: BLE001  # a page that fails must not end the console
        console_of(request).log.exception("console_page_failed", path=request.path)
        return message(
            request,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "This page failed",
            "The console's log says why.",
        )
