"""Both programs and their commands over a Redis that speaks TLS."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import ingress
from tests.acceptance.process import environment, run, until
from tests.acceptance.worker_process import running
from tests.deploy.traffic import handled, settled, traffic
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


async def test_nobody_is_refused_while_all_certificates_are_renewed(
    server: TlsServer, certificates: Certificates, tmp_path: Path
) -> None:
    """Of the authority, of Redis and of ours, as the page says: both authorities for a time."""
    environ = environment(f"{server.url}?{certificates.client_options}", tmp_path)
    (tmp_path / "others").mkdir()
    others = make_certificates(tmp_path / "others")
    both = certificates.authority.read_bytes() + others.authority.read_bytes()
    async with (
        ingress(environ) as receiver,
        running(environ) as (worker,),
        Redis(port=server.redis.port) as admin,
    ):
        async with traffic(receiver) as under_way:
            await under_way.accepts(20)
            certificates.authority.write_bytes(both)
            await read_again(admin, certificates)
            await under_way.accepts(20)
            overwrite(certificates, replace(others, authority=certificates.authority))
            await read_again(admin, certificates)
            await under_way.accepts(20)
            certificates.authority.write_bytes(others.authority.read_bytes())
            await read_again(admin, certificates)
            assert (await run("ingress", "check", environ=environ)).code == 0
        assert under_way.refused == set()
        # And everybody comes back by the new ones.
        await admin.client_kill_filter(_type="normal", skipme=True)

        async def is_accepted() -> bool:
            return (await receiver.deliver(body("evt_new", data={"act": "count"}))).status == 202

        await until(is_accepted)
        await settled(environ)
        for program in (receiver, worker):
            await program.logged("certificates_reread")
    found = await handled(environ)
    assert found.keys() >= {*under_way.accepted, "evt_new"}
    assert set(found.values()) == {1}


async def read_again(admin: Redis, certificates: Certificates) -> None:
    """Have Redis take the certificates that are in the files by now."""
    changed = {
        name: path
        for name, path in certificates.server_settings(0).items()
        if name.endswith("-file")
    }
    words = (word for each in changed.items() for word in each)
    await admin.execute_command("CONFIG", "SET", *words)


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
