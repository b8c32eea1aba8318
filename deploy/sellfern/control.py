"""What only the simulator has: control endpoints for programs, a page for people."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from jinja2 import ChainableUndefined, Environment

from deploy.sellfern.answer import Refused, invalid, refused, success
from deploy.sellfern.event import timestamp
from deploy.sellfern.fault import read_faults
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.errors import SettingsError
from shared.sellfern import identifier
from shared.sellfern.identifier import Id

Handler = Callable[[web.Request], Awaitable[object]]

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_SHOWN: Final = 50
_FAVOURITE: Final = "order.updated"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

# What it shows came from outside, and by itself Jinja escapes nothing.
_PAGE: Final = Environment(
    autoescape=True, trim_blocks=True, undefined=ChainableUndefined
).from_string(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


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
    """Answers control requests, and shows the page.

    Args:
        sellfern: what they show and change.
    """

    def __init__(self, sellfern: Sellfern) -> None:
        self._sellfern = sellfern

    def routes(self) -> list[web.RouteDef]:
        """The page, where its form leads, and every control endpoint."""
        return [
            web.get("/", self._show),
            web.post("/send", self._send),
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

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(text=render(self._sellfern), content_type="text/html", headers=_HEADERS)

    async def _send(self, request: web.Request) -> web.Response:
        """Let an event happen, then show the page again; its deliveries may still be under way."""
        form = await request.post()
        event_type, organization = form.get("type", _FAVOURITE), form.get("organization")
        try:
            _check_origin(request)
            await self._sellfern.publish(str(event_type), str(organization or "") or None)
        except SettingsError as exc:
            return _refused(invalid(str(exc)))
        except Refused as exc:
            return _refused(exc)
        # So that a reload of the page doesn't send the event once more.
        raise web.HTTPSeeOther("/", text="it happened; the page at / shows its deliveries\n")

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
            # All of them are begun before the first is waited for.
            if wish.wait:
                await delivery.ended.wait()
        # The very bytes that were sent, not what they mean.
        body = msgspec.Raw(event.encode())
        return {"event": body, "deliveries": [each.shown() for each in deliveries]}

    async def _knobs(self, _: web.Request) -> object:
        settings = self._sellfern.settings
        return {name: getattr(settings, name) for name in Knobs.__struct_fields__}

    async def _turn(self, request: web.Request) -> object:
        # `omit_defaults` leaves out what wasn't named, so that it stays as it is.
        knobs = msgspec.to_builtins(_read(await request.read(), Knobs))
        self._sellfern.turn(replace(self._sellfern.settings, **knobs))
        return await self._knobs(request)

    async def _requests(self, _: web.Request) -> object:
        return list(self._sellfern.requests)

    async def _endpoints(self, _: web.Request) -> object:
        """All endpoints with their secrets, as the vendor's dashboard would show them."""
        return [
            {**each.shown(), "organization_id": organization, "secret": each.secret.reveal()}
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
        try:
            _check_origin(request)
            return success(await handler(request)).response()
        except Refused as exc:
            return refused(exc).response()

    return respond


def _check_origin(request: web.Request) -> None:
    """Refuse what a page of another site has a browser send: it asks nobody for a key.

    Raises:
        Refused: the request is from another site.
    """
    origin = request.headers.get("Origin")
    # Only browsers send it; a program without it is on this machine, or was let in on purpose.
    if origin is not None and origin.partition("://")[2] != request.host:
        message = "a page of another site may not do this"
        raise Refused(HTTPStatus.FORBIDDEN, "forbidden", message)


def render(sellfern: Sellfern) -> str:
    """The page as HTML."""
    organizations = sellfern.api_keys.organizations
    return _PAGE.render(
        events=sellfern.events,
        organizations=organizations,
        # The one that most try first.
        types=(_FAVOURITE, *(name for name in EVENTS if name != _FAVOURITE)),
        endpoints={each.id: each for name in organizations for each in sellfern.endpoints.of(name)},
        deliveries=list(islice(sellfern.deliveries, _SHOWN)),
        timestamp=timestamp,
    )


def _refused(exc: Refused) -> web.Response:
    return web.Response(status=exc.status, text=f"{exc.message}\n")
