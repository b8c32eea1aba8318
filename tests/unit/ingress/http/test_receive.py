"""Facts about the way of one delivery, from its request to the queue."""

import asyncio
from time import time
from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from ingress.http.answers import REDIS_AWAITED, Refused
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.http.receive import KEPT_LENGTH, Receiver, check_head, endpoint_id
from ingress.settings import Limits
from shared.errors import SignatureError, Unavailable
from shared.queue.writer import Accepted
from tests.ingress_support import BETA_SECRET, BODY, Known, RecordingWriter, endpoints, signed


def request(
    *headers: tuple[str, str],
    path: str = "/webhooks/acme",
    method: str = "POST",
    body: bytes = BODY,
    signer: str | None = None,
) -> web.BaseRequest:
    """A request whose body has come; signed where a secret is given."""
    payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    payload.feed_data(body)
    payload.feed_eof()
    signatures = signed(body, signer) if signer else signed(body)
    fields = CIMultiDict([*signatures.items(), *headers])
    return make_mocked_request(method, path, fields, payload=payload)


@pytest.fixture
def writer() -> RecordingWriter:
    return RecordingWriter()


@pytest.fixture
def receiver(writer: RecordingWriter) -> Receiver:
    return Receiver(Known(endpoints()), writer, Limits(body_bytes=1000, bytes_in_flight=2000))


async def refused(receiver: Receiver, request: web.BaseRequest) -> str:
    with pytest.raises(Refused) as caught:
        await receiver.receive(request)
    return caught.value.refusal.code


async def test_a_delivery_bears_what_its_endpoint_says_and_its_body_as_it_came(
    receiver: Receiver, writer: RecordingWriter
) -> None:
    before = time()
    assert await receiver.receive(request()) is Accepted.NEW
    (delivery,) = writer.deliveries
    assert (delivery.endpoint, delivery.organization, delivery.weight) == ("acme", "org_acme", 2.0)
    assert delivery.body == BODY
    assert int(before * 1000) <= delivery.received_at <= time() * 1000


async def test_known_bytes_are_told_as_known(receiver: Receiver) -> None:
    assert await receiver.receive(request()) is Accepted.NEW
    assert await receiver.receive(request()) is Accepted.KNOWN


async def test_the_organization_is_the_endpoints_whatever_the_body_says(
    receiver: Receiver, writer: RecordingWriter
) -> None:
    await receiver.receive(request(path="/webhooks/beta", signer=BETA_SECRET))
    assert b'"org_acme"' in writer.deliveries[0].body
    assert writer.deliveries[0].organization == "org_beta"


async def test_of_the_headers_those_worth_reading_are_kept_and_no_other(
    receiver: Receiver, writer: RecordingWriter
) -> None:
    await receiver.receive(
        request(
            ("content-TYPE", "application/json"),
            ("User-Agent", "Sellfern/1"),
            ("X-Sellfern-Event", "order.updated"),
            ("Authorization", "Bearer x"),
            ("Cookie", "a=b"),
        )
    )
    assert writer.deliveries[0].headers == {
        "content-type": "application/json",
        "user-agent": "Sellfern/1",
        "x-sellfern-event": "order.updated",
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("x" * 5000, "x" * KEPT_LENGTH),
        ("é" * 5000, "é" * KEPT_LENGTH),
        ("\N{PILE OF POO}", "\N{PILE OF POO}"),
        ("", ""),
    ],
)
async def test_a_kept_header_is_short_and_valid_text(
    receiver: Receiver, writer: RecordingWriter, value: str, kept: str
) -> None:
    await receiver.receive(request(("User-Agent", value)))
    assert writer.deliveries[0].headers == {"user-agent": kept}


@pytest.mark.parametrize(
    ("path", "method", "code"),
    [
        ("/", "POST", "not_found"),
        ("/webhook/acme", "POST", "not_found"),
        ("/webhooks", "POST", "not_found"),
        ("/metrics", "GET", "not_found"),
        ("/webhooks/acme", "GET", "method_not_allowed"),
        ("/webhooks/acme", "PUT", "method_not_allowed"),
        ("/webhooks/", "POST", "unknown_endpoint"),
        ("/webhooks/nobody", "POST", "unknown_endpoint"),
        ("/webhooks/ACME", "POST", "unknown_endpoint"),
        ("/webhooks/acme/", "POST", "unknown_endpoint"),
    ],
)
async def test_what_is_no_delivery_is_refused_unread(
    receiver: Receiver, writer: RecordingWriter, path: str, method: str, code: str
) -> None:
    assert await refused(receiver, request(path=path, method=method)) == code
    assert writer.deliveries == []


async def test_a_closed_receiver_refuses_deliveries_and_says_why(
    receiver: Receiver, writer: RecordingWriter
) -> None:
    receiver.closed = REDIS_AWAITED
    assert await refused(receiver, request()) == REDIS_AWAITED.code
    assert writer.deliveries == []


async def test_a_whole_body_over_the_limit_is_refused(receiver: Receiver) -> None:
    assert await refused(receiver, request(body=b"x" * 1001)) == "payload_too_large"


async def test_a_signature_by_another_endpoints_secret_verifies_nothing(
    receiver: Receiver, writer: RecordingWriter
) -> None:
    with pytest.raises(SignatureError):
        await receiver.receive(request(signer=BETA_SECRET))
    assert writer.deliveries == []


async def test_what_cannot_be_stored_is_raised(receiver: Receiver, writer: RecordingWriter) -> None:
    writer.failure = Unavailable("redis_timeout", "no reply")
    with pytest.raises(Unavailable):
        await receiver.receive(request())


async def test_the_endpoint_of_a_request_is_what_the_client_wrote() -> None:
    assert endpoint_id(request(path="/webhooks/a%20b")) == "a%20b"
    assert endpoint_id(request(path="/elsewhere")) is None


LIMITS = Limits(body_bytes=1000)


def head(*headers: tuple[str, str], **options: Any) -> web.BaseRequest:  # passed through
    return make_mocked_request("POST", "/webhooks/acme", CIMultiDict(headers), **options)


def judged(request: web.BaseRequest, in_flight: BytesInFlight | None = None) -> str:
    """The code of the refusal; nothing where the body may come."""
    try:
        check_head(request, LIMITS, in_flight or BytesInFlight(10_000))
    except Refused as exc:
        return exc.refusal.code
    return ""


@pytest.mark.parametrize(
    ("length", "code"),
    [
        ("0", ""),
        ("1000", ""),
        ("1001", "payload_too_large"),
        ("0000000000001000", ""),
        ("0000000000001001", "payload_too_large"),
        ("18446744073709551615", "payload_too_large"),
        ("9" * 5000, "payload_too_large"),
    ],
)
def test_a_length_is_judged_by_its_number_however_it_is_written(length: str, code: str) -> None:
    assert judged(head(("Content-Length", length))) == code


@pytest.mark.parametrize(
    ("codings", "code"),
    [
        (["identity"], ""),
        (["Identity"], ""),
        (["gzip"], "unsupported_encoding"),
        (["deflate"], "unsupported_encoding"),
        (["x-unheard-of"], ""),
        (["UTF-8"], ""),
        (["none"], ""),
        (["binary"], ""),
        (["identity, identity"], ""),
        (["x-gzip"], "unsupported_encoding"),
        (["gzip;q=1.0"], "unsupported_encoding"),
        (["identity;q=1, br ; x"], "unsupported_encoding"),
        (["zstd"], "unsupported_encoding"),
        (["utf-8,\tGZip "], "unsupported_encoding"),
        (["identity, gzip"], "unsupported_encoding"),
        (["identity", "gzip"], "unsupported_encoding"),
        (["gzip", "identity"], "unsupported_encoding"),
        (["identity", "identity"], ""),
        ([""], ""),
        ([",, "], ""),
    ],
)
def test_a_compressed_body_is_refused_whichever_of_its_headers_says_so(
    codings: list[str], code: str
) -> None:
    assert judged(head(*(("Content-Encoding", coding) for coding in codings))) == code


@pytest.mark.parametrize(
    ("coding", "code"),
    [
        ("chunked", ""),
        ("Chunked", ""),
        ("gzip, chunked", "unsupported_encoding"),
    ],
)
def test_a_transfer_coding_but_chunks_is_refused(coding: str, code: str) -> None:
    assert judged(head(("Transfer-Encoding", coding), version=HttpVersion11)) == code


def test_chunks_where_the_version_has_none_are_refused() -> None:
    chunks = ("Transfer-Encoding", "chunked")
    assert judged(head(chunks, version=HttpVersion10)) == "bad_request"


def test_a_request_without_a_length_has_an_empty_body() -> None:
    assert judged(head()) == ""


def test_a_length_that_does_not_fit_beside_the_others_is_refused() -> None:
    in_flight = BytesInFlight(1500)
    in_flight.held = 1000
    assert judged(head(("Content-Length", "500")), in_flight) == ""
    assert judged(head(("Content-Length", "501")), in_flight) == "bytes_in_flight"


def test_what_is_announced_is_not_held() -> None:
    in_flight = BytesInFlight(1500)
    for _ in range(10):
        assert judged(head(("Content-Length", "1000")), in_flight) == ""
    assert in_flight.held == 0
