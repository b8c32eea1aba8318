"""What a client sees of a fault."""

import asyncio
import contextlib
from http import HTTPStatus
from typing import Final

from aiohttp import web

from deploy.sellfern import answer
from deploy.sellfern.answer import Refused, rate_limited
from deploy.sellfern.fault import Fault

_LOOK_SECONDS: Final = 0.02  # how soon it is seen that the client has left
_PAGE: Final = "<html><body><h1>{status} {phrase}</h1></body></html>"


async def suffer(fault: Fault, request: web.Request, closing: asyncio.Event) -> web.StreamResponse:
    """Answer a request as a fault has it, or not at all.

    Args:
        fault: what goes wrong.
        request: that it hits.
        closing: ends a hang.
    """
    request_id = answer.new_request_id()
    if fault.kind == "rate_limit":
        return answer.refused(rate_limited(fault.retry_after), request_id).response()
    if fault.kind == "error":
        refusal = Refused(HTTPStatus(fault.status), "internal_error", "as ordered by a fault")
        return answer.refused(refusal, request_id).response()
    if fault.kind == "gateway":
        return _gateway(HTTPStatus(fault.status))
    if fault.kind == "hang":
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
