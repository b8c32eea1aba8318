"""Facts about what a delivery is answered."""

import re

import pytest

from shared.errors import Unavailable
from tests.ingress_support import (
    BETA_SECRET,
    BODY,
    SECRET,
    Client,
    Known,
    RecordingWriter,
    ask,
    endpoints,
    request_bytes,
    signed,
)
from tests.integration.ingress.public_port import check_refusal, public_port

SIGNATURE = signed(BODY)["X-Sellfern-Signature"]


async def test_a_signed_delivery_is_accepted_and_the_same_bytes_are_known(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        first, second = [await ask(place.port, request_bytes()) for _ in range(2)]
    for reply, status in ((first, "accepted"), (second, "known")):
        assert reply.status == 202
        assert reply.headers["content-type"].split(";")[0] == "application/json"
        request_id = reply.headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", request_id)
        assert reply.json == {
            "success": True,
            "data": {"status": status},
            "meta": {"request_id": request_id},
        }
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert [delivery.body for delivery in writer.deliveries] == [BODY, BODY]


async def test_no_answer_names_the_software_or_its_version(writer: RecordingWriter) -> None:
    async with public_port(writer) as place:
        for raw in (request_bytes(), request_bytes(path="/"), b"no HTTP\r\n\r\n"):
            reply = await ask(place.port, raw)
            assert reply.headers["server"] == "sellfern-ingress"
            assert b"aiohttp" not in reply.body


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", "not_found"),
        ("/webhook/acme", "not_found"),
        ("/webhooks", "not_found"),
        ("/WEBHOOKS/acme", "not_found"),
        ("//webhooks/acme", "not_found"),
        ("/./webhooks/acme", "not_found"),
        ("/x/../webhooks/acme", "not_found"),
        ("/%77ebhooks/acme", "not_found"),
        ("/livez", "not_found"),
        ("/readyz", "not_found"),
        ("/metrics", "not_found"),
        ("/webhooks/", "unknown_endpoint"),
        ("/webhooks/nobody", "unknown_endpoint"),
        ("/webhooks/Acme", "unknown_endpoint"),
        ("/webhooks/acme/", "unknown_endpoint"),
        ("/webhooks//acme", "unknown_endpoint"),
        ("/webhooks/acme/..", "unknown_endpoint"),
        ("/webhooks/../webhooks/acme", "unknown_endpoint"),
        ("/webhooks/beta/../acme", "unknown_endpoint"),
        ("/webhooks/%61cme", "unknown_endpoint"),
        ("/webhooks/%2Facme", "unknown_endpoint"),
        ("/webhooks%2Facme", "not_found"),
        ("/webhooks/acme%00", "unknown_endpoint"),
        ("/webhooks/acme;a=b", "unknown_endpoint"),
        ("/webhooks/acme\\..", "unknown_endpoint"),
        ("/webhooks/%zz", "unknown_endpoint"),
    ],
)
async def test_only_the_endpoints_own_path_leads_to_it(
    writer: RecordingWriter, path: str, code: str
) -> None:
    async with public_port(writer) as place:
        check_refusal(await ask(place.port, request_bytes(path=path)), 404, code)
    assert writer.deliveries == []


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/acme?retry=1",
        "/webhooks/acme?path=../beta&%zz",
        "/webhooks/acme?",
        "/webhooks/acme#part",
        "http://localhost/webhooks/acme",
        "http://elsewhere.example:81/webhooks/acme",
    ],
)
async def test_a_query_or_a_host_before_the_path_changes_nothing(
    writer: RecordingWriter, path: str
) -> None:
    async with public_port(writer) as place:
        assert (await ask(place.port, request_bytes(path=path))).status == 202
    assert writer.deliveries[0].organization == "org_acme"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_another_method_than_post_is_told_the_right_one(
    writer: RecordingWriter, method: str
) -> None:
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes(method=method))
    check_refusal(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"
    assert writer.deliveries == []


async def test_the_answer_to_head_has_no_body(writer: RecordingWriter) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes(method="HEAD", headers={"Connection": "close"}))
        head, end, rest = (await client.reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert (end, rest) == (b"\r\n\r\n", b"")


async def test_a_delivery_without_a_signature_is_refused(writer: RecordingWriter) -> None:
    raw = request_bytes().replace(b"X-Sellfern-Signature", b"X-Another")
    async with public_port(writer) as place:
        check_refusal(await ask(place.port, raw), 401, "signature_missing")
    assert writer.deliveries == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0" * 64,
        "no hex",
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE.upper(),
        f"sha256={SIGNATURE}",
        f'"{SIGNATURE}"',
        f"{SIGNATURE}, {SIGNATURE}",
        SIGNATURE[:-1] + "é",
        SIGNATURE[:-1] + "\udcff",
        "\udced\udca0\udc80" * 20,
        "".join(chr(0xFF10 + int(digit, 16) % 10) for digit in SIGNATURE),
        SIGNATURE.encode("utf-16-be").decode("latin-1").replace("\0", " "),
        "x" * 8000,
    ],
)
async def test_a_signature_that_is_none_is_refused_and_not_repeated(
    writer: RecordingWriter, value: str
) -> None:
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes(headers={"X-Sellfern-Signature": value}))
    check_refusal(reply, 401, "signature_invalid")
    assert SIGNATURE[:-1] not in reply.body.decode()
    assert writer.deliveries == []


async def test_of_two_signatures_nobody_can_say_which_one_is_meant(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        for other in (SIGNATURE, "0" * 64):
            raw = request_bytes(headers={"x-sellfern-signature": other})
            check_refusal(await ask(place.port, raw), 401, "signature_invalid")
    assert writer.deliveries == []


async def test_blanks_around_a_signature_are_none_of_it(writer: RecordingWriter) -> None:
    raw = request_bytes(headers={"X-Sellfern-Signature": f" \t{SIGNATURE} \t "})
    async with public_port(writer) as place:
        assert (await ask(place.port, raw)).status == 202


async def test_one_changed_byte_of_the_body_is_refused(writer: RecordingWriter) -> None:
    async with public_port(writer) as place:
        for raw in (
            request_bytes().replace(b"evt_1", b"evt_2"),
            request_bytes(BODY + b"\n", headers={"X-Sellfern-Signature": SIGNATURE}),
            request_bytes(BODY[:-1], headers={"X-Sellfern-Signature": SIGNATURE}),
        ):
            check_refusal(await ask(place.port, raw), 401, "signature_invalid")
    assert writer.deliveries == []


@pytest.mark.parametrize(
    ("path", "secret", "organization"),
    [
        ("/webhooks/acme", SECRET, "org_acme"),
        ("/webhooks/beta", BETA_SECRET, "org_beta"),
        ("/webhooks/acme", BETA_SECRET, None),
        ("/webhooks/beta", SECRET, None),
    ],
)
async def test_a_secret_opens_its_own_organizations_endpoint_and_no_other(
    writer: RecordingWriter, path: str, secret: str, organization: str | None
) -> None:
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes(path=path, secret=secret))
    if organization is None:
        check_refusal(reply, 401, "signature_invalid")
        assert writer.deliveries == []
    else:
        assert reply.status == 202
        assert writer.deliveries[0].organization == organization


@pytest.mark.whole("a refused body that is still to come ends its connection")
async def test_a_change_of_the_endpoints_holds_from_the_next_delivery_on(
    writer: RecordingWriter,
) -> None:
    known = Known(endpoints())
    async with (
        public_port(writer, known=known) as place,
        Client.to(place.port) as client,
    ):
        assert (await client.ask(request_bytes())).status == 202
        known.current = endpoints(
            '[[endpoint]]\nid = "acme"\norganization_id = "o"\nsecrets = ["new"]'
        )
        assert (await client.ask(request_bytes())).code == "signature_invalid"
        assert (await client.ask(request_bytes(path="/webhooks/beta"))).code == "unknown_endpoint"
        assert (await client.ask(request_bytes(secret="new"))).status == 202


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe\x00\x80" * 50, id="not UTF-8"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"not JSON", id="not JSON"),
        pytest.param(b'{"id": "evt_1"', id="half of JSON"),
        pytest.param(b"[" * 100_000, id="deeply nested"),
        pytest.param(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, id="deeply nested and closed"),
        pytest.param(b"9" * 100_000, id="an endless number"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b"POST /webhooks/acme HTTP/1.1\r\nHost: x\r\n\r\n", id="a request"),
        pytest.param(b"\x1f\x8b\x08\x00", id="gzip"),
    ],
)
async def test_what_is_signed_is_taken_byte_for_byte_whatever_it_says(
    writer: RecordingWriter, body: bytes
) -> None:
    async with public_port(writer) as place:
        assert (await ask(place.port, request_bytes(body))).status == 202
    assert [delivery.body for delivery in writer.deliveries] == [body]


async def test_headers_that_are_no_text_are_no_reason_to_refuse(writer: RecordingWriter) -> None:
    odd = "a\udcffb\udced\udca0\udc80"
    headers = {"X-Odd": odd, "User-Agent": odd, "Content-Type": "\udc80"}
    async with public_port(writer) as place:
        assert (await ask(place.port, request_bytes(headers=headers))).status == 202
    mark = "\N{REPLACEMENT CHARACTER}"
    assert writer.deliveries[0].headers == {
        "user-agent": f"a{mark}b{mark * 3}",
        "content-type": mark,
    }


@pytest.mark.parametrize(
    "code", ["redis_unreachable", "redis_readonly", "backlog_full", "not_replicated"]
)
async def test_what_cannot_be_stored_is_asked_for_again(writer: RecordingWriter, code: str) -> None:
    writer.failure = Unavailable(code, "not now")
    async with public_port(writer) as place, Client.to(place.port) as client:
        reply = await client.ask(request_bytes())
        check_refusal(reply, 503, code)
        assert reply.headers["retry-after"] == "5"
        assert reply.json["error"]["message"] == "not now"
        writer.failure = None
        assert (await client.ask(request_bytes())).code == "accepted"


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("whsec_of_acme"),
        TimeoutError(),
        ConnectionError("gone"),
        KeyError("x"),
        RecursionError(),
        MemoryError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_whatever_else_fails_is_never_a_500_and_shows_nothing_of_itself(
    writer: RecordingWriter, failure: Exception
) -> None:
    writer.failure = failure
    async with public_port(writer) as place, Client.to(place.port) as client:
        reply = await client.ask(request_bytes())
        check_refusal(reply, 503, "internal_error")
        assert b"Traceback" not in reply.body
        assert b"whsec" not in reply.body
        writer.failure = None
        assert (await client.ask(request_bytes())).code == "accepted"
