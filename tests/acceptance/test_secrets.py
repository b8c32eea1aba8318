"""Facts about secrets in both programs: changed while they run, and never shown."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess, delivery, ingress
from tests.acceptance.process import Program, environment, run, until
from tests.acceptance.worker_process import running
from tests.ingress_support import Reply, ask, signed
from tests.integration.workplace import body

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = 2.0
"""Seconds within which a change of the endpoints file is in force."""

PASSWORD = "of-redis-itself"
FIRST = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["whsec_a"]
"""


@dataclass
class Place:
    """Both programs, which log all that they can, and the files that hold their secrets."""

    folder: Path
    redis: Redis
    receiver: IngressProcess
    worker: Program
    environ: dict[str, str]

    @property
    def endpoints(self) -> Path:
        """The endpoints file."""
        return self.folder / "endpoints.toml"

    async def status(self, secret: str, endpoint: str = "acme") -> int:
        """The answer to a delivery that is signed so."""
        return (await self.receiver.deliver(body(), endpoint=endpoint, secret=secret)).status

    async def turns(self, secret: str, status: int, endpoint: str = "acme") -> None:
        """Fail unless deliveries that are signed so are answered so within two seconds."""

        async def turned() -> bool:
            return await self.status(secret, endpoint) == status

        await until(turned, SOON)

    async def goes_by(self, text: str, secret: str) -> None:
        """Write the endpoints file and wait until the ingress takes its secret."""
        self.endpoints.write_text(text)
        await self.turns(secret, 202)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "endpoints.toml").write_text(FIRST)
    with EmbeddedRedis(appendfsync="always", arguments={"requirepass": PASSWORD}) as server:
        url = server.url.replace("redis://", f"redis://:{PASSWORD}@")
        environ = environment(url, folder, LOG_LEVEL="debug")
        async with (
            Redis.from_url(url) as redis,
            ingress(environ) as receiver,
            running(environ) as (worker,),
        ):
            yield Place(folder, redis, receiver, worker, environ)


async def test_a_broken_endpoints_file_is_refused_and_leaves_the_old_secrets_in_force(
    place: Place,
) -> None:
    await place.goes_by(FIRST, "whsec_a")
    bolt = '[[endpoint]]\nid = "bolt"\norganization_id = "org_b"\nsecrets = "whsec_misplaced"\n'
    place.endpoints.write_text(FIRST + bolt)
    for program in (place.receiver, place.worker):
        (line,) = await program.logged("endpoints_refused", level="error")
        assert "endpoints.toml) line 9: expected secrets to be a list of secrets" in line["error"]
        assert line["kept"] == 1
        assert await _reloads(program, "refused") == 1
        # What was valid is in force: to be unready would take every copy out of service at once.
        assert (await program.admin("/readyz")).status == 200
    assert await place.status("whsec_a") == 202
    assert await place.status("whsec_misplaced") == 401
    place.endpoints.write_text(FIRST.replace("whsec_a", "whsec_mended"))
    for program in (place.receiver, place.worker):
        await program.logged("endpoints_reloaded")
    assert await place.status("whsec_mended") == 202


async def _reloads(program: Program, outcome: str) -> float:
    name = f'sellfern_endpoints_reloads_total{{outcome="{outcome}"}} '
    lines = (await program.admin("/metrics")).body.decode().splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_a_removed_secret_stops_working_within_two_seconds(place: Place) -> None:
    await place.goes_by(FIRST, "whsec_a")
    place.endpoints.write_text(FIRST.replace("whsec_a", "whsec_next"))
    await place.turns("whsec_a", 401)
    assert await place.status("whsec_next") == 202


async def test_a_new_endpoint_works_within_two_seconds(place: Place) -> None:
    assert await place.status("whsec_b", endpoint="bolt") == 404
    bolt = '[[endpoint]]\nid = "bolt"\norganization_id = "org_b"\nsecrets = ["whsec_b"]\n'
    before = place.endpoints.read_text()
    place.endpoints.write_text(before + bolt)
    await place.turns("whsec_b", 202, endpoint="bolt")
    assert await place.status("whsec_b") == 401


async def test_an_old_secret_works_until_its_until_and_not_after(place: Place) -> None:
    until_then = datetime.now(UTC) + timedelta(seconds=3)
    old = f'{{ value = "whsec_old", until = {until_then.isoformat()} }}'
    await place.goes_by(FIRST.replace('"whsec_a"', f'"whsec_new", {old}'), "whsec_new")
    answers: list[tuple[float, int, float]] = []

    async def refused() -> bool:
        sent = time.time()
        answers.append((sent, await place.status("whsec_old"), time.time()))
        return answers[-1][1] == 401

    await until(refused)
    end = until_then.timestamp()
    assert {status for _, status, answered in answers if answered < end} == {202}
    assert {status for sent, status, _ in answers if sent >= end} <= {401}
    assert answers[-1][2] >= end
    assert await place.status("whsec_new") == 202


async def test_a_secret_file_is_swapped_behind_a_link_as_kubernetes_does(place: Place) -> None:
    mount = place.folder / "mount"
    mount.mkdir()
    _publish(mount, "..1", "whsec_first")
    (mount / "acme").symlink_to("..data/acme")
    await place.goes_by(FIRST.replace('"whsec_a"', '{ file = "mount/acme" }'), "whsec_first")
    _publish(mount, "..2", "whsec_second")
    await place.turns("whsec_second", 202)
    assert await place.status("whsec_first") == 401


async def test_a_worker_starts_and_goes_on_where_no_secret_is_mounted(place: Place) -> None:
    folder = place.folder / "worker"
    folder.mkdir()
    lines = FIRST.replace('"whsec_a"', '{ env = "ACME" }, { file = "/run/secrets/of-acme" }')
    (folder / "endpoints.toml").write_text(lines)
    environ = place.environ | {"ENDPOINTS_FILE": str(folder / "endpoints.toml")}
    async with running(environ) as (worker,):
        (folder / "endpoints.toml").write_text(lines + "weight = 2\n")
        await worker.logged("endpoints_reloaded")
    check = await run("ingress", "check", environ=environ)
    assert (check.code, "line 5" in check.stdout) == (2, True)


def _publish(mount: Path, version: str, secret: str) -> None:
    """Write a version beside the others, then let the link point to it in one step."""
    (mount / version).mkdir()
    (mount / version / "acme").write_text(secret + "\n")
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").rename(mount / "..data")


NEEDLE = "needle-in-a-body"
"""Stands in every body, in places that errors might quote."""


async def test_no_log_line_and_no_error_answer_holds_a_secret_or_a_body(place: Place) -> None:
    await place.goes_by(FIRST, "whsec_a")
    accepted = [
        body(data={"act": "count", "note": NEEDLE}),
        body("evt_twice", data={"act": "count", "note": NEEDLE}),
        body("evt_twice", data={"act": "count", "note": NEEDLE * 2}),
        body(data={"act": "fail", "times": 2, "then": "", "note": NEEDLE}),
        body(data={"act": {NEEDLE: NEEDLE}}),
        body(data={"act": "reject", "note": NEEDLE}),
        body(type="order.created", data={"kind": NEEDLE}),
        body(organization="org_b", data={"note": NEEDLE}),
        body(created_at="2020-01-01T00:00:00Z", data={"note": NEEDLE}),
        body(created_at=NEEDLE),
        body(data=[NEEDLE]),
        NEEDLE.encode() + b"\xff",
        f'{{"{NEEDLE}":'.encode(),
    ]
    replies = [await place.receiver.deliver(each) for each in accepted]
    assert [reply.status for reply in replies] == [202] * len(accepted)
    errors = await _errors(place)
    await until(lambda: _is_idle(place.redis))
    await place.worker.logged("event_dead", reason="organization_mismatch")
    check = await run("ingress", "check", environ=place.environ)
    assert (check.code, check.stderr) == (0, "")
    said = [place.receiver.text, place.worker.text, check.stdout]
    said += [f"{reply.headers} {reply.body!r}" for reply in replies + errors]
    assert place.receiver.events("delivery_accepted", level="debug")
    for text in said:
        for hidden in (NEEDLE, "whsec_", PASSWORD, signed(accepted[0])["X-Sellfern-Signature"]):
            assert hidden not in text


async def _errors(place: Place) -> list[Reply]:
    """Answers to what is not accepted, for one reason or another."""
    signed_body = body(data={"note": NEEDLE})
    replies = [
        await place.receiver.deliver(signed_body, secret="whsec_wrong"),
        await place.receiver.deliver(signed_body, endpoint="nowhere"),
        await place.receiver.deliver(NEEDLE.encode() * (1 << 17)),
    ]
    requests = (
        delivery(signed_body).replace(b"X-Sellfern-Signature: ", b"X-Sellfern-Signature: whsec_"),
        delivery(signed_body).replace(
            b"Content-Length", f"Content-Encoding: gzip, {NEEDLE}\r\nContent-Length".encode()
        ),
        f"{NEEDLE} whsec_a\r\n\r\n".encode(),
        f"POST /webhooks/acme HTTP/1.1\r\n{NEEDLE}\r\n\r\n".encode(),
    )
    replies += [await ask(place.receiver.port, each) for each in requests]
    assert [reply.status for reply in replies] == [401, 404, 413, 401, 415, 400, 400]
    return replies


async def _is_idle(redis: Redis) -> bool:
    return int(await redis.zcard(keys.ACCEPTED)) == 0
