"""A server that answers exactly as it is told, for what the simulator would never answer."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Told:
    """One answer.

    Attributes:
        status: of HTTP.
        body: JSON, or bytes as they are.
        headers: more of them.
        cut: close the connection instead.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


class FakeApi:
    """What it was asked, and what it answers: in turn, the last one again and again."""

    def __init__(self, *answers: Told) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.url = ""

    @property
    def keys(self) -> set[str | None]:
        """The idempotency keys it has seen."""
        return {request.headers.get("Idempotency-Key") for request in self.requests}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer the next request."""
        await request.read()
        self.requests.append(request)
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if told.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(told.body, bytes):
            return web.Response(status=told.status, body=told.body, headers=told.headers)
        return web.json_response(told.body, status=told.status, headers=told.headers)


@contextlib.asynccontextmanager
async def fake_api(*answers: Told) -> AsyncIterator[FakeApi]:
    """The server, for the time of a block."""
    fake = FakeApi(*answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        fake.url = f"http://127.0.0.1:{site.port}"
        yield fake
    finally:
        await runner.cleanup()


def refusal(status: int, code: str, message: str = "no", **more: Any) -> Told:
    """An error in Sellfern's shape."""
    error = {"code": code, "message": message, **more}
    return Told(status, {"success": False, "error": error, "meta": {"request_id": "req_1"}})


def success(data: Any, status: int = 200) -> Told:
    """A success in Sellfern's shape."""
    return Told(status, {"success": True, "data": data, "meta": {"request_id": "req_1"}})
