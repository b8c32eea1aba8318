"""Facts about the form of the answers."""

import json
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import time
from typing import Any

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11

from ingress.http import answers
from ingress.http.answers import Refusal, Refused
from shared.errors import SignatureError, Unavailable
from shared.queue.writer import Accepted

REFUSALS = [
    answers.NOT_FOUND,
    answers.UNKNOWN_ENDPOINT,
    answers.METHOD_NOT_ALLOWED,
    answers.BAD_REQUEST,
    answers.HEADERS_TOO_LARGE,
    answers.BODY_INCOMPLETE,
    answers.CHUNK_OVERHEAD,
    answers.REQUEST_TIMEOUT,
    answers.PAYLOAD_TOO_LARGE,
    answers.UNSUPPORTED_ENCODING,
    answers.REDIS_AWAITED,
    answers.BYTES_IN_FLIGHT,
    answers.TOO_MANY_CONNECTIONS,
    answers.INTERNAL_ERROR,
]


def parsed(rendered: bytes) -> tuple[str, dict[str, str], Any]:
    """Status line, headers and body."""
    head, _, body = rendered.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), json.loads(body)


def refused(refusal: Refusal, *, is_kept: bool = True) -> tuple[str, dict[str, str], Any]:
    return parsed(answers.Rejection(refusal, "req-1").rendered(HttpVersion11, is_kept=is_kept))


def test_each_refusal_has_a_code_of_its_own() -> None:
    assert len({refusal.code for refusal in REFUSALS}) == len(REFUSALS)


ODD = Refusal(HTTPStatus.UNAUTHORIZED, "signature_invalid", 'expected one "t="… in \N{PILE OF POO}')


@pytest.mark.parametrize("refusal", [*REFUSALS, ODD], ids=lambda refusal: refusal.code)
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_refusal_has_the_vendors_shape(refusal: Refusal, *, is_kept: bool) -> None:
    answer = answers.Rejection(refusal, "req-1")
    assert answer.status == refusal.status
    rendered = answer.rendered(HttpVersion11, is_kept=is_kept)
    first, headers, body = parsed(rendered)
    assert first == f"HTTP/1.1 {refusal.status.value} {refusal.status.phrase}"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Request-Id"] == "req-1"
    assert headers.get("Connection") == (None if is_kept else "close")
    assert int(headers["Content-Length"]) == len(rendered.partition(b"\r\n\r\n")[2])
    assert abs(parsedate_to_datetime(headers["Date"]).timestamp() - time()) < 5
    assert body == {
        "success": False,
        "error": {"code": refusal.code, "message": refusal.message},
        "meta": {"request_id": "req-1"},
    }


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
def test_what_may_pass_and_only_that_says_when_to_come_again(refusal: Refusal) -> None:
    _, headers, _ = refused(refusal)
    assert ("Retry-After" in headers) == (refusal.status == HTTPStatus.SERVICE_UNAVAILABLE)
    assert headers.get("Retry-After", "5") == str(answers.RETRY_AFTER_SECONDS)


def test_a_wrong_method_and_only_that_is_told_the_right_one() -> None:
    allowed = {refusal.code: refused(refusal)[1].get("Allow") for refusal in REFUSALS}
    assert {code: methods for code, methods in allowed.items() if methods} == {
        "method_not_allowed": "POST"
    }


@pytest.mark.parametrize("accepted", list(Accepted))
def test_both_kinds_of_success_are_202_and_tell_themselves_apart(accepted: Accepted) -> None:
    answer = answers.Success(accepted, "req-1")
    assert answer.status == HTTPStatus.ACCEPTED
    rendered = answer.rendered(HttpVersion11, is_kept=True)
    first, headers, body = parsed(rendered)
    assert first == "HTTP/1.1 202 Accepted"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Request-Id"] == "req-1"
    assert int(headers["Content-Length"]) == len(rendered.partition(b"\r\n\r\n")[2])
    assert abs(parsedate_to_datetime(headers["Date"]).timestamp() - time()) < 5
    assert body == {
        "success": True,
        "data": {"status": accepted.value},
        "meta": {"request_id": "req-1"},
    }


@pytest.mark.parametrize(
    ("version", "is_kept", "connection"),
    [
        (HttpVersion11, True, None),
        (HttpVersion11, False, "close"),
        (HttpVersion10, True, "keep-alive"),
        (HttpVersion10, False, None),
    ],
)
def test_success_says_of_its_connection_what_the_version_does_not(
    version: HttpVersion, connection: str | None, *, is_kept: bool
) -> None:
    rendered = answers.Success(Accepted.NEW, "req-1").rendered(version, is_kept=is_kept)
    first, headers, _ = parsed(rendered)
    assert first.startswith(f"HTTP/{version.major}.{version.minor} ")
    assert headers.get("Connection") == connection


def test_no_answer_tells_which_server_made_it() -> None:
    success = answers.Success(Accepted.NEW, "req-1").rendered(HttpVersion11, is_kept=True)
    assert parsed(success)[1]["Server"] == "sellfern-ingress"
    assert refused(answers.NOT_FOUND)[1]["Server"] == "sellfern-ingress"


def test_an_error_becomes_a_refusal_with_its_code_and_sentence() -> None:
    assert answers.unauthorized(SignatureError("signature_missing", "no header")) == Refusal(
        HTTPStatus.UNAUTHORIZED, "signature_missing", "no header"
    )
    assert answers.unavailable(Unavailable("redis_readonly", "a replica")) == Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE, "redis_readonly", "a replica"
    )


def test_a_refusal_that_is_raised_reads_as_its_code_and_sentence() -> None:
    said = "redis_awaited: this process waits for its Redis"
    assert str(Refused(answers.REDIS_AWAITED)) == said
