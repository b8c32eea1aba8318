"""What only the simulator has: control endpoints for programs, and a page for people."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from html import escape
from http import HTTPStatus
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from deploy.sellfern import answer
from deploy.sellfern.answer import Refused, invalid
from deploy.sellfern.delivery import Delivery
from deploy.sellfern.endpoint import Endpoint
from deploy.sellfern.event import timestamp
from deploy.sellfern.fault import read_faults
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.errors import SettingsError
from shared.sellfern import identifier
from shared.sellfern.identifier import Id

Handler = Callable[[web.Request], Awaitable[object]]

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Knobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The knobs that may be turned while it runs; None leaves one as it is."""

    rate: Annotated[float, msgspec.Meta(ge=0, le=100_000)] | None = None
    duplicates: _Share | None = None
    disorder: _Share | None = None
    bad_signatures: _Share | None = None
    latency: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event that is asked for.

    Attributes:
        type: such as ``order.updated``.
        organization: whose; it may be left out where only one has a key.
        data: of the event; by default something consistent.
        wait: whether the answer waits for the end of its deliveries.
    """

    type: str = "order.updated"
    organization: Id | None = None
    data: dict[str, Any] | None = None
    wait: bool = True


class Control:
    """Answers control requests.

    Args:
        sellfern: what they show and change.
    """

    def __init__(self, sellfern: Sellfern) -> None:
        self._sellfern = sellfern

    def routes(self) -> list[web.RouteDef]:
        """Every control endpoint at its place."""
        return [
            web.get("/_control/faults", _answering(self._faults)),
            web.post("/_control/faults", _answering(self._order)),
            web.delete("/_control/faults", _answering(self._clear)),
            web.post("/_control/events", _answering(self._event)),
            web.get("/_control/knobs", _answering(self._knobs)),
            web.patch("/_control/knobs", _answering(self._turn)),
            web.get("/_control/requests", _answering(self._requests)),
            web.get("/_control/endpoints", _answering(self._endpoints)),
            web.get("/_control/counts", _answering(self._counts)),
        ]

    async def _faults(self, _: web.Request) -> object:
        return self._sellfern.faults.left

    async def _order(self, request: web.Request) -> object:
        try:
            faults = read_faults(await request.read())
        except ValueError as exc:
            raise invalid(str(exc)) from exc
        self._sellfern.faults.add(*faults)
        return self._sellfern.faults.left

    async def _clear(self, _: web.Request) -> object:
        self._sellfern.faults.clear()
        return self._sellfern.faults.left

    async def _event(self, request: web.Request) -> object:
        wish = _read(await request.read() or b"{}", Wish)
        try:
            event, deliveries = await self._sellfern.publish(
                wish.type, wish.organization, wish.data
            )
        except SettingsError as exc:
            raise invalid(str(exc)) from exc
        for delivery in deliveries:
            if wish.wait:
                await delivery.ended.wait()
        body = msgspec.Raw(event.encode())
        return {"event": body, "deliveries": [each.shown() for each in deliveries]}

    async def _knobs(self, _: web.Request) -> object:
        settings = self._sellfern.settings
        return {name: getattr(settings, name) for name in Knobs.__struct_fields__}

    async def _turn(self, request: web.Request) -> object:
        knobs = msgspec.to_builtins(_read(await request.read(), Knobs))
        self._sellfern.turn(replace(self._sellfern.settings, **knobs))
        return await self._knobs(request)

    async def _requests(self, _: web.Request) -> object:
        return list(self._sellfern.requests)

    async def _endpoints(self, _: web.Request) -> object:
        """All endpoints with their secrets, as the vendor's dashboard would show them."""
        return [
            {
                **each.shown(),
                "organization_id": organization,
                "secret": each.secret.reveal(),
            }
            for organization in self._sellfern.api_keys.organizations
            for each in self._sellfern.endpoints.of(organization)
        ]

    async def _counts(self, _: web.Request) -> object:
        sellfern = self._sellfern
        pending = len(sellfern.deliveries.pending)
        return {"events": sellfern.events, "pending": pending, **sellfern.deliveries.counts}


def _read(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=identifier.decoded)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise invalid(str(exc)) from exc


def _answering(handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Give what a handler returns in the shape of all answers."""

    async def respond(request: web.Request) -> web.Response:
        request_id = answer.new_request_id()
        try:
            check_origin(request)
            return answer.success(await handler(request), request_id).response()
        except Refused as exc:
            return answer.refused(exc, request_id).response()

    return respond


def check_origin(request: web.Request) -> None:
    """Refuse what a page of another site has a browser send: it asks nobody for a key.

    Raises:
        Refused: the request is from another site.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        message = "a page of another site may not do this"
        raise Refused(HTTPStatus.FORBIDDEN, "forbidden", message)


_SHOWN: Final = 50
_FAVOURITE: Final = "order.updated"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8886;
  vertical-align: top; white-space: nowrap }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 11rem }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .6rem 0 }
button, select { font: inherit; padding: .3rem .6rem }
.failed, .abandoned { color: light-dark(#b3261e, #ff8a80) }
.delivered { color: light-dark(#1a7f37, #56d364) }
"""


class Page:
    """Shows the page and takes its form.

    Args:
        sellfern: what it shows.
    """

    def __init__(self, sellfern: Sellfern) -> None:
        self._sellfern = sellfern

    def routes(self) -> list[web.RouteDef]:
        """The page and the form's place."""
        return [web.get("/", self._show), web.post("/send", self._send)]

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(text=render(self._sellfern), content_type="text/html", headers=_HEADERS)

    async def _send(self, request: web.Request) -> web.Response:
        """Let an event happen, then show the page again; its deliveries may still be under way."""
        form = await request.post()
        try:
            check_origin(request)
            await self._sellfern.publish(
                str(form.get("type", _FAVOURITE)), _text(form.get("organization"))
            )
        except SettingsError as exc:
            return _refused(invalid(str(exc)))
        except Refused as exc:
            return _refused(exc)
        raise web.HTTPSeeOther("/", text="it happened; the page at / shows its deliveries\n")


def render(sellfern: Sellfern) -> str:
    """The page as HTML."""
    organizations = sellfern.api_keys.organizations
    endpoints = [each for name in organizations for each in sellfern.endpoints.of(name)]
    urls = {each.id: each.url for each in endpoints}
    deliveries = islice(sellfern.deliveries, _SHOWN)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sellfern simulator</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Sellfern simulator</h1>
<p>{sellfern.events} events so far. The <a href="/openapi.json">OpenAPI document</a> describes the
management API. Everything is gone when the simulator stops.</p>
<h2>Send an event</h2>
{_form(organizations)}
<h2>Endpoints</h2>
{_table(("Organization", "URL", "Events", "Enabled", "Secret"), map(_endpoint, endpoints))}
<h2>Deliveries</h2>
{
        _table(
            ("At (UTC)", "Event", "Id", "To", "Kind", "Status", "Attempts", "Answer"),
            (
                _delivery(each, urls.get(each.endpoint_id, "a removed endpoint"))
                for each in deliveries
            ),
        )
    }
</body>
</html>
"""


def _form(organizations: Iterable[str]) -> str:
    types = [_FAVOURITE, *(name for name in EVENTS if name != _FAVOURITE)]
    return f"""<form method="post" action="/send">
<button name="type" value="{_FAVOURITE}">Send {_FAVOURITE}</button>
<label>for <select name="organization">{_options(organizations)}</select></label>
</form>
<form method="post" action="/send">
<label>or <select name="type">{_options(types)}</select></label>
<label>for <select name="organization">{_options(organizations)}</select></label>
<button>Send</button>
</form>"""


def _options(values: Iterable[str]) -> str:
    return "".join(f"<option>{escape(value)}</option>" for value in values)


def _table(heads: Iterable[str], rows: Iterable[str]) -> str:
    body = "".join(rows)
    if not body:
        return "<p>None yet.</p>"
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _endpoint(endpoint: Endpoint) -> str:
    secret = escape(endpoint.secret.reveal())
    return _row(
        _cell(escape(endpoint.organization)),
        _long(escape(endpoint.url)),
        _long(escape(", ".join(endpoint.events))),
        _cell("yes" if endpoint.enabled else "no"),
        _cell(f"<details><summary>show</summary><code>{secret}</code></details>"),
    )


def _delivery(delivery: Delivery, url: str) -> str:
    last = delivery.attempts[-1] if delivery.attempts else None
    told = (last.response_status or last.error) if last else ""
    return _row(
        _cell(timestamp(delivery.created_at)[11:19]),
        _cell(escape(delivery.event.type)),
        _cell(escape(delivery.event.id)),
        _long(escape(url)),
        _cell(delivery.kind),
        _cell(f'<span class="{delivery.status}">{delivery.status}</span>'),
        _cell(str(len(delivery.attempts))),
        _cell(str(told)) if isinstance(told, int) else _long(escape(told or "")),
    )


def _cell(content: str) -> str:
    return f"<td>{content}</td>"


def _long(content: str) -> str:
    """A cell whose text may be broken anywhere."""
    return f'<td class="long">{content}</td>'


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _refused(exc: Refused) -> web.Response:
    return web.Response(status=exc.status, text=f"{exc.message}\n")
