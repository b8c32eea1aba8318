"""The page for people: endpoints, deliveries, and a button that sends an event."""

from collections.abc import Iterable
from html import escape
from itertools import islice
from typing import Final

from aiohttp import web

from deploy.sellfern.answer import Refused, invalid
from deploy.sellfern.clock import timestamp
from deploy.sellfern.control import check_origin
from deploy.sellfern.delivery import Delivery
from deploy.sellfern.endpoint import Endpoint
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.errors import SettingsError

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
