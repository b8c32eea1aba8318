"""Facts about the simulated Sellfern over HTTP, by clients that are not ours."""

import asyncio
import gc
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from deploy.sellfern import Fault, Sellfern, simulator
from shared.errors import SettingsError
from tests.acceptance.process import run_command
from tests.ingress_support import ask
from tests.integration.sink import SECRET, Sink, sink
from tests.log_support import captured_log
from tests.unit.deploy.sellfern.hand_clock import HandClock

KEYS = ("ka:org_a", "ka2:org_a", "kb:org_b", "kr:org_a:orders:read")
URL = "https://shop.example/hooks"
ENDPOINT = {"url": URL, "events": ["order.updated"], "enabled": True}
PATIENCE = ClientTimeout(total=10)
NOWHERE = "00000000-0000-4000-8000-000000000000"


class Api:
    """The management API, asked by hand."""

    def __init__(self, session: ClientSession, sellfern: Sellfern) -> None:
        self.session = session
        self.sellfern = sellfern

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "ka",
        idempotency: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> "Reply":
        """One request."""
        sent = dict(headers or {})
        if key is not None:
            sent["x-api-key"] = key
        if idempotency is not None:
            sent["Idempotency-Key"] = idempotency
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = self.sellfern.url + path
        async with self.session.request(
            method, url, data=data, headers=sent, timeout=PATIENCE, allow_redirects=False
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, **changes: Any) -> "Reply":
        """Create an endpoint."""
        asked = {name: changes.pop(name) for name in ("key", "idempotency") if name in changes}
        return await self.ask("POST", "/webhooks", {**ENDPOINT, **changes}, **asked)

    async def created(self, **changes: Any) -> str:
        """Create an endpoint; its id."""
        return str((await self.create(**changes)).data["id"])

    async def list(self, key: str = "ka") -> Any:
        """The endpoints."""
        return (await self.ask("GET", "/webhooks", key=key)).data

    async def control(self, method: str, path: str, body: Any = None) -> "Reply":
        """One request that only the simulator has an answer to."""
        return await self.ask(method, f"/_control/{path}", body, key=None)


class Reply:
    """An answer."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """What a success has to say."""
        assert self.json["success"] is True, self.body
        return self.json["data"]

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of a refusal, whose shape is as documented."""
        assert self.json["success"] is False
        assert self.json["error"]["message"]
        assert self.json["meta"]["request_id"] == self.headers["X-Request-Id"]
        return self.status, self.json["error"]["code"]


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as client:
        yield client


@pytest.fixture
async def sellfern() -> AsyncIterator[Sellfern]:
    async with simulator(*KEYS, attempts=3, backoff=0.01, disorder_seconds=0.05) as vendor:
        yield vendor


@pytest.fixture
def api(session: ClientSession, sellfern: Sellfern) -> Api:
    return Api(session, sellfern)


@pytest.fixture
async def receiver() -> AsyncIterator[Sink]:
    async with sink() as listening:
        yield listening


def subscribe(sellfern: Sellfern, receiver: Sink, organization: str = "org_a", **more: Any) -> str:
    """Register the sink; the endpoint's id."""
    options = {"events": ("order.updated",), "secret": SECRET, **more}
    return sellfern.endpoints.create(organization, receiver.url, **options).id


# The management API


async def test_an_endpoint_lives_from_its_creation_to_its_removal(api: Api) -> None:
    reply = await api.create()
    assert reply.status == 201
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json["meta"]["request_id"] == reply.headers["X-Request-Id"]
    created = reply.data
    secret = created.pop("secret")
    assert secret == api.sellfern.endpoints.of("org_a")[0].secret.reveal()
    assert {name: created[name] for name in ENDPOINT} == ENDPOINT
    assert set(created) == {*ENDPOINT, "id", "created_at", "updated_at"}
    assert await api.list() == [created]

    path = f"/webhooks/{created['id']}"
    changed = await api.ask("PATCH", path, {"enabled": False, "events": ["order.created"]})
    assert (changed.status, changed.data["enabled"]) == (200, False)
    assert changed.data["events"] == ["order.created"]
    assert await api.list() == [changed.data]

    removed = await api.ask("DELETE", path)
    assert (removed.status, removed.data) == (200, {"id": created["id"], "deleted": True})
    assert await api.list() == []
    assert (await api.ask("DELETE", path)).error == (404, "not_found")


async def test_the_secret_is_not_shown_where_it_is_hidden(session: ClientSession) -> None:
    async with simulator("ka:org_a", hide_secret=True) as sellfern:
        assert "secret" not in (await Api(session, sellfern).create()).data


@pytest.mark.parametrize("key", [None, "", "kc", "KA", "ka:org_a"])
async def test_without_a_known_key_nobody_is_let_in(api: Api, key: str | None) -> None:
    assert (await api.ask("GET", "/webhooks", key=key)).error == (401, "unauthorized")
    assert (await api.create(key=key)).error == (401, "unauthorized")
    assert api.sellfern.endpoints.of("org_a") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/webhooks"),
        ("POST", "/webhooks"),
        ("PATCH", f"/webhooks/{NOWHERE}"),
        ("DELETE", f"/webhooks/{NOWHERE}"),
        ("POST", f"/webhooks/{NOWHERE}/test"),
        ("GET", f"/webhooks/{NOWHERE}/deliveries"),
    ],
)
async def test_every_operation_needs_the_scope(api: Api, method: str, path: str) -> None:
    reply = await api.ask(method, path, key="kr")
    assert reply.error == (403, "missing_scope")
    assert reply.json["error"]["details"] == {"required_scope": "webhooks:manage"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")],
)
async def test_another_organizations_endpoint_looks_like_none(
    api: Api, method: str, path: str
) -> None:
    endpoint = await api.created()
    body = {"enabled": False}
    theirs = await api.ask(method, f"/webhooks/{endpoint}{path}", body, key="kb")
    nobodys = await api.ask(method, f"/webhooks/{NOWHERE}{path}", body, key="kb")
    assert theirs.error == nobodys.error == (404, "not_found")
    assert theirs.json["error"] == nobodys.json["error"]
    assert await api.list("kb") == []
    assert (await api.list())[0]["enabled"] is True


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"url":"x","events":[]}'])
async def test_a_body_that_is_not_as_documented_is_told_where(api: Api, body: bytes) -> None:
    reply = await api.ask("POST", "/webhooks", body)
    assert reply.error == (400, "validation_error")
    issues = reply.json["error"]["details"]["issues"]
    assert all(set(each) == {"path", "message"} for each in issues)
    assert issues


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/orders", (404, "not_found")),
        ("GET", f"/webhooks/{NOWHERE}", (405, "method_not_allowed")),
        ("PUT", "/webhooks", (405, "method_not_allowed")),
        ("GET", "/api/v2/webhooks", (404, "not_found")),
    ],
)
async def test_what_is_not_documented_is_refused_in_the_same_shape(
    api: Api, method: str, path: str, error: tuple[int, str]
) -> None:
    reply = await api.ask(method, path)
    assert reply.error == error
    assert ("Allow" in reply.headers) == (error[0] == 405)


async def test_a_body_too_large_is_refused_in_the_same_shape(api: Api) -> None:
    assert (await api.ask("POST", "/webhooks", b"x" * 300_000)).error == (413, "payload_too_large")


async def test_who_asks_too_often_is_told_when_to_come_again(session: ClientSession) -> None:
    clock = HandClock()
    async with simulator("ka:org_a", rate_limit=2, clock=clock) as sellfern:
        api = Api(session, sellfern)
        replies = [await api.ask("GET", "/webhooks") for _ in range(3)]
        assert [each.status for each in replies] == [200, 200, 429]
        assert replies[2].error == (429, "rate_limited")
        assert replies[2].headers["Retry-After"] == "1"
        clock.now += 1
        assert await api.list() == []


async def test_every_answer_takes_as_long_as_it_is_told(session: ClientSession) -> None:
    async with simulator("ka:org_a", latency=0.05) as sellfern:
        started = asyncio.get_running_loop().time()
        await Api(session, sellfern).list()
        assert asyncio.get_running_loop().time() - started >= 0.05


# Idempotency keys


async def test_the_same_request_again_gets_the_first_answer_to_the_byte(api: Api) -> None:
    first = await api.create(idempotency="k1")
    again = await api.create(idempotency="k1")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(await api.list()) == 1
    assert [each.idempotency_key for each in api.sellfern.requests] == ["k1", "k1", None]


async def test_a_key_is_the_organizations_not_the_api_keys(api: Api) -> None:
    first = await api.create(idempotency="k1")
    assert (await api.create(idempotency="k1", key="ka2")).body == first.body
    other = await api.create(idempotency="k1", key="kb")
    assert (other.status, other.body != first.body) == (201, True)
    assert (len(await api.list()), len(await api.list("kb"))) == (1, 1)


async def test_another_request_with_the_key_is_a_conflict_and_does_nothing(api: Api) -> None:
    endpoint = await api.created(idempotency="k1")
    replies = [
        await api.create(idempotency="k1", enabled=False),
        await api.ask("PATCH", f"/webhooks/{endpoint}", ENDPOINT, idempotency="k1"),
        await api.ask("DELETE", f"/webhooks/{endpoint}", idempotency="k1"),
        await api.ask("POST", f"/webhooks/{endpoint}/test", idempotency="k1"),
    ]
    assert {each.error for each in replies} == {(422, "idempotency_conflict")}
    assert (await api.list())[0]["enabled"] is True


async def test_a_key_may_be_used_anew_after_a_day(session: ClientSession) -> None:
    clock = HandClock()
    async with simulator("ka:org_a", same_url=True, clock=clock) as sellfern:
        api = Api(session, sellfern)
        first = await api.created(idempotency="k1")
        clock.now += 86_399
        assert await api.created(idempotency="k1") == first
        clock.now += 1
        assert await api.created(idempotency="k1") != first


async def test_two_at_once_with_one_key_have_one_effect(session: ClientSession) -> None:
    async with simulator("ka:org_a", latency=0.05, same_url=True) as sellfern:
        api = Api(session, sellfern)
        replies = await asyncio.gather(*(api.create(idempotency="k1") for _ in range(5)))
        assert {each.body for each in replies} == {replies[0].body}
        assert len(sellfern.endpoints.of("org_a")) == 1


async def test_a_change_and_a_removal_are_done_once(api: Api) -> None:
    path = f"/webhooks/{await api.created()}"
    off = [await api.ask("PATCH", path, {"enabled": False}, idempotency="k2") for _ in range(2)]
    assert off[0].body == off[1].body
    gone = [await api.ask("DELETE", path, idempotency="k3") for _ in range(2)]
    assert (gone[1].status, gone[1].body) == (200, gone[0].body)


async def test_a_refusal_is_the_first_answer_too(api: Api) -> None:
    wrong = await api.create(idempotency="k1", url="no")
    assert wrong.error == (400, "validation_error")
    assert (await api.create(idempotency="k1", url="no")).body == wrong.body
    assert (await api.create(idempotency="k1")).error == (422, "idempotency_conflict")


async def test_who_was_not_let_in_has_used_no_key(api: Api) -> None:
    assert (await api.create(key="kr", idempotency="k1")).status == 403
    assert (await api.create(idempotency="k1")).status == 201


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_of_another_length_is_a_validation_error(api: Api, key: str) -> None:
    assert (await api.create(idempotency=key)).error == (400, "validation_error")
    assert (await api.ask("GET", "/webhooks", idempotency=key)).status == 200
    assert (await api.create(idempotency="k" * 255)).status == 201


async def test_a_write_without_a_key_is_refused_where_one_is_required(
    session: ClientSession,
) -> None:
    async with simulator("ka:org_a", require_idempotency_key=True) as sellfern:
        api = Api(session, sellfern)
        assert (await api.create()).error == (400, "validation_error")
        assert await api.list() == []


# Faults


async def test_a_connection_cut_after_the_effect_leaves_one_endpoint_and_its_answer(
    api: Api,
) -> None:
    api.sellfern.faults.add(Fault("cut", when="after", operation="POST /webhooks"))
    with pytest.raises(ClientError):
        await api.create(idempotency="k1")
    assert len(await api.list()) == 1
    retried = await api.create(idempotency="k1")
    assert (retried.status, retried.headers["Idempotent-Replayed"]) == (201, "true")
    assert retried.data["secret"].startswith("whsec_")
    assert [each.outcome for each in api.sellfern.requests] == ["cut", "200", "201"]


async def test_a_connection_cut_before_the_effect_leaves_nothing(api: Api) -> None:
    api.sellfern.faults.add(Fault("cut"))
    with pytest.raises(ClientError):
        await api.create(idempotency="k1")
    assert await api.list() == []
    assert "Idempotent-Replayed" not in (await api.create(idempotency="k1")).headers


@pytest.mark.parametrize(("when", "number"), [("before", 0), ("after", 1)])
async def test_an_error_is_answered_before_or_after_the_effect(
    api: Api, when: str, number: int
) -> None:
    await api.control("POST", "faults", {"kind": "error", "when": when, "status": 500})
    assert (await api.create(idempotency="k1")).error == (500, "internal_error")
    assert len(await api.list()) == number
    assert (await api.create(idempotency="k1")).status == 201
    assert len(await api.list()) == 1


async def test_a_gateways_error_is_a_page_of_html(api: Api) -> None:
    api.sellfern.faults.add(Fault("gateway", status=502))
    reply = await api.ask("GET", "/webhooks")
    assert (reply.status, reply.headers["Content-Type"]) == (502, "text/html; charset=utf-8")


async def test_a_rate_limit_can_be_ordered(api: Api) -> None:
    api.sellfern.faults.add(Fault("rate_limit", retry_after=7))
    reply = await api.create(idempotency="k1")
    assert reply.error == (429, "rate_limited")
    assert reply.headers["Retry-After"] == "7"
    assert (await api.create(idempotency="k1")).status == 201


@pytest.mark.parametrize(("when", "number"), [("before", 0), ("after", 1)])
async def test_a_hang_lasts_until_the_client_leaves(api: Api, when: Any, number: int) -> None:
    api.sellfern.faults.add(Fault("hang", when=when))
    asked = asyncio.create_task(api.create(idempotency="k1"))
    async with asyncio.timeout(10):
        while not api.sellfern.requests:
            await asyncio.sleep(0.005)
    assert not asked.done()
    assert connections() == 1
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    async with asyncio.timeout(10):
        while connections():
            await asyncio.sleep(0.005)
    assert len(await api.list()) == number


def connections() -> int:
    """How many connections some server in this process still serves."""
    return sum("RequestHandler.start" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_hang_that_is_over_ends_with_a_cut(api: Api) -> None:
    api.sellfern.faults.add(Fault("hang", seconds=0.05))
    with pytest.raises(ClientError):  # by POST, since aiohttp itself asks once more by GET
        await api.create()


async def test_a_hang_keeps_nobody_from_stopping(session: ClientSession) -> None:
    async with asyncio.timeout(5):
        async with simulator("ka:org_a", faults=(Fault("hang"),)) as sellfern:
            asked = asyncio.create_task(Api(session, sellfern).list())
            while not sellfern.requests:
                await asyncio.sleep(0.005)
        with pytest.raises(ClientError):
            await asked


async def test_faults_are_ordered_listed_and_cleared_over_http(api: Api) -> None:
    two = [{"kind": "cut", "times": 2}, {"kind": "error"}]
    assert (await api.control("POST", "faults", two)).data == [
        {"kind": "cut", "times": 2},
        {"kind": "error"},
    ]
    assert len((await api.control("GET", "faults")).data) == 2
    assert (await api.control("DELETE", "faults")).data == []
    assert (await api.control("POST", "faults", {"kind": "no"})).error == (400, "validation_error")
    assert await api.list() == []


# Deliveries


async def test_a_delivery_is_signed_and_names_its_event(sellfern: Sellfern, receiver: Sink) -> None:
    subscribe(sellfern, receiver)
    (delivery,) = await sellfern.deliver("order.updated", organization="org_a")
    (got,) = receiver.received
    assert got.is_signed_with(SECRET)
    assert not got.is_signed_with("whsec_another")
    assert got.headers["X-Sellfern-Event"] == got.event.type == "order.updated"
    assert got.headers["Content-Type"] == "application/json"
    assert (got.event.id, got.event.organization_id) == (delivery.event.id, "org_a")
    assert (delivery.status, delivery.response_status) == ("delivered", 202)


async def test_a_delivery_is_tried_again_until_it_is_accepted(sellfern: Sellfern) -> None:
    async with sink(503, 302) as receiver:
        subscribe(sellfern, receiver)
        (delivery,) = await sellfern.deliver(organization="org_a")
        assert [each.response_status for each in delivery.attempts] == [503, 302, 202]
        assert delivery.status == "delivered"
        assert len({each.body for each in receiver.received}) == 1
        assert {each.path for each in receiver.received} == {"/hooks"}  # no redirect is followed


async def test_a_delivery_is_given_up_after_its_attempts(sellfern: Sellfern) -> None:
    async with sink(500, 401, 404, 202) as receiver:
        subscribe(sellfern, receiver)
        (delivery,) = await sellfern.deliver(organization="org_a")
        assert (delivery.status, len(receiver.received)) == ("failed", 3)
        assert sellfern.deliveries.counts == {"event_failed": 1}


async def test_a_receiver_that_does_not_answer_is_left(receiver: Sink) -> None:
    async with simulator("ka:org_a", attempts=1, timeout=0.05) as sellfern:
        subscribe(sellfern, receiver)
        receiver.gate.clear()
        (delivery,) = await sellfern.deliver()
        assert (delivery.status, delivery.response_status) == ("failed", None)
        assert delivery.attempts[0].error == "no answer within 0.05 s"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/"])
async def test_a_receiver_that_is_not_there_is_an_attempt_that_failed(url: str) -> None:
    async with simulator("ka:org_a", attempts=1) as sellfern:
        sellfern.endpoints.create("org_a", url, ("order.updated",))
        (delivery,) = await sellfern.deliver()
        assert delivery.status == "failed"
        assert delivery.attempts[0].error


async def test_an_event_goes_to_those_of_its_organization_who_want_it(
    sellfern: Sellfern, receiver: Sink
) -> None:
    mine = subscribe(sellfern, receiver)
    subscribe(sellfern, receiver, "org_b")
    sellfern.endpoints.create("org_a", receiver.url + "/2", ("order.created",))
    sellfern.endpoints.create("org_a", receiver.url + "/3", ("order.updated",), enabled=False)
    deliveries = await sellfern.deliver("order.updated", organization="org_a")
    assert [each.endpoint_id for each in deliveries] == [mine]
    assert [each.path for each in receiver.received] == ["/hooks"]


async def test_the_next_attempt_is_told_until_it_is_made(sellfern: Sellfern) -> None:
    async with sink(503) as receiver:
        subscribe(sellfern, receiver)
        _, (delivery,) = await sellfern.publish("order.updated", "org_a")
        await receiver.has(1)
        receiver.gate.clear()
        async with asyncio.timeout(10):
            while delivery.shown()["next_attempt_at"] is None:
                await asyncio.sleep(0.001)
        await receiver.has(2)
        shown = delivery.shown()
        assert (shown["next_attempt_at"], shown["status"]) == (None, "pending")


@pytest.mark.parametrize("end", ["DELETE", "PATCH"])
async def test_an_endpoint_that_is_removed_or_disabled_gets_nothing_any_more(
    api: Api, end: str
) -> None:
    async with sink(503) as receiver:
        endpoint = subscribe(api.sellfern, receiver)
        receiver.gate.clear()
        _, (delivery,) = await api.sellfern.publish("order.updated", "org_a")
        await receiver.has(1)
        await api.ask(end, f"/webhooks/{endpoint}", {"enabled": False})
        receiver.gate.set()
        await api.sellfern.settled()
        assert (delivery.status, len(receiver.received)) == ("abandoned", 1)


async def test_an_attempt_goes_to_the_url_of_its_time(api: Api) -> None:
    async with sink(503) as first, sink() as second:
        endpoint = subscribe(api.sellfern, first)
        first.gate.clear()
        _, (delivery,) = await api.sellfern.publish("order.updated", "org_a")
        await first.has(1)
        await api.ask("PATCH", f"/webhooks/{endpoint}", {"url": second.url})
        first.gate.set()
        await api.sellfern.settled()
        assert delivery.status == "delivered"
        assert (len(first.received), len(second.received)) == (1, 1)


async def test_no_more_are_under_way_or_pending_than_allowed(receiver: Sink) -> None:
    async with simulator("ka:org_a", concurrency=3, most_pending=5) as sellfern:
        subscribe(sellfern, receiver)
        receiver.gate.clear()
        asked = [asyncio.create_task(sellfern.deliver()) for _ in range(20)]
        await receiver.has(3)
        assert len(sellfern.deliveries.pending) == 5
        receiver.gate.set()
        await asyncio.gather(*asked)
        assert (receiver.most, len(receiver.received)) == (3, 20)


async def test_what_is_pending_at_the_end_is_abandoned(receiver: Sink) -> None:
    """What waits for its turn is, too, and what comes too late; nothing goes wrong unheard."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
    async with simulator("ka:org_a", most_pending=2) as sellfern:
        subscribe(sellfern, receiver)
        receiver.gate.clear()
        asked = [asyncio.create_task(sellfern.deliver()) for _ in range(4)]
        await receiver.has(2)
    ended = [*await asyncio.gather(*asked), await sellfern.deliver()]
    assert {each.status for (each,) in ended} == {"abandoned"}
    assert (sellfern.deliveries.pending, len(receiver.received)) == ([], 2)
    await asyncio.sleep(0)
    gc.collect()
    assert failures == []


async def test_a_test_under_way_at_the_end_is_answered(
    session: ClientSession, receiver: Sink
) -> None:
    async with asyncio.timeout(5):
        async with simulator("ka:org_a") as sellfern:
            endpoint = subscribe(sellfern, receiver)
            receiver.gate.clear()
            path = f"/webhooks/{endpoint}/test"
            asked = asyncio.create_task(Api(session, sellfern).ask("POST", path))
            await receiver.has(1)
        assert (await asked).data["status"] == "abandoned"


async def test_duplicates_are_the_same_bytes_once_more(receiver: Sink) -> None:
    async with simulator("ka:org_a", duplicates=1.0, disorder_seconds=0.01) as sellfern:
        subscribe(sellfern, receiver)
        first, second = await sellfern.deliver()
        assert (first.kind, second.kind) == ("event", "duplicate")
        one, other = receiver.received
        assert one.body == other.body


async def test_duplicates_follow_later(receiver: Sink) -> None:
    async with simulator("ka:org_a", duplicates=1.0, disorder_seconds=3600.0) as sellfern:
        subscribe(sellfern, receiver)
        for _ in range(5):
            _, (event, _duplicate) = await sellfern.publish("order.updated")
            await event.ended.wait()
        assert [each.kind for each in sellfern.deliveries.pending] == ["duplicate"] * 5
        assert len(receiver.received) == 5


async def test_a_forged_copy_is_sent_once_beside_the_event(receiver: Sink) -> None:
    receiver.statuses = [401, 401]
    async with simulator("ka:org_a", bad_signatures=1.0, attempts=1) as sellfern:
        endpoint = subscribe(sellfern, receiver)
        await sellfern.deliver()
        signed = {each.event.id: each.is_signed_with(SECRET) for each in receiver.received}
        assert sorted(signed.values()) == [False, True]
        (forged,) = [each for each in signed if each.startswith("evt_forged_")]
        assert signed[forged] is False
        assert {each.kind for each in sellfern.deliveries.to(endpoint)} == {"event"}


async def test_a_receiver_that_accepts_a_forgery_is_told_on(receiver: Sink) -> None:
    with captured_log() as log:
        async with simulator("ka:org_a", bad_signatures=1.0) as sellfern:
            subscribe(sellfern, receiver)
            _, forged = await sellfern.deliver()
    (line,) = [line for line in log.lines if line["event"] == "forgery_accepted"]
    assert line["event_id"] == forged.event.id


async def test_disorder_lets_later_events_overtake(receiver: Sink) -> None:
    async with simulator("ka:org_a", disorder=0.5, disorder_seconds=0.2, seed=1) as sellfern:
        subscribe(sellfern, receiver)
        for _ in range(20):
            await sellfern.publish("order.updated")
        await sellfern.settled()
        sent = [each.event.id for each in reversed(list(sellfern.deliveries))]
        came = [each.event.id for each in receiver.received]
        assert sorted(came) == sorted(sent)
        assert came != sent


async def test_a_test_delivery_is_made_at_once_and_its_outcome_is_the_answer(
    api: Api, receiver: Sink
) -> None:
    receiver.statuses = [503]
    endpoint = subscribe(api.sellfern, receiver, enabled=False)
    path = f"/webhooks/{endpoint}"
    failed = (await api.ask("POST", f"{path}/test", idempotency="t1")).data
    assert (failed["status"], failed["response_status"], failed["attempts"]) == ("failed", 503, 1)
    replayed = (await api.ask("POST", f"{path}/test", idempotency="t1")).data
    assert replayed == failed
    passed = (await api.ask("POST", f"{path}/test", idempotency="t2")).data
    assert (passed["status"], passed["event_id"]) == ("delivered", receiver.received[1].event.id)
    assert json.loads(bytes(receiver.received[1].event.data))["test"] is True
    listed = (await api.ask("GET", f"{path}/deliveries")).data
    assert listed == [passed, failed]


async def test_an_endpoints_deliveries_are_listed_the_newest_first(
    api: Api, receiver: Sink
) -> None:
    endpoint = subscribe(api.sellfern, receiver)
    sent = [(await api.sellfern.deliver(organization="org_a"))[0].event.id for _ in range(5)]
    path = f"/webhooks/{endpoint}/deliveries"
    listed = (await api.ask("GET", path)).data
    assert [each["event_id"] for each in listed] == sent[::-1]
    assert (await api.ask("GET", f"{path}?limit=2")).data == listed[:2]
    assert {each["status"] for each in listed} == {"delivered"}


@pytest.mark.parametrize(
    "limit", ["0", "101", "x", "", "1.5", "-1", "9" * 5000, "000000050999", "\u0663"]
)
async def test_a_limit_out_of_range_is_a_validation_error(api: Api, limit: str) -> None:
    path = f"/webhooks/{await api.created()}/deliveries?limit={limit}"
    assert (await api.ask("GET", path)).error == (400, "validation_error")


# Traffic and control


async def test_events_happen_at_a_rate_until_there_are_enough(receiver: Sink) -> None:
    async with simulator("ka:org_a", "kb:org_b", rate=500.0, events=30) as sellfern:
        assert not await sellfern.happen()  # nobody wants to know
        for organization in ("org_a", "org_b"):
            subscribe(sellfern, receiver, organization, events=("order.updated", "ticket.created"))
        async with asyncio.timeout(10):
            await sellfern.complete.wait()
            await sellfern.settled()
        assert not await sellfern.happen()
        assert len({each.event.id for each in receiver.received}) == sellfern.events == 30
        assert {each.event.type for each in receiver.received} == {
            "order.updated",
            "ticket.created",
        }
        assert {each.event.organization_id for each in receiver.received} == {"org_a", "org_b"}


async def test_knobs_are_turned_while_it_runs(api: Api, receiver: Sink) -> None:
    subscribe(api.sellfern, receiver)
    knobs = (await api.control("GET", "knobs")).data
    assert set(knobs) == {"rate", "duplicates", "disorder", "bad_signatures", "latency"}
    turned = await api.control("PATCH", "knobs", {"rate": 1000, "duplicates": 0.5})
    assert turned.data == {**knobs, "rate": 1000, "duplicates": 0.5}
    await receiver.has(5)
    await api.control("PATCH", "knobs", {"rate": 0})
    for wrong in (b"", b'{"rate":-1}', b'{"speed":1}', b'{"duplicates":2}'):
        assert (await api.control("PATCH", "knobs", wrong)).error == (400, "validation_error")


async def test_an_event_is_sent_over_http(api: Api, receiver: Sink) -> None:
    subscribe(api.sellfern, receiver)
    wish = {"type": "order.updated", "organization": "org_a", "data": {"order_id": "1"}}
    sent = (await api.control("POST", "events", wish)).data
    assert sent["event"]["data"] == {"order_id": "1"}
    assert [each["status"] for each in sent["deliveries"]] == ["delivered"]
    assert receiver.received[0].event.id == sent["event"]["id"]
    receiver.gate.clear()
    sent = (await api.control("POST", "events", {**wish, "wait": False})).data
    assert [each["status"] for each in sent["deliveries"]] == ["pending"]
    wrong: tuple[dict[str, object], ...] = ({"type": "order.archived"}, {"color": "red"}, {})
    for each in wrong:
        assert (await api.control("POST", "events", each)).error == (400, "validation_error")


async def test_what_has_come_to_pass_is_told(api: Api, receiver: Sink) -> None:
    endpoint = subscribe(api.sellfern, receiver)
    await api.sellfern.deliver(organization="org_a")
    counts = (await api.control("GET", "counts")).data
    assert counts == {"events": 1, "pending": 0, "event_delivered": 1}
    (known,) = (await api.control("GET", "endpoints")).data
    assert (known["id"], known["organization_id"], known["secret"]) == (endpoint, "org_a", SECRET)
    head = b"POST /webhooks HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: \xff\r\n\r\n"
    await ask(int(api.sellfern.url.rpartition(":")[2]), head)
    (seen,) = (await api.control("GET", "requests")).data
    assert seen == {
        "method": "POST",
        "path": "/webhooks",
        "idempotency_key": "\\udcff",
        "outcome": "401",
    }


async def test_a_page_of_another_site_may_not_press_the_button(api: Api, receiver: Sink) -> None:
    subscribe(api.sellfern, receiver)
    foreign = {"Origin": "https://evil.example"}
    form = b"type=order.updated&organization=org_a"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = await api.ask("POST", "/send", form, headers={**kind, **foreign})
    assert refused.status == 403
    order = await api.ask("POST", "/_control/faults", {"kind": "cut"}, headers=foreign)
    assert order.error == (403, "forbidden")
    assert (api.sellfern.events, api.sellfern.faults.left) == (0, [])
    own = {"Origin": api.sellfern.url}
    assert (await api.ask("POST", "/send", form, headers={**kind, **own})).status == 303
    assert api.sellfern.events == 1


async def test_the_page_sends_an_event_and_shows_it(api: Api, receiver: Sink) -> None:
    subscribe(api.sellfern, receiver)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    sent = await api.ask("POST", "/send", b"organization=org_a", key=None, headers=kind)
    assert (sent.status, sent.headers["Location"]) == (303, "/")
    await api.sellfern.settled()
    page = await api.ask("GET", "/", key=None)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src" not in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert receiver.received[0].event.id in page.body.decode()
    wrong = await api.ask("POST", "/send", b"type=order.archived", key=None, headers=kind)
    assert wrong.status == 400


async def test_the_openapi_document_names_the_server_and_needs_no_key(api: Api) -> None:
    reply = await api.ask("GET", "/openapi.json", key=None)
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json["servers"] == [{"url": api.sellfern.url}]


async def test_a_port_that_is_taken_and_a_host_that_is_none_are_named(sellfern: Sellfern) -> None:
    port = int(sellfern.url.rpartition(":")[2])
    for option, host in (("--port", "127.0.0.1"), ("--host", "203.0.113.7"), ("--host", "a" * 99)):
        with pytest.raises(SettingsError) as refused:
            async with simulator("ka:org_a", host=host, port=port):
                raise AssertionError("it is open")
        assert refused.value.setting == option


async def test_it_listens_on_ipv6_too(session: ClientSession) -> None:
    async with simulator("ka:org_a", host="::1") as sellfern:
        assert sellfern.url.startswith("http://[::1]:")
        assert await Api(session, sellfern).list() == []


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_can_manage_and_send(sellfern: Sellfern, receiver: Sink) -> None:
    async def curl(*arguments: str) -> Any:
        ended = await run_command(
            "curl", "-sS", "-m", "10", *arguments, environ={"PATH": "/usr/bin"}
        )
        assert ended.code == 0, ended.stderr
        return json.loads(ended.stdout) if ended.stdout else None

    webhooks = f"{sellfern.url}/webhooks"
    key = ("-H", "x-api-key: ka")
    body = json.dumps({**ENDPOINT, "url": receiver.url})
    asked = (*key, "-H", "Idempotency-Key: k1", "-d", body, webhooks)
    created = await curl(*asked)
    assert await curl(*asked) == created
    path = f"{webhooks}/{created['data']['id']}"
    changed = await curl(*key, "-X", "PATCH", "-d", '{"events":["order.created"]}', path)
    assert changed["data"]["events"] == ["order.created"]
    sent = await curl(
        "-d", '{"type":"order.created","organization":"org_a"}', f"{sellfern.url}/_control/events"
    )
    assert sent["data"]["deliveries"][0]["status"] == "delivered"
    assert receiver.received[0].is_signed_with(created["data"]["secret"])
    form = ("-d", "type=order.created", "-d", "organization=org_a", "-o", "/dev/null")
    await curl(*form, f"{sellfern.url}/send")
    assert sellfern.events == 2
    tested = await curl(*key, "-X", "POST", f"{path}/test")
    assert tested["data"]["status"] == "delivered"
    assert len((await curl(*key, f"{path}/deliveries"))["data"]) == 3
    removed = await curl(*key, "-X", "DELETE", path)
    assert removed["data"]["deleted"] is True
    assert (await curl("-H", "x-api-key: kb", webhooks))["data"] == []
