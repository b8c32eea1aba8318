"""Facts about the corpus of requests: what is answered to each, and what a worker reads in it."""

import base64
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import ingress.http.receive
from shared.endpoints.endpoint import Endpoints
from shared.endpoints.union import parse_endpoints
from shared.errors import EnvelopeError
from shared.sellfern.envelope import decode
from tests.ingress_support import Client, Known, RecordingWriter, Reply, chunked
from tests.integration.ingress.public_port import public_port
from worker import Id
from worker.decoding import DataDecoder

CORPUS: Final = Path(__file__).parents[2] / "corpus"
NOW: Final = 1_795_000_000
REQUESTS: Final[list[dict[str, Any]]] = tomllib.loads(
    (CORPUS / "requests.toml").read_text(encoding="utf-8")
)["request"]


class Order(msgspec.Struct):
    order_id: Id


@pytest.fixture(scope="module")
def known() -> Endpoints:
    """The endpoints that the corpus is sent to."""
    path = CORPUS / "endpoints.toml"
    return parse_endpoints(path.read_text(encoding="utf-8"), path=path, environ={})


def body_of(request: dict[str, Any]) -> bytes:
    """The body of a request of the corpus."""
    encoded, pad = request.get("body_base64"), b" " * int(request.get("pad", 0))
    return (base64.b64decode(encoded) if encoded else str(request["body"]).encode()) + pad


def bytes_of(request: dict[str, Any]) -> bytes:
    """The whole request as it goes over the wire."""
    body, is_chunked = body_of(request), request.get("chunked", False)
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(body)}"
    lines = [f"POST /webhooks/{request['endpoint']} HTTP/1.1", "Host: localhost", length]
    lines += request["headers"]
    if "long_header" in request:
        lines.append("X-Client-Cert: " + "a" * (request["long_header"] - len("X-Client-Cert: ")))
    step = len(body) // 3 + 1
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    return "\r\n".join([*lines, "", ""]).encode() + (chunked(*chunks) if is_chunked else body)


async def answer_to(client: Client, raw: bytes) -> Reply:
    """The answer itself, behind an invitation that may come before it."""
    reply = await client.ask(raw)
    return await client.reply() if reply.status == 100 else reply


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each["name"])
async def test_a_request_of_the_corpus_is_answered_and_read_as_it_says(
    writer: RecordingWriter,
    known: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
    request_: dict[str, Any],
) -> None:
    monkeypatch.setattr(ingress.http.receive, "time", lambda: float(request_.get("now", NOW)))
    async with (
        public_port(writer, known=Known(known), **request_.get("limits", {})) as place,
        Client.to(place.port) as client,
    ):
        reply = await answer_to(client, bytes_of(request_))
    assert (reply.status, reply.code) == (request_["status"], request_["code"])
    if "connection" in request_:
        assert reply.headers["connection"] == request_["connection"]
    if reply.status != 202:
        assert writer.deliveries == []
        return
    (delivery,) = writer.deliveries
    assert delivery.body == body_of(request_)
    check_reading(request_, delivery.body)


def check_reading(request: dict[str, Any], body: bytes) -> None:
    """Fail unless the worker reads in a body what the corpus says."""
    if "dead" in request:
        with pytest.raises(EnvelopeError) as caught:
            decode(body)
        assert request["dead"] in str(caught.value)
        return
    envelope = decode(body)
    data = DataDecoder(Order).decode(envelope.data)
    assert request["event"] == {
        "id": envelope.id,
        "organization_id": envelope.organization_id,
        "order_id": data.order_id,
    }


def test_the_corpus_has_each_request_once() -> None:
    names = [each["name"] for each in REQUESTS]
    assert len(names) == len(set(names)) >= 60
