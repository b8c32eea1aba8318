"""Facts about the sender of the demo, against a server in this process."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web

from deploy.local.demo import Sender
from deploy.local.plan import Delivery
from deploy.local.traffic import plan

Answer = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]]

ACCEPTED = {"data": {"status": "accepted"}}


@contextlib.asynccontextmanager
async def ingress(answer: Answer) -> AsyncIterator[str]:
    """A server that answers as told; its URL up to the endpoint's id."""

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        return await answer(request, await request.read())

    runner = web.ServerRunner(web.Server(answered), shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{site.port}/webhooks/"
    finally:
        await runner.cleanup()


def deliveries(number: int = 60) -> list[Delivery]:
    return list(plan(100, seed=1, now=datetime(2026, 3, 1, tzinfo=UTC)).deliveries[:number])


async def test_each_delivery_goes_to_its_endpoint_with_its_bytes_and_headers() -> None:
    seen = Counter[tuple[str, bytes, str | None]]()

    async def take(request: web.BaseRequest, body: bytes) -> web.Response:
        seen[request.path, body, request.headers.get("X-Sellfern-Signature")] += 1
        return web.json_response(ACCEPTED, status=202)

    async with ingress(take) as url:
        sender = Sender(url)
        await sender.send(deliveries())
    assert seen == Counter(
        (f"/webhooks/{each.endpoint}", each.body, each.headers.get("X-Sellfern-Signature"))
        for each in deliveries()
    )
    assert sender.sent == sender.accepted == 60
    assert sender.answers == {each.number: "accepted" for each in deliveries()}
    assert sender.unanswered == 0


async def test_a_503_and_a_broken_connection_are_sent_again_until_there_is_an_answer() -> None:
    tries = Counter[bytes]()

    async def take(request: web.BaseRequest, body: bytes) -> web.Response:
        tries[body] += 1
        if tries[body] == 1:
            return web.json_response({"error": {"code": "draining"}}, status=503)
        if tries[body] == 2:
            assert request.transport
            request.transport.abort()
        return web.json_response(ACCEPTED, status=202)

    (first,) = deliveries(1)
    async with ingress(take) as url:
        sender = Sender(url)
        await sender.send([first])
    assert tries == {first.body: 3}
    assert sender.answers == {first.number: "accepted"}
    assert sender.unanswered == 2


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (202, '{"data":{"status":"known"}}', "known"),
        (401, '{"error":{"code":"signature_missing"}}', "signature_missing"),
        (404, "<html>", "http_404"),
        (202, "[]", "http_202"),
    ],
)
async def test_an_answer_is_what_its_body_says(status: int, body: str, answer: str) -> None:
    async def take(_request: web.BaseRequest, _body: bytes) -> web.Response:
        return web.Response(status=status, text=body)

    async with ingress(take) as url:
        sender = Sender(url)
        await sender.send(deliveries(1))
    assert list(sender.answers.values()) == [answer]
    assert sender.accepted == (answer == "known")


async def test_no_more_than_so_many_are_on_their_way_and_they_begin_in_order() -> None:
    begun: list[bytes] = []
    gate = asyncio.Event()

    async def take(_request: web.BaseRequest, body: bytes) -> web.Response:
        begun.append(body)
        if len(begun) == 4:
            gate.set()
        await gate.wait()
        return web.json_response(ACCEPTED, status=202)

    async with ingress(take) as url:
        sender = Sender(url, side_by_side=4)
        sending = asyncio.create_task(sender.send(deliveries()))
        async with asyncio.timeout(10):
            await gate.wait()
        assert sender.sent == 4
        assert sorted(begun) == sorted(each.body for each in deliveries(4))
        await sending
    assert sender.accepted == 60
