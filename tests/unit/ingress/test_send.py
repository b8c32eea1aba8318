"""Facts about deliveries that are made, signed and posted as Sellfern would."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from multidict import CIMultiDict

from ingress import send
from ingress.send import Answer, SendError, envelope, find_endpoint, post, signed_headers, warnings
from shared.endpoints.endpoint import Endpoint
from shared.sellfern import signature
from shared.sellfern.envelope import decode
from tests.ingress_support import SECRET, RecordingWriter, endpoints, running


@pytest.fixture
def acme() -> Endpoint:
    return endpoints()["acme"]


@asynccontextmanager
async def serving(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """The URL of a server that answers so."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/webhooks/acme"
    finally:
        await runner.cleanup()


def test_an_endpoint_is_found_by_its_id() -> None:
    assert find_endpoint(endpoints(), "beta").organization_id == "org_beta"


def test_a_misspelt_endpoint_is_told_the_nearest() -> None:
    with pytest.raises(SendError, match=r"got 'acmee'.*'acme'"):
        find_endpoint(endpoints(), "acmee")


def test_an_endpoint_near_none_is_told_all() -> None:
    with pytest.raises(SendError, match=r"got 'xyz'; known: acme, beta"):
        find_endpoint(endpoints(), "xyz")


def test_an_endpoint_with_a_public_key_alone_is_not_sent_to() -> None:
    known = endpoints(
        '[[endpoint]]\nid = "acme"\norganization_id = "o"\nscheme = "standard-webhooks"\n'
        'secrets = ["whpk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]'
    )
    with pytest.raises(SendError, match="expected one whose first active secret signs"):
        signed_headers(known["acme"], "order.updated", b"{}")


def test_an_event_left_alone_is_a_new_one_of_now_and_of_its_endpoint(acme: Endpoint) -> None:
    first, second = (decode(envelope(acme, "order.updated")) for _ in range(2))
    assert first.type == "order.updated"
    assert first.organization_id == "org_acme"
    assert first.id.startswith("evt_")
    assert first.id != second.id
    assert abs(datetime.now(UTC) - first.created_at) < timedelta(minutes=1)
    assert json.loads(envelope(acme, "order.updated"))["data"] == {"order_id": "ord_1"}


def test_each_part_of_an_event_can_be_chosen(acme: Endpoint) -> None:
    body = envelope(
        acme,
        "order.created",
        data={"order_id": "7"},
        event_id="evt_7",
        created_at="2026-01-31T12:00:00.000Z",
        organization="org_other",
    )
    assert json.loads(body) == {
        "id": "evt_7",
        "type": "order.created",
        "created_at": "2026-01-31T12:00:00.000Z",
        "organization_id": "org_other",
        "data": {"order_id": "7"},
    }


def test_bytes_from_a_terminal_that_are_no_text_are_refused(acme: Endpoint) -> None:
    with pytest.raises(SendError, match=r"the event: expected text in UTF-8, got 'order\\udcff'"):
        envelope(acme, "order\udcff")


def test_a_delivery_is_signed_by_the_first_secret_that_is_active() -> None:
    acme = endpoints(
        '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = '
        '[{ value = "old", until = 2020-01-01T00:00:00Z }, "new", "newer"]'
    )["acme"]
    headers = CIMultiDict(signed_headers(acme, "order.updated", b"{}"))
    signature.verify(acme.scheme, b"{}", headers, [b"new"], now=0.0)
    assert headers["X-Sellfern-Event"] == "order.updated"
    assert headers["Content-Type"] == "application/json"


def test_a_delivery_cannot_be_signed_without_an_active_secret() -> None:
    acme = endpoints(
        '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\n'
        'secrets = [{ value = "old", until = 2020-01-01T00:00:00Z }]'
    )["acme"]
    with pytest.raises(SendError, match="an active secret, got 'acme'"):
        signed_headers(acme, "order.updated", b"{}")


@pytest.mark.parametrize(
    ("secret", "warned"),
    [
        ("whsec_MCacBj5RMwADCVdQsSqKrUzF", False),
        ("whsec_tiny", False),
        ("MCacBj5RMwADCVdQsSqKrUzF", True),
        ("whsec_MCacBj5RMwADCVdQsSqKrUzF!", True),
    ],
)
def test_a_secret_that_can_hardly_be_sellferns_is_warned_of(secret: str, *, warned: bool) -> None:
    """The ingress accepts what is signed by it all the same, so the answer couldn't tell."""
    acme = endpoints(
        f'[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = ["{secret}"]'
    )["acme"]
    found = warnings(acme)
    assert bool(found) == warned
    assert all("the secret of endpoint acme" in each and secret not in each for each in found)


async def test_what_is_sent_is_accepted_by_the_ingress(acme: Endpoint) -> None:
    writer = RecordingWriter()
    body = envelope(acme, "order.updated")
    async with running(writer) as place:
        url = f"http://127.0.0.1:{place.port}/webhooks/acme"
        answer = await post(url, body, signed_headers(acme, "order.updated", body))
    assert answer.is_success
    assert answer.status == 202
    assert json.loads(answer.text)["data"] == {"status": "accepted"}
    assert writer.deliveries[0].body == body
    assert SECRET not in repr(writer.deliveries)


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async def elsewhere(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/other"})

    async with serving(elsewhere) as url:
        answer = await post(url, b"{}", {})
    assert answer == Answer(307, "")
    assert not answer.is_success


async def test_of_a_long_answer_the_beginning_is_shown_whatever_its_bytes() -> None:
    async def odd(_: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Type": "text/plain; charset=no-such"}
        return web.Response(body=b"\xff" + b"x" * 5000, headers=headers)

    async with serving(odd) as url:
        answer = await post(url, b"{}", {})
    assert answer.text == "\N{REPLACEMENT CHARACTER}" + "x" * 1999


async def test_nobody_at_the_other_end_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(SendError, match=rf"^--url: expected an answer from {url}, got: .+$"):
        await post(url, b"{}", {})


async def test_an_answer_that_does_not_come_is_told_with_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(send, "TIMEOUT_SECONDS", 0.05)
    given_up = asyncio.Event()

    async def late(_: web.BaseRequest) -> web.StreamResponse:
        await given_up.wait()
        return web.Response()

    async with serving(late) as url:
        with pytest.raises(SendError, match=r"^--url: expected an answer within 0.05 seconds"):
            await post(url, b"{}", {})
        given_up.set()


@pytest.mark.parametrize("url", ["", "acme", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:x/"])
async def test_what_is_no_url_is_one_line(url: str) -> None:
    with pytest.raises(SendError) as caught:
        await post(url, b"{}", {})
    assert str(caught.value) == f"--url: expected an http:// or https:// URL, got {url!r}"
