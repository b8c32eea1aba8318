"""The admin site: alive, ready, metrics."""

import asyncio
import errno
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession

from shared.errors import Problem, SettingsError, Unavailable
from shared.program import admin
from shared.program.admin import Check, admin_site, cached
from shared.program.listening import Address
from tests.log_support import CapturedLog, captured_log

PASSWORD = "hunter2"
HERE = Address("INGRESS_ADMIN", ("127.0.0.1",), 0)


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    with captured_log() as captured:
        yield captured


async def nothing_wrong() -> list[Problem]:
    return []


@dataclass
class Answer:
    status: int
    content_type: str
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


async def asked(path: str, ready: Check = nothing_wrong, *, method: str = "GET") -> Answer:
    """One answer of an admin site."""
    async with (
        admin_site(HERE, ready) as port,
        ClientSession(f"http://127.0.0.1:{port}") as session,
        session.request(method, path) as response,
    ):
        return Answer(response.status, response.content_type, await response.text())


async def test_a_program_that_answers_is_alive() -> None:
    answer = await asked("/livez")
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.json == {"alive": True}


async def test_a_program_without_problems_is_ready() -> None:
    answer = await asked("/readyz")
    assert (answer.status, answer.json) == (200, {"ready": True, "problems": []})


async def test_a_program_with_problems_is_alive_but_not_ready() -> None:
    async def two_wrong() -> list[Problem]:
        return [Problem("draining", "it stops"), Problem("redis_timeout", "no answer")]

    answer = await asked("/readyz", two_wrong)
    assert answer.status == 503
    assert answer.json == {
        "ready": False,
        "problems": [
            {"code": "draining", "message": "it stops"},
            {"code": "redis_timeout", "message": "no answer"},
        ],
    }
    assert (await asked("/livez", two_wrong)).status == 200


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            Unavailable("redis_busy", "Redis is busy"),
            "redis_busy",
            "redis_busy: Redis is busy",
        ),
        (SettingsError("X", "a", "b"), "check_failed", "X: expected a, got b"),
        (
            RuntimeError(PASSWORD),
            "check_failed",
            "the check itself failed; the log says why",
        ),
    ],
)
async def test_a_check_that_fails_means_not_ready(
    log: CapturedLog, error: Exception, code: str, message: str
) -> None:
    async def fails() -> list[Problem]:
        raise error

    answer = await asked("/readyz", fails)
    assert answer.status == 503
    assert answer.json["problems"] == [{"code": code, "message": message}]
    unexpected = isinstance(error, RuntimeError)
    assert ("readiness_check_failed" in log.events) is unexpected


async def test_a_check_that_takes_too_long_means_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs() -> list[Problem]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(admin, "CHECK_SECONDS", 0.01)
    answer = await asked("/readyz", hangs)
    assert answer.status == 503
    assert answer.json["problems"] == [
        {"code": "check_timeout", "message": "the check took longer than 0.01 seconds"}
    ]


async def test_metrics_are_prometheus_text() -> None:
    answer = await asked("/metrics")
    assert (answer.status, answer.content_type) == (200, "text/plain")
    assert "# TYPE sellfern_build_info gauge" in answer.text


@pytest.mark.parametrize("path", ["/", "/webhooks/acme", "/livez/", "/metrics/../x"])
async def test_nothing_else_is_there(path: str) -> None:
    assert (await asked(path)).status == 404


async def test_nothing_can_be_changed_there() -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await asked(path, method="POST")).status == 405


async def test_port_0_is_one_that_the_log_tells(log: CapturedLog) -> None:
    async with admin_site(HERE, nothing_wrong) as port:
        assert port
    (line,) = log.lines
    assert (line["event"], line["host"], line["port"]) == ("admin_listening", "127.0.0.1", port)


async def test_the_port_is_free_again_after_the_block() -> None:
    async with admin_site(HERE, nothing_wrong) as port:
        pass
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


async def test_a_taken_port_is_the_fault_of_the_port() -> None:
    async with admin_site(HERE, nothing_wrong) as port:
        with pytest.raises(SettingsError) as caught:
            async with admin_site(Address("WORKER_ADMIN", HERE.hosts, port), nothing_wrong):
                pass
    assert str(caught.value) == (
        f"WORKER_ADMIN_PORT: expected a port free to listen on, got {port} (address already in use)"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b", "a" * 70])  # another's, and no names at all
async def test_a_host_that_is_not_this_one_is_the_fault_of_the_host(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        async with admin_site(Address("INGRESS_ADMIN", (host,), 0), nothing_wrong):
            pass
    assert str(caught.value) == (
        f"INGRESS_ADMIN_HOST: expected an address of this machine, got {host!r}"
    )


@dataclass
class Counting:
    """A check that counts, and may be held up or fail."""

    calls: int = 0
    failure: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> list[Problem]:
        self.calls += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return [Problem("call", str(self.calls))]


async def test_however_many_ask_at_once_the_check_runs_once() -> None:
    check = Counting()
    ask = cached(check, seconds=3600)
    asking = [asyncio.ensure_future(ask()) for _ in range(20)]
    while not check.calls:
        await asyncio.sleep(0)
    check.gate.set()
    assert await asyncio.gather(*asking) == [[Problem("call", "1")]] * 20
    assert await ask() == [Problem("call", "1")]
    assert check.calls == 1


async def test_what_was_found_is_good_for_its_time_only() -> None:
    check = Counting()
    check.gate.set()
    ask = cached(check, seconds=0.0)
    assert [await ask(), await ask()] == [[Problem("call", "1")], [Problem("call", "2")]]


async def test_a_failed_check_is_not_remembered() -> None:
    check = Counting(failure=Unavailable("redis_busy", "busy"))
    check.gate.set()
    ask = cached(check, seconds=3600)
    with pytest.raises(Unavailable):
        await ask()
    check.failure = None
    assert await ask() == [Problem("call", "2")]
