"""Facts about the limits on bodies, judged by their headers."""

from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from ingress.http.answers import Refused
from ingress.http.body import check_head
from ingress.http.bytes_in_flight import BytesInFlight
from ingress.settings import Limits

LIMITS = Limits(body_bytes=1000)


def request(*headers: tuple[str, str], **options: Any) -> web.BaseRequest:  # passed through
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
    assert judged(request(("Content-Length", length))) == code


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
    assert judged(request(*(("Content-Encoding", coding) for coding in codings))) == code


@pytest.mark.parametrize(
    ("coding", "code"),
    [
        ("chunked", ""),
        ("Chunked", ""),
        ("gzip, chunked", "unsupported_encoding"),
    ],
)
def test_a_transfer_coding_but_chunks_is_refused(coding: str, code: str) -> None:
    assert judged(request(("Transfer-Encoding", coding), version=HttpVersion11)) == code


def test_chunks_where_the_version_has_none_are_refused() -> None:
    chunks = ("Transfer-Encoding", "chunked")
    assert judged(request(chunks, version=HttpVersion10)) == "bad_request"


def test_a_request_without_a_length_has_an_empty_body() -> None:
    assert judged(request()) == ""


def test_a_length_that_does_not_fit_beside_the_others_is_refused() -> None:
    in_flight = BytesInFlight(1500)
    in_flight.held = 1000
    assert judged(request(("Content-Length", "500")), in_flight) == ""
    assert judged(request(("Content-Length", "501")), in_flight) == "bytes_in_flight"


def test_what_is_announced_is_not_held() -> None:
    in_flight = BytesInFlight(1500)
    for _ in range(10):
        assert judged(request(("Content-Length", "1000")), in_flight) == ""
    assert in_flight.held == 0
