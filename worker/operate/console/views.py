"""Turns what a page knows into HTML; everything that is shown goes through here, escaped."""

import time
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined

from shared.display import escape_controls, size
from worker.operate.console.context import console_of, session_of
from worker.operate.console.guard import FORM_TOKEN
from worker.operate.console.references import to_reference
from worker.operate.console.wording import age, duration, short, timestamp

_STATIC: Final = files("worker.operate.console").joinpath("static")
_TYPES: Final = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
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
    undefined=StrictUndefined,
    finalize=_as_text,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals |= {"static": _static, "query": _query, "now": time.time}
_environment.filters |= {
    "age": age,
    "short": short,
    "duration": duration,
    "timestamp": timestamp,
    "size": size,
    "reference": to_reference,
    "number": lambda value: f"{value:,}",
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
        overview=console.sampler.latest,
        path=request.path,
        here=request.path_qs,
        is_live=request.query.get("live") != "off",
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
