"""Facts about the client of the management API."""

import asyncio
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectorCertificateError, ClientSession
from aiohttp.client_reqrep import ConnectionKey

from deploy.sellfern import Fault, Sellfern, simulator
from ingress.management import api_errors
from ingress.management.api_errors import (
    BY_CODE,
    Answered,
    ApiError,
    EventUnavailable,
    IdempotencyConflict,
    MissingScope,
    NoAnswer,
    NotFound,
    OperationUnavailable,
    OtherError,
    OutcomeUnknown,
    RateLimited,
    ServerFault,
    Unauthorized,
    UnreadableAnswer,
    ValidationFailed,
    error_class,
)
from ingress.management.client import Client
from ingress.management.exchange import Access, Exchange, Persistence, client_session
from ingress.management.journal import Journal, OutcomeTooOld
from ingress.management.openapi import Listing
from ingress.management.reference_commands import imported
from shared.errors import SellfernError
from shared.sellfern.reference import Reference, load_default
from shared.settings.durations import retry_after
from shared.settings.secret import Secret
from tests.unit.ingress.management.fake_api import Told, fake_api, refusal, success

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEY = "sk_test_of_org_a"
URL = "https://hooks.example.com/webhooks/acme"
EVENTS = ("order.updated",)
QUICK = Persistence(deadline=10.0, timeout=5.0, base=0.001, cap=0.002)
ENDPOINT = {"id": "e1", "url": URL, "events": ["order.updated"], "enabled": True}
OPERATIONS = (
    "GET /webhooks",
    "POST /webhooks",
    "PATCH /webhooks/{id}",
    "DELETE /webhooks/{id}",
    "POST /webhooks/{id}/test",
    "GET /webhooks/{id}/deliveries",
)


def everything(prefix: str = "") -> Reference:
    """The reference data with every operation available."""
    paths = {name: prefix + name.partition(" ")[2] for name in OPERATIONS}
    return imported(load_default(), load_default(), Listing("", paths, None))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.locked(tmp_path / "journal.json") as locked:
        yield locked


@asynccontextmanager
async def client(
    url: str,
    journal: Journal,
    *,
    key: str = KEY,
    organization: str = "org_a",
    reference: Reference | None = None,
    told: Any = lambda _: None,
    **persistence: float,
) -> AsyncIterator[Client]:
    async with client_session() as session:
        access = Access(url, Secret(key), organization)
        exchange = Exchange(session, access, replace(QUICK, **persistence), told)
        yield Client(exchange, reference or everything(), journal)


@asynccontextmanager
async def sellfern(*faults: Fault, **knobs: Any) -> AsyncIterator[Sellfern]:
    async with simulator(f"{KEY}:org_a", "sk_test_of_org_b:org_b", **knobs) as vendor:
        vendor.faults.add(*faults)
        yield vendor


async def create(asking: Client, url: str = URL, events: Any = EVENTS) -> str:
    async with asking.creating(url, events, enabled=True) as created:
        return created.id


async def test_the_life_of_an_endpoint(journal: Journal) -> None:
    async with sellfern() as vendor, client(vendor.url, journal) as asking:
        async with asking.creating(URL, EVENTS, enabled=False) as created:
            assert created.secret is not None
            assert created.secret == vendor.endpoints.of("org_a")[0].secret
            assert created.created_at is not None
        assert [each.id for each in await asking.endpoints()] == [created.id]
        async with asking.switching(created.id, enabled=True) as changed:
            assert changed.enabled
        async with asking.testing(created.id) as answer:
            assert isinstance(answer, dict)
        (delivery,) = await asking.deliveries(created.id)
        assert delivery.event == "order.updated"
        assert delivery.status == "failed"
        async with asking.removing(created.id):
            pass
        assert await asking.endpoints() == []
        assert not journal.pending
        keys = [seen.idempotency_key for seen in vendor.requests]
        assert len({key for key in keys if key}) == 4  # one a change, none for a question
        assert [key is None for key in keys] == [False, True, False, False, True, False, True]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("cut", when="before")],
        [Fault("cut", when="after")],
        [Fault("hang", when="before"), Fault("hang", when="after")],
        [Fault("error", when="after", status=500, times=3)],
        [Fault("gateway", when="after", status=502), Fault("cut", when="after", times=2)],
        [Fault("rate_limit", retry_after=0, times=2)],
    ],
    ids=lambda faults: f"{faults[0].kind}-{faults[0].when}",
)
async def test_a_retry_bears_the_same_key_and_one_endpoint_exists(
    journal: Journal, faults: list[Fault]
) -> None:
    """Cut after the effect, the retry gets the first answer, the secret in it."""
    told: list[str] = []
    async with (
        sellfern(*faults) as vendor,
        client(vendor.url, journal, told=told.append, timeout=0.2) as asking,
    ):
        async with asking.creating(URL, EVENTS, enabled=True) as created:
            (only,) = vendor.endpoints.of("org_a")
            assert created.id == only.id
            assert created.secret == only.secret
        assert len({seen.idempotency_key for seen in vendor.requests}) == 1
        assert len(vendor.requests) == 1 + sum(fault.times for fault in faults)
    assert not journal.pending
    assert len(told) == sum(fault.times for fault in faults)
    assert all("trying again in" in line for line in told)


async def test_questions_are_retried_too(journal: Journal) -> None:
    faults = Fault("error", times=2), Fault("cut"), Fault("rate_limit", retry_after=0)
    async with sellfern(*faults) as vendor, client(vendor.url, journal) as asking:
        assert await asking.endpoints() == []
        assert len(vendor.requests) == 5


async def test_429_is_retried_when_retry_after_says(journal: Journal) -> None:
    loop = asyncio.get_running_loop()
    async with (
        sellfern(Fault("rate_limit", retry_after=1)) as vendor,
        client(vendor.url, journal) as asking,
    ):
        started = loop.time()
        await asking.endpoints()
        assert loop.time() - started >= 1.0


async def test_a_wait_beyond_the_deadline_isn_t_begun(journal: Journal) -> None:
    async with (
        sellfern(Fault("rate_limit", retry_after=3600, times=0)) as vendor,
        client(vendor.url, journal) as asking,
    ):
        with pytest.raises(RateLimited):
            await create(asking)
        assert len(vendor.requests) == 1
    assert not journal.pending  # a 429 has no effect, so the outcome is known


async def test_an_outcome_that_stays_unknown_keeps_its_key_for_the_next_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.json"
    async with sellfern(Fault("cut", when="after", times=0)) as vendor:
        with Journal.locked(path) as journal:
            async with client(vendor.url, journal, deadline=0.1) as asking:
                with pytest.raises(OutcomeUnknown, match="same command again") as caught:
                    await create(asking)
            assert [entry.key for entry in journal.pending] == [caught.value.key]
        vendor.faults.clear()
        with Journal.locked(path) as journal:
            async with client(vendor.url, journal) as asking:
                assert asking.has_begun_creating(URL, EVENTS, enabled=True)
                assert not asking.has_begun_creating(URL, EVENTS, enabled=False)
                found = await create(asking)
                assert not asking.has_begun_creating(URL, EVENTS, enabled=True)
            assert not journal.pending
        assert [each.id for each in vendor.endpoints.of("org_a")] == [found]
        assert {seen.idempotency_key for seen in vendor.requests} == {caught.value.key}


async def test_another_request_has_another_key_also_while_one_is_open(journal: Journal) -> None:
    async with (
        sellfern(Fault("cut", when="before", times=0)) as vendor,
        client(vendor.url, journal, deadline=0.05) as asking,
    ):
        for url in (URL, URL + "?rotation=2"):
            with pytest.raises(OutcomeUnknown):
                await create(asking, url)
        assert len({entry.key for entry in journal.pending}) == 2


async def test_the_same_command_afterwards_has_a_new_key(journal: Journal) -> None:
    async with sellfern(same_url=True) as vendor, client(vendor.url, journal) as asking:
        assert await create(asking) != await create(asking)
        assert len(vendor.endpoints.of("org_a")) == 2


async def test_what_is_done_with_an_answer_comes_before_the_journal_forgets(
    journal: Journal,
) -> None:
    async with sellfern() as vendor, client(vendor.url, journal) as asking:
        with pytest.raises(OSError, match="disk full"):
            async with asking.creating(URL, EVENTS, enabled=True):
                raise OSError("disk full")
        assert len(journal.pending) == 1
        async with asking.creating(URL, EVENTS, enabled=True) as again:
            assert again.secret == vendor.endpoints.of("org_a")[0].secret
    assert not journal.pending


async def test_a_key_that_served_another_request_is_a_conflict_and_not_retried(
    journal: Journal,
) -> None:
    async with sellfern() as vendor:
        async with client(vendor.url, journal) as asking:
            entry, _ = journal.begin("org_a", "POST /webhooks", b"unlike any", "another")
            await _use(vendor.url, entry.key)
            request = asking._request("POST /webhooks", body=_body(URL))
            journal._contents.pending[0] = replace_entry(journal, request.canonical)
            with pytest.raises(IdempotencyConflict) as caught:
                await create(asking)
            assert [seen.outcome for seen in vendor.requests] == ["201", "422"]
            assert caught.value.request_id.startswith("req_")
            assert "nothing was changed by this request" in str(caught.value)
            assert "the next command makes a new key" in str(caught.value)
            assert not journal.pending
            await create(asking)
        assert len(vendor.endpoints.of("org_a")) == 2


def _body(url: str) -> dict[str, object]:
    return {"url": url, "events": list(EVENTS), "enabled": True}


async def _use(url: str, key: str) -> None:
    """Use a key for a request of somebody else's."""
    headers = {"x-api-key": KEY, "Idempotency-Key": key}
    body = _body("https://hooks.example.com/webhooks/other")
    async with (
        ClientSession() as session,
        session.post(f"{url}/webhooks", json=body, headers=headers) as response,
    ):
        assert response.status == 201


def replace_entry(journal: Journal, request: bytes) -> Any:
    """The pending entry as if its key had been made for this request."""
    (entry,) = journal.pending
    fresh, _ = journal.begin("org_a", "POST /webhooks", request, "one")
    journal._contents.pending.remove(fresh)
    return type(entry)(entry.key, "org_a", "POST /webhooks", fresh.request, "one", entry.created_at)


async def test_a_key_of_one_organization_neither_shows_nor_changes_anothers_endpoint(
    journal: Journal,
) -> None:
    async with sellfern() as vendor, client(vendor.url, journal) as asking:
        theirs = vendor.endpoints.create("org_b", URL, EVENTS, secret="whsec_b")
        assert await asking.endpoints() == []
        with pytest.raises(NotFound, match="or it is another organization's"):
            async with asking.switching(theirs.id, enabled=False):
                pass
        with pytest.raises(NotFound):
            async with asking.removing(theirs.id):
                pass
        with pytest.raises(NotFound):
            async with asking.testing(theirs.id):
                pass
        with pytest.raises(NotFound):
            await asking.deliveries(theirs.id)
        assert vendor.endpoints.of("org_b") == [theirs]


@pytest.mark.parametrize("removed", [False, True])
async def test_a_404_tells_nothing_so_a_removal_is_not_taken_for_done(
    journal: Journal, *, removed: bool
) -> None:
    async with sellfern() as vendor, client(vendor.url, journal) as asking:
        endpoint = vendor.endpoints.create("org_b", URL, EVENTS, secret="whsec_b")
        if removed:
            vendor.endpoints.remove(endpoint)
        with pytest.raises(NotFound) as caught:
            async with asking.removing(endpoint.id):
                pytest.fail("the block of a removal that didn't happen has run")
        told = str(caught.value).replace(caught.value.request_id, "")
        assert told == (
            "404 not_found: there is no such resource; it isn't there, or it is another "
            "organization's (request )"
        )


@pytest.mark.parametrize(
    ("operation", "ask"),
    [
        ("GET /webhooks", lambda each: each.endpoints()),
        ("GET /webhooks/{id}/deliveries", lambda each: each.deliveries("e1")),
        ("PATCH /webhooks/{id}", lambda each: entered(each.switching("e1", enabled=True))),
        ("DELETE /webhooks/{id}", lambda each: entered(each.removing("e1"))),
        ("POST /webhooks/{id}/test", lambda each: entered(each.testing("e1"))),
    ],
)
async def test_an_operation_that_isn_t_listed_is_refused_by_name_before_anything_is_sent(
    journal: Journal, operation: str, ask: Any
) -> None:
    async with (
        sellfern() as vendor,
        client(vendor.url, journal, reference=load_default()) as asking,
    ):
        with pytest.raises(OperationUnavailable) as caught:
            await ask(asking)
        assert caught.value.operation == operation
        assert str(caught.value).startswith(f"{operation} is not available")
        assert not vendor.requests
    assert not journal.pending


async def entered(manager: Any) -> None:
    async with manager:
        pass


async def test_an_event_that_isn_t_listed_is_refused_by_name_before_anything_is_sent(
    journal: Journal,
) -> None:
    async with sellfern() as vendor, client(vendor.url, journal) as asking:
        with pytest.raises(EventUnavailable, match=r"ticket\.created") as caught:
            await create(asking, events=["order.updated", "ticket.created"])
        assert caught.value.event == "ticket.created"
        assert not vendor.requests
    assert not journal.pending


async def test_the_path_is_the_imported_ones_and_an_id_can_t_leave_it(journal: Journal) -> None:
    async with (
        fake_api(success([])) as fake,
        client(fake.url, journal, reference=everything("/api/v2")) as asking,
    ):
        await asking.endpoints()
        await asking.deliveries("../orders?x=#")
    assert [request.raw_path for request in fake.requests] == [
        "/api/v2/webhooks",
        "/api/v2/webhooks/..%2Forders%3Fx=%23/deliveries",
    ]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (refusal(400, "validation_error", details={"issues": ["url"]}), ValidationFailed),
        (refusal(401, "unauthorized"), Unauthorized),
        (refusal(403, "missing_scope"), MissingScope),
        (refusal(404, "not_found"), NotFound),
        (refusal(422, "idempotency_conflict"), IdempotencyConflict),
        (refusal(409, "something_new"), OtherError),
        (Told(404, b"<html>"), OtherError),
        (Told(418, {"success": False, "error": None}), OtherError),
        (Told(302, b"", {"Location": "https://evil.example/"}), UnreadableAnswer),
        (Told(200, b"<html>"), UnreadableAnswer),
        (Told(200, b"[" * 100_000), UnreadableAnswer),
        (Told(200, b"\xff"), UnreadableAnswer),
        (Told(200, b"x" * (4 * 1024 * 1024 + 1)), UnreadableAnswer),
        (Told(200, {"success": False, "data": []}), UnreadableAnswer),
        (success({"id": 3}), UnreadableAnswer),
        (success([{**ENDPOINT, "id": ""}]), UnreadableAnswer),
    ],
)
async def test_an_error_is_typed_has_its_request_id_and_isn_t_retried(
    journal: Journal, told: Told, kind: type[Answered]
) -> None:
    async with fake_api(told) as fake, client(fake.url, journal) as asking:
        with pytest.raises(kind) as caught:
            await asking.endpoints()
    assert type(caught.value) is kind
    assert len(fake.requests) == 1
    assert caught.value.status == told.status
    if isinstance(told.body, dict) and "meta" in told.body:
        assert caught.value.request_id == "req_1"
        assert "(request req_1)" in str(caught.value)


async def test_a_missing_scope_is_named(journal: Journal) -> None:
    told = refusal(403, "missing_scope", details={"required_scope": "webhooks:manage"})
    async with fake_api(told) as fake, client(fake.url, journal) as asking:
        with pytest.raises(MissingScope, match="webhooks:manage"):
            await asking.endpoints()


@pytest.mark.parametrize("status", [500, 502, 503, 599])
async def test_5xx_is_retried_until_the_deadline(journal: Journal, status: int) -> None:
    told: list[str] = []
    later = refusal(status, "internal_error")
    later.headers["Retry-After"] = "3600"
    async with (
        fake_api(refusal(status, "internal_error")) as fake,
        # The second wait is beyond the deadline, whatever is drawn.
        client(fake.url, journal, told=told.append, deadline=5) as asking,
    ):
        fake.answers = [refusal(status, "internal_error"), later]
        with pytest.raises(ServerFault):
            await asking.endpoints()
        assert len(fake.requests) == 2
        fake.answers = [refusal(status, "internal_error"), later]
        with pytest.raises(OutcomeUnknown, match="internal_error"):
            await create(asking)
        assert len(fake.requests) == 4
        assert len(told) == 2
        assert len(fake.keys) == 2  # none for the question, one for the change


async def test_an_answer_of_the_gate_leaves_an_earlier_doubt(journal: Journal) -> None:
    """After a lost answer, a 401 says nothing of the first attempt's effect."""
    answers = Told(cut=True), refusal(401, "unauthorized")
    async with fake_api(*answers) as fake, client(fake.url, journal) as asking:
        with pytest.raises(Unauthorized):
            await create(asking)
        assert len(journal.pending) == 1
        fake.answers = [Told(cut=True), refusal(400, "validation_error")]
        with pytest.raises(ValidationFailed):
            await create(asking)
        assert not journal.pending  # this one only the request itself can have led to


async def test_a_429_after_a_lost_answer_leaves_the_outcome_unknown(journal: Journal) -> None:
    limited = refusal(429, "rate_limited")
    limited.headers["Retry-After"] = "3600"
    async with fake_api(Told(cut=True), limited) as fake, client(fake.url, journal) as asking:
        with pytest.raises(OutcomeUnknown, match="rate_limited"):
            await create(asking)
    assert len(journal.pending) == 1


async def test_a_success_that_can_t_be_read_keeps_its_key(journal: Journal) -> None:
    for told in (success({**ENDPOINT, "secret": ""}), success({**ENDPOINT, "secret": 3})):
        async with fake_api(told) as fake, client(fake.url, journal) as asking:
            with pytest.raises(UnreadableAnswer, match="expected a secret that is a text"):
                await create(asking)
            assert len(journal.pending) >= 1


async def test_an_answer_without_a_secret_or_a_body_is_fine(journal: Journal) -> None:
    async with fake_api(success(ENDPOINT, 201)) as fake, client(fake.url, journal) as asking:
        async with asking.creating(URL, EVENTS, enabled=True) as created:
            assert created.secret is None
        fake.answers = [Told(204, b"")]
        async with asking.removing("e1"):
            pass
    assert not journal.pending


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_where_nobody_listens_nothing_was_sent_so_the_outcome_is_known(
    journal: Journal,
) -> None:
    async with client(closed_port(), journal, deadline=0.05) as asking:
        with pytest.raises(NoAnswer, match="no connection"):
            await create(asking)
    assert not journal.pending


class UntrustedSession:
    """A session whose every connection meets a certificate that isn't trusted."""

    def __init__(self) -> None:
        self.requests = 0

    def request(self, *_: object, **__: object) -> None:
        """Fail as aiohttp does."""
        self.requests += 1
        key = ConnectionKey("h", 443, True, True, None, None, None)  # noqa: FBT003  # a tuple
        error = ssl.SSLCertVerificationError("self-signed certificate")
        raise ClientConnectorCertificateError(key, error)


async def test_a_certificate_that_isn_t_trusted_is_not_tried_again(journal: Journal) -> None:
    session: Any = UntrustedSession()
    access = Access("https://h", Secret(KEY), "org_a")
    exchange = Exchange(session, access, QUICK, lambda _: None)
    asking = Client(exchange, everything(), journal)
    with pytest.raises(NoAnswer, match="no connection that can be trusted"):
        await create(asking)
    assert session.requests == 1
    assert not journal.pending


async def test_an_expired_key_is_not_used_and_nothing_is_sent(tmp_path: Path) -> None:
    now = [1_795_000_000.0]
    with Journal.locked(tmp_path / "journal.json", clock=lambda: now[0]) as journal:
        async with (
            sellfern(Fault("cut", when="after", times=0)) as vendor,
            client(vendor.url, journal, deadline=0.05) as asking,
        ):
            with pytest.raises(OutcomeUnknown):
                await create(asking)
            sent = len(vendor.requests)
            now[0] += 86_400
            with pytest.raises(OutcomeTooOld):
                await create(asking)
            assert len(vendor.requests) == sent


async def test_the_api_key_shows_nowhere(journal: Journal) -> None:
    echo = refusal(400, f"code {KEY}", f"the key {KEY} is wrong", details={"key": KEY})
    echo.body["meta"]["request_id"] = f"req {KEY}"
    told: list[str] = []
    async with (
        fake_api(Told(cut=True), refusal(500, KEY, KEY), echo) as fake,
        client(fake.url, journal, told=told.append) as asking,
    ):
        with pytest.raises(OtherError) as caught:
            await create(asking)
        assert fake.requests[0].headers["x-api-key"] == KEY
        shown = [*told, str(caught.value), repr(caught.value), repr(vars(caught.value))]
        shown += traceback.format_exception(caught.value)
        shown += [repr(asking), repr(asking._access), str(asking._access), repr(journal.pending)]
    assert len(told) == 2
    assert not [text for text in shown if KEY in text]
    assert "the key *** is wrong" in str(caught.value)


async def test_a_secret_in_an_answer_shows_in_no_repr(journal: Journal) -> None:
    async with (
        fake_api(success({**ENDPOINT, "secret": "whsec_shown_once"})) as fake,
        client(fake.url, journal) as asking,
        asking.creating(URL, EVENTS, enabled=True) as created,
    ):
        assert created.secret == Secret("whsec_shown_once")
        assert "whsec_shown_once" not in repr(created)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("\u0667", None),
        ("9" * 100, 999_999_999.0),
        (format_datetime(NOW + timedelta(days=3), usegmt=True), 3 * 86_400.0),
        (format_datetime(NOW - timedelta(days=3), usegmt=True), 0.0),
        ("Wed, 01 Jan 2020 00:00:00 -0000", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_the_delay_is_exponential_with_full_jitter() -> None:
    persistence = Persistence(base=0.5, cap=10.0)
    bounds = [persistence.delay(attempt, 1.0) for attempt in range(1, 8)]
    assert bounds == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert persistence.delay(5, 0.25) == 2.0
    assert persistence.delay(5, 0.0) == 0.0
    assert persistence.delay(10**9, 1.0) == 10.0


async def test_an_interrupted_request_keeps_its_key(journal: Journal) -> None:
    async with (
        sellfern(Fault("hang", when="after")) as vendor,
        client(vendor.url, journal) as asking,
    ):
        task = asyncio.create_task(create(asking))
        async with asyncio.timeout(10):
            while not vendor.requests:
                await asyncio.sleep(0.01)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert len(journal.pending) == 1


def test_every_documented_code_has_its_class_and_all_are_in_one_tree() -> None:
    assert set(BY_CODE) == {
        "validation_error",
        "unauthorized",
        "missing_scope",
        "not_found",
        "idempotency_conflict",
        "rate_limited",
    }
    assert error_class(429, "") is RateLimited
    assert error_class(503, "not_found") is ServerFault
    classes = [each for each in vars(api_errors).values() if isinstance(each, type)]
    raised = [each for each in classes if issubclass(each, SellfernError)]
    assert {each for each in raised if not issubclass(each, ApiError)} == {SellfernError}
    drawn = api_errors.__doc__ or ""
    assert all(each.__name__ in drawn for each in raised if each is not SellfernError)
