"""The public port as its tests use it: whatever happens, nothing stays held."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ingress.http.connection import Connection
from ingress.http.receive import Writer
from tests.ingress_support import BODY, Client, Reply, Running, request_bytes, running

PATIENCE = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def connections(place: Running) -> list[Connection]:
    """The connections that are open, first those that are closed first for others."""
    return list(place.listener._connections.open)


@contextlib.asynccontextmanager
async def public_port(
    writer: Writer,
    **options: Any,  # of `running`
) -> AsyncIterator[Running]:
    """A public port; fails where bytes or connections stay held after a test, or it hangs."""
    async with asyncio.timeout(3 * PATIENCE):
        async with running(writer, **options) as place:
            yield place
            await until(lambda: place.held == 0)
        await until(lambda: not connections(place))


def chunked_head(
    *, body: bytes = BODY, headers: Mapping[str, str] | None = None, **options: Any
) -> bytes:
    """The head of a request whose body comes in chunks."""
    fields = {"Transfer-Encoding": "chunked", **(headers or {})}
    whole = request_bytes(body, headers=fields, **options)
    head = whole[: whole.index(b"\r\n\r\n") + 4]
    return head.replace(b"Content-Length: %d\r\n" % len(body), b"")


def check_refusal(reply: Reply, status: int, code: str) -> None:
    """Fail unless an answer is a whole refusal in the vendor's shape."""
    assert (reply.status, reply.code) == (status, code)
    content = json.loads(reply.body)
    assert content.keys() == {"success", "error", "meta"}
    assert content["success"] is False
    assert content["error"].keys() == {"code", "message"}
    assert content["meta"] == {"request_id": reply.headers["x-request-id"]}
    assert reply.headers["content-type"].split(";")[0] == "application/json"
    assert ("retry-after" in reply.headers) == (status == 503)


async def ends(client: Client) -> None:
    """Wait for the end of a connection, on which nothing more may come."""
    async with asyncio.timeout(PATIENCE):
        assert await client.is_closed()
