"""Faults of the management API: ordered beforehand, and what a client sees of them."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from deploy.sellfern.answer import Refused, rate_limited, refused
from deploy.sellfern.openapi import OPERATIONS

_LOOK_SECONDS: Final = 0.02  # how soon it is seen that the client has left
_PAGE: Final = "<html><body><h1>{status} {phrase}</h1></body></html>"

EXPECTED: Final = "KIND[:WHEN][,NAME=VALUE…], such as cut:after,operation=POST,times=2"
"""The form of a fault as an argument."""

Kind = Literal["error", "gateway", "hang", "cut", "rate_limit"]
When = Literal["before", "after"]

_TARGETS: Final = frozenset(
    {each.name for each in OPERATIONS} | {each.method for each in OPERATIONS}
)
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes wrong, where and how often.

    Attributes:
        kind: ``error`` answers ``status`` in Sellfern's shape, ``gateway`` the same status with
            a page of HTML, as a proxy would; ``hang`` doesn't answer for ``seconds`` and cuts
            then; ``cut`` closes the connection; ``rate_limit`` answers 429.
        when: before the request has its effect, or after.
        operation: a method, or a name such as ``POST /webhooks``; empty: any.
        times: how many requests it hits; 0: all from now on.
        skip: how many requests to spare first.
        share: of the requests that it would hit, the part that it does.
        status: of ``error`` and ``gateway``.
        seconds: how long a ``hang`` lasts, unless the client leaves first.
        retry_after: seconds, for ``rate_limit``.
    """

    kind: Kind
    when: When = "before"
    operation: str = ""
    times: _Count = 1
    skip: _Count = 0
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    status: Annotated[int, msgspec.Meta(ge=500, le=599)] = 503
    seconds: _Seconds = 3600.0
    retry_after: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 1

    def __post_init__(self) -> None:
        """Check what one field says against the others."""
        if self.operation and self.operation not in _TARGETS:
            raise ValueError(f"operation: expected one of {', '.join(sorted(_TARGETS))}")
        # A client may send again after a 429 without fear of doing something twice; this must not
        # break that.
        if self.kind == "rate_limit" and self.when == "after":
            raise ValueError("rate_limit: expected it before the effect; a 429 has none")

    def hits(self, method: str, operation: str) -> bool:
        """Whether it is meant for a request."""
        return self.operation in {"", method, operation}


def read_faults(body: bytes) -> list[Fault]:
    """Read one fault, or a list of them, from JSON.

    Raises:
        ValueError: it is neither; the message says where and what was expected.
    """
    try:
        # Decoded before it is converted, since one fault and a list of them are both welcome.
        value = msgspec.json.decode(body)
        return msgspec.convert(value if isinstance(value, list) else [value], list[Fault])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc


def parse_fault(text: str) -> Fault:
    """Read a fault as it is written as an argument.

    Raises:
        ValueError: it isn't one.
    """
    head, *pairs = text.split(",")
    kind, _, when = head.partition(":")
    fields: dict[str, Any] = {"kind": kind, "when": when or "before"}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"expected {EXPECTED}")
        fields[name] = value
    try:
        return msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as exc:
        raise ValueError(f"{exc}; expected {EXPECTED}") from exc


class _Order:
    """A fault with what is left of it."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.spared = 0
        self.hits = 0


class Faults:
    """The faults that are to come.

    Args:
        random: draws evenly from 0 to 1.
        faults: those to begin with.
    """

    def __init__(self, random: Callable[[], float], faults: Iterable[Fault] = ()) -> None:
        self._random = random
        self._orders = [_Order(fault) for fault in faults]

    def add(self, *faults: Fault) -> None:
        """Order more."""
        self._orders += [_Order(fault) for fault in faults]

    def clear(self) -> None:
        """Order none any more."""
        self._orders.clear()

    @property
    def left(self) -> list[Fault]:
        """Those that have hits left."""
        return [order.fault for order in self._orders]

    def take(self, method: str, operation: str) -> Fault | None:
        """The fault that hits a request: of several, the one that was ordered first."""
        for order in self._orders:
            if order.fault.hits(method, operation) and self._strikes(order):
                order.hits += 1
                if 0 < order.fault.times <= order.hits:
                    self._orders.remove(order)
                return order.fault
        return None

    def _strikes(self, order: _Order) -> bool:
        # Counted for each fault on its own: several may wait for the same request.
        if order.spared < order.fault.skip:
            order.spared += 1
            return False
        # Drawn last: what was spared must not change what is drawn for others.
        return self._random() < order.fault.share


async def suffer(fault: Fault, request: web.Request, closing: asyncio.Event) -> web.StreamResponse:
    """Answer a request as a fault has it, or not at all.

    Args:
        fault: what goes wrong.
        request: that it hits.
        closing: ends a hang.
    """
    if fault.kind == "rate_limit":
        return refused(rate_limited(fault.retry_after)).response()
    if fault.kind == "error":
        refusal = Refused(HTTPStatus(fault.status), "internal_error", "as ordered by a fault")
        return refused(refusal).response()
    if fault.kind == "gateway":
        return _gateway(HTTPStatus(fault.status))
    if fault.kind == "hang":
        # A hang ends in a cut, as a proxy's patience does.
        await _hang(fault.seconds, request, closing)
    return _cut(request)


async def _hang(seconds: float, request: web.Request, closing: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end and request.transport is not None:  # aiohttp tells of no leaving
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(closing.wait(), _LOOK_SECONDS)
            return


def _cut(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer; aiohttp drops the one that is returned."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _gateway(status: HTTPStatus) -> web.Response:
    page = _PAGE.format(status=status.value, phrase=status.phrase)
    return web.Response(status=status, text=page, content_type="text/html")
