"""Facts about the log of the public port: what it tells, and what it never shows."""

import asyncio
import contextlib
from hashlib import sha256
from ipaddress import ip_network
from time import monotonic

import pytest

from ingress.http import site
from ingress.http.site import LINES_A_SECOND
from shared.errors import Unavailable
from shared.observe.logs import get_logger
from tests.ingress_support import (
    BETA_SECRET,
    BODY,
    SECRET,
    Client,
    RecordingWriter,
    ask,
    chunked,
    request_bytes,
    signed,
)
from tests.integration.ingress.public_port import chunked_head, public_port
from tests.log_support import CapturedLog

CARD = "4111-1111-1111-1111"
PRIVATE = b'{"card":"' + CARD.encode() + b'"}'


async def test_an_accepted_delivery_is_told_with_the_request_of_its_answer(
    writer: RecordingWriter, log: CapturedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "_log", get_logger())  # one keeps the level of its first use
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes())
    line = next(line for line in log.lines if line["event"] == "delivery_accepted")
    assert (line["level"], line["status"]) == ("debug", "accepted")
    assert line["request_id"] == reply.headers["x-request-id"]


async def test_a_refused_delivery_is_told_with_the_request_of_its_answer(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes(path="/webhooks/nobody?a=b"))
    line = next(line for line in log.lines if line["event"] == "delivery_refused")
    assert line["level"] == "warning"
    assert (line["status"], line["code"]) == (404, "unknown_endpoint")
    assert (line["endpoint"], line["client"]) == ("nobody", "127.0.0.1")
    assert line["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "raw",
    [
        request_bytes(PRIVATE),
        request_bytes(PRIVATE, secret=BETA_SECRET),
        request_bytes(PRIVATE, path=f"/{CARD}"),
        request_bytes(PRIVATE, path=f"/webhooks/acme?card={CARD}", method="PUT"),
        request_bytes(PRIVATE, headers={"X-Card": CARD, "Content-Encoding": CARD}),
        request_bytes(PRIVATE, headers={"X-Sellfern-Signature": CARD}),
        request_bytes(PRIVATE, headers={"X-Odd": f"{CARD}\0"}),
        request_bytes(PRIVATE, headers={CARD * 1000: "a"}),
        request_bytes(PRIVATE, method=CARD),
        request_bytes(PRIVATE, path=f"http://[{CARD}/"),
        f"CONNECT {CARD} HTTP/1.1\r\n\r\n".encode(),
        f"CONNECT \r\n{CARD}: {CARD}\r\n\r\n".encode(),
        PRIVATE,
        chunked_head(body=PRIVATE) + b"zz" + PRIVATE,
        chunked_head(body=PRIVATE) + chunked(PRIVATE).replace(b"\r\n", b"\n"),
        chunked_head(body=PRIVATE) + chunked(PRIVATE)[:-2] + PRIVATE + b"\r\n",
    ],
)
@pytest.mark.parametrize("parts", [1, 2, 7])
async def test_neither_log_nor_answer_shows_a_body_a_header_or_a_secret(
    writer: RecordingWriter, log: CapturedLog, raw: bytes, parts: int
) -> None:
    step = len(raw) // parts + 1
    # Of some, cut in some ways, the rest is waited for though the client has ended its side.
    async with (
        public_port(writer, body_seconds=0.5) as place,
        Client.to(place.port) as client,
    ):
        reading = asyncio.create_task(client.reader.read())
        with contextlib.suppress(OSError):  # what is no HTTP isn't read to its end
            for begin in range(0, len(raw), step):
                await client.send(raw[begin : begin + step])
                await asyncio.sleep(0)
            client.writer.write_eof()
        (said,) = await asyncio.gather(reading, return_exceptions=True)
    answer = said.decode() if isinstance(said, bytes) else ""
    assert log.lines
    for shown in (answer, log.text):
        for hidden in (CARD, SECRET, BETA_SECRET, signed(PRIVATE)["X-Sellfern-Signature"]):
            assert hidden not in shown


async def test_what_failed_inside_is_told_by_where_and_not_by_what_it_said(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    writer.failure = RuntimeError(f"cannot store {CARD}")
    async with public_port(writer) as place:
        reply = await ask(place.port, request_bytes())
    line = next(line for line in log.lines if line["event"] == "delivery_refused")
    assert (line["status"], line["code"]) == (503, "internal_error")
    assert line["request_id"] == reply.headers["x-request-id"]
    assert line["error"] == "RuntimeError"
    assert "accept" in line["traceback"]
    assert CARD not in log.text


@pytest.mark.whole("a refused body that is still to come ends its connection")
async def test_a_flood_of_refusals_is_a_few_lines_that_tell_how_many_are_missing(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    flood = LINES_A_SECOND * 5
    async with public_port(writer) as place, Client.to(place.port) as client:
        for _ in range(flood):
            await client.ask(request_bytes(path="/"))
        writer.failure = Unavailable("redis_unreachable", "nobody answers")
        assert (await client.ask(request_bytes())).status == 503
        await asyncio.sleep(1.1)  # the next second
        await client.ask(request_bytes(path="/"))
    refused = [line for line in log.lines if line["event"] == "delivery_refused"]
    ours = [line for line in refused if line["status"] == 503]
    theirs = [line for line in refused if line["status"] == 404]
    assert len(ours) == 1
    assert sum(1 + line.get("suppressed", 0) for line in theirs) == flood + 1
    assert len(theirs) < flood / 2


async def test_a_signature_that_is_right_for_other_bytes_tells_what_came(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    """A proxy that changed the body can be found: the sender knows what it had signed."""
    changed = PRIVATE.replace(b":", b": ")
    raw = request_bytes(changed, headers=signed(PRIVATE))
    began, sent = monotonic(), LINES_A_SECOND * 4
    async with public_port(writer) as place:
        for _ in range(sent):
            assert (await ask(place.port, raw)).code == "signature_invalid"
        await ask(place.port, request_bytes(path="/webhooks/nobody"))
    lines = [line for line in log.lines if line["event"] == "delivery_refused"]
    told = [line for line in lines if line["code"] == "signature_invalid"]
    assert told[0]["body_bytes"] == len(changed)
    assert told[0]["body_sha256"] == sha256(changed).hexdigest()[:12]
    assert CARD not in log.text
    assert len(told) <= LINES_A_SECOND * (2 + int(monotonic() - began))
    assert len(told) < sent or monotonic() - began > 3
    assert all("body_sha256" not in line for line in lines if line["status"] == 404)


async def test_the_client_is_told_through_the_proxies_that_are_trusted(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.5"}
    raw = request_bytes(path="/webhooks/nobody", headers=headers)
    async with public_port(writer, trusted_proxies=(ip_network("127.0.0.0/8"),)) as place:
        await ask(place.port, raw)
    async with public_port(writer) as place:
        await ask(place.port, raw)
    lines = [line for line in log.lines if line["event"] == "delivery_refused"]
    assert [line["client"] for line in lines] == ["203.0.113.5", "127.0.0.1"]


@pytest.mark.parametrize("path", ["/webhooks/a\x1b[2J", "/webhooks/" + "a" * 4000, "/webhooks/%0a"])
async def test_what_a_client_wrote_is_short_and_harmless_in_the_log(
    writer: RecordingWriter, log: CapturedLog, path: str
) -> None:
    async with public_port(writer) as place:
        await ask(place.port, request_bytes(path=path))
    assert len(log.text) < 1000
    assert "\x1b" not in log.text
    assert all(line["event"] for line in log.lines)


async def test_a_body_in_flight_is_no_part_of_any_line(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    async with public_port(writer, body_seconds=0.1) as place, Client.to(place.port) as client:
        assert (await client.ask(request_bytes(BODY + PRIVATE)[:-1])).status == 408
    assert CARD not in log.text
    assert "evt_1" not in log.text
