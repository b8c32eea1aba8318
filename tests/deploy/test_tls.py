"""Both programs and their commands over a Redis that speaks TLS."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run
from tests.acceptance.worker_process import running
from tests.deploy.traffic import handled, settled
from tests.integration.certificates import Certificates, make_certificates, overwrite
from tests.integration.workplace import body
from tests.ports import free_port
from tests.tools import tool


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@dataclass(frozen=True, slots=True)
class TlsServer:
    """A Redis that speaks TLS, and where it does."""

    redis: EmbeddedRedis
    url: str


@pytest.fixture
def server(certificates: Certificates) -> Iterator[TlsServer]:
    port = free_port()
    arguments = certificates.server_settings(port)
    with EmbeddedRedis(program=tool("redis-server"), arguments=arguments) as redis:
        yield TlsServer(redis, f"rediss://127.0.0.1:{port}/0")


@pytest.fixture
def url(server: TlsServer) -> str:
    return server.url


async def test_both_programs_and_their_commands_work_over_tls(
    url: str, certificates: Certificates, tmp_path: Path
) -> None:
    environ = environment(f"{url}?ssl_ca_certs={certificates.authority}", tmp_path)
    async with ingress(environ) as receiver, running(environ, 2):
        bodies = [body(f"evt_{n}", data={"act": "count"}) for n in range(20)]
        replies = await asyncio.gather(*map(receiver.deliver, bodies))
        assert {reply.status for reply in replies} == {202}
        await settled(environ)
    assert await handled(environ) == {f"evt_{n}": 1 for n in range(20)}


async def test_both_programs_go_on_when_certificates_are_rotated_as_check_says_they_can(
    server: TlsServer, certificates: Certificates, tmp_path: Path
) -> None:
    environ = environment(f"{server.url}?{certificates.client_options}", tmp_path)
    others = tmp_path / "others"
    others.mkdir()
    async with ingress(environ) as receiver, running(environ):
        assert (await receiver.deliver(body("evt_0", data={"act": "count"}))).status == 202
        await settled(environ)
        overwrite(certificates, make_certificates(others))
        server.redis.restart()
        assert (await run("ingress", "check", environ=environ)).code == 0
        assert (await receiver.deliver(body("evt_1", data={"act": "count"}))).status == 202
        await settled(environ)
    assert await handled(environ) == {"evt_0": 1, "evt_1": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "the certificate of Redis is not trusted, or is for another host"),
        ("?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs to be a file of certificates in PEM form"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_one_line(
    url: str, tmp_path: Path, options: str, message: str
) -> None:
    environ = environment(url + options, tmp_path)
    commands = [("ingress",), ("worker", "status"), ("ingress", "check")]
    for module, *arguments in commands:
        ended = await run(module, *arguments, environ=environ)
        assert ended.code != 0
        said = ended.stdout + ended.stderr
        assert message in said, said
        assert "Traceback" not in said
