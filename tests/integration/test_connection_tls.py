"""Redis behind TLS: whom we trust, what we show, and what is said when it doesn't fit."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.errors import SettingsError
from shared.redis.connection import REDIS_ERRORS, connection_pool, open_redis, translate
from shared.redis.primary_pool import PrimaryConnection, PrimaryPool
from shared.redis.tls import certificates
from shared.settings.redis_url import RedisUrl, Tls
from tests.integration.certificates import Certificates, make_certificates, overwrite
from tests.integration.sentinels import SERVICE, EmbeddedSentinel
from tests.log_support import captured_log
from tests.ports import free_port
from tests.tools import tool

PASSWORD = "of_the_redis"
SENTINEL_PASSWORD = "of the sentinel"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("strange"), "DNS:another.example")


@pytest.fixture(scope="module")
def tls_server(own: Certificates) -> Iterator[tuple[EmbeddedRedis, int]]:
    """A server with a user, and its TLS port; the embedded one is built without TLS."""
    port = free_port()
    arguments = own.server_settings(port)
    with EmbeddedRedis(
        appendfsync=None, program=tool("redis-server"), arguments=arguments
    ) as server:
        with Redis(port=server.port) as admin:
            admin.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~*", "+@all")
        yield server, port


async def code(url: str) -> str:
    """What comes of a PING: OK, or the code of what went wrong."""
    async with open_redis(RedisUrl(url), socket_timeout=2) as redis:
        try:
            await redis.ping()
        except REDIS_ERRORS as exc:
            return translate(exc).code
    return "OK"


async def settled_code(url: str) -> str:
    """The same; where Redis hangs up, its reason may be lost behind the reset connection."""
    async with asyncio.timeout(20):
        while (found := await code(url)) == "redis_unreachable":
            pass
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_trusted_certificate_for_this_host(
    tls_server: tuple[EmbeddedRedis, int], own: Certificates, host: str
) -> None:
    _, port = tls_server
    assert await code(f"rediss://{host}:{port}/0?ssl_ca_certs={own.authority}") == "OK"
    assert (
        await code(f"rediss://app:{PASSWORD}@{host}:{port}/0?ssl_ca_certs={own.authority}") == "OK"
    )


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    tls_server: tuple[EmbeddedRedis, int], strange: Certificates
) -> None:
    _, port = tls_server
    for trust in ("", f"?ssl_ca_certs={strange.authority}", "?ssl_check_hostname=false"):
        assert await code(f"rediss://127.0.0.1:{port}/0{trust}") == "redis_untrusted"


async def test_a_certificate_for_another_host_is_not_trusted_unless_the_url_says_so(
    strange: Certificates,
) -> None:
    port = free_port()
    arguments = strange.server_settings(port)
    with EmbeddedRedis(appendfsync=None, program=tool("redis-server"), arguments=arguments):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={strange.authority}"
        assert await code(url) == "redis_untrusted"
        assert await code(f"{url}&ssl_check_hostname=false") == "OK"


async def test_a_redis_that_asks_for_a_certificate_is_shown_ours(
    own: Certificates, strange: Certificates
) -> None:
    port = free_port()
    arguments = own.server_settings(port) | {"tls-auth-clients": "yes"}
    with EmbeddedRedis(appendfsync=None, program=tool("redis-server"), arguments=arguments):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={own.authority}"
        shown = {
            each: f"&ssl_certfile={each.certificate}&ssl_keyfile={each.key}"
            for each in (own, strange)
        }
        assert await settled_code(url) == "redis_refused_certificate"
        assert await settled_code(url + shown[strange]) == "redis_refused_certificate"
        assert await code(url + shown[own]) == "OK"


async def test_tls_is_spoken_with_sentinels_and_with_the_primary_that_they_name(
    tls_server: tuple[EmbeddedRedis, int], own: Certificates
) -> None:
    _, port = tls_server
    sentinel_port = free_port()
    lines = [f"{name} {value}" for name, value in own.server_settings(sentinel_port).items()]
    lines += [
        f'requirepass "{SENTINEL_PASSWORD}"',
        f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1",
    ]
    lines += ["sentinel auth-user mymaster app", f"sentinel auth-pass mymaster {PASSWORD}"]
    program = tool("redis-server")
    with EmbeddedSentinel("\n".join(lines) + "\n", program=program):
        place = f"127.0.0.1:{sentinel_port}/{SERVICE}/0?ssl_ca_certs={own.authority}"
        secret = f"&sentinel_password={SENTINEL_PASSWORD.replace(' ', '%20')}"
        assert await code(f"rediss+sentinel://{place}") == "redis_refused_login"
        assert (
            await code(f"redis+sentinel://{place.split('?', maxsplit=1)[0]}") == "redis_no_primary"
        )
        assert await code(f"rediss+sentinel://{place}{secret}") == "OK"
        assert await code(f"rediss+sentinel://app:wrong@{place}{secret}") == "redis_refused_login"


async def answer(redis: AsyncRedis) -> str:
    """What comes of a PING over a new connection: OK, or the code of what went wrong."""
    await redis.connection_pool.disconnect()
    try:
        await redis.ping()
    except REDIS_ERRORS as exc:
        return translate(exc).code
    return "OK"


@pytest.fixture
def rotated(tmp_path: Path) -> Certificates:
    """Certificates of one test's own, which it may overwrite."""
    return make_certificates(tmp_path)


@contextmanager
def asking(certificates: Certificates) -> Iterator[tuple[EmbeddedRedis, RedisUrl]]:
    """A server that has these certificates and asks for ours, and how it is reached."""
    port = free_port()
    arguments = certificates.server_settings(port) | {"tls-auth-clients": "yes"}
    url = RedisUrl(f"rediss://127.0.0.1:{port}/0?{certificates.client_options}")
    program = tool("redis-server")
    with EmbeddedRedis(appendfsync=None, program=program, arguments=arguments) as server:
        yield server, url


async def test_a_new_connection_goes_by_the_certificates_as_they_are_now(
    rotated: Certificates, own: Certificates
) -> None:
    with asking(rotated) as (server, url):
        async with open_redis(url, socket_timeout=2) as redis:
            assert await answer(redis) == "OK"
            overwrite(rotated, own)  # the authority too: nothing of the old ones fits any more
            server.restart()
            with captured_log() as log:
                assert [await answer(redis), await answer(redis)] == ["OK", "OK"]
            assert log.events == ["certificates_reread"]


async def test_certificates_that_cannot_be_read_leave_the_last_good_ones_in_use(
    rotated: Certificates, strange: Certificates
) -> None:
    with asking(rotated) as (_, url):
        async with open_redis(url, socket_timeout=2) as redis, open_redis(url) as arqs:
            key = rotated.key.read_bytes()
            with captured_log() as log:
                rotated.key.write_bytes(strange.key.read_bytes())  # of another certificate
                answers = [await answer(redis), await answer(arqs), await answer(redis)]
                rotated.key.write_bytes(key[: len(key) // 2])
                answers += [await answer(redis), await answer(redis)]
                rotated.key.unlink()
                answers += [await answer(redis), await answer(redis)]
                rotated.key.write_bytes(key)
                answers += [await answer(redis), await answer(redis)]
            assert answers == ["OK"] * 9
            refused = [line for line in log.lines if line["event"] == "certificates_refused"]
            assert [line["event"] for line in log.lines] == ["certificates_refused"] * 3 + [
                "certificates_reread"
            ]
            for line, reason in zip(
                refused, ("KEY_VALUES_MISMATCH", "PEM", "No such file"), strict=True
            ):
                assert line["error"].startswith("REDIS_URL: expected ssl_certfile and ssl_keyfile")
                assert reason in line["error"]


async def test_sentinels_are_met_with_the_certificates_as_they_are_now(
    rotated: Certificates, own: Certificates
) -> None:
    port, sentinel_port = free_port(), free_port()
    lines = [f"{name} {value}" for name, value in rotated.server_settings(sentinel_port).items()]
    lines += [f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1"]
    program = tool("redis-server")
    place = f"127.0.0.1:{sentinel_port}/{SERVICE}/0?{rotated.client_options}"
    with (
        EmbeddedRedis(
            appendfsync=None, program=program, arguments=rotated.server_settings(port)
        ) as server,
        EmbeddedSentinel("\n".join(lines) + "\n", program=program) as sentinel,
    ):
        async with open_redis(RedisUrl(f"rediss+sentinel://{place}"), socket_timeout=2) as redis:
            assert await answer(redis) == "OK"
            overwrite(rotated, own)
            server.restart()
            sentinel.restart()
            async with asyncio.timeout(20):
                while (found := await answer(redis)) == "redis_no_primary":
                    pass  # the Sentinel has yet to see the primary
            assert found == "OK"


async def test_nobody_waits_for_the_goodbye_of_a_primary_that_is_frozen(
    own: Certificates, tls_server: tuple[EmbeddedRedis, int]
) -> None:
    """It is to be left for the new one, and says nothing any more."""
    _, new = tls_server
    port = free_port()
    arguments = own.server_settings(port)

    class Pool(PrimaryPool):
        found = "127.0.0.1", port

        async def _find(self) -> tuple[str, int]:
            return self.found

    with EmbeddedRedis(
        appendfsync=None, program=tool("redis-server"), arguments=arguments
    ) as server:
        pool = Pool(
            tls=certificates(Tls(ca_certs=str(own.authority))),
            connection_class=PrimaryConnection,
            socket_timeout=5,
            socket_connect_timeout=0.5,
        )
        for each in [await pool.get_connection() for _ in range(3)]:
            await pool.release(each)
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={own.authority}"
        async with open_redis(RedisUrl(url)) as redis:
            await redis.ping()
            server.freeze()
        pool.found = "127.0.0.1", new
        assert await pool.primary() == pool.found
        await pool.aclose()


def test_the_key_of_a_certificate_may_not_ask_for_a_pass_phrase(
    own: Certificates, tmp_path: Path
) -> None:
    """OpenSSL would ask on the terminal, and wait."""
    key = tmp_path / "key.pem"
    words = ("pkey", "-in", own.key, "-aes256", "-passout", "pass:secret", "-out", key)
    subprocess.run([tool("openssl"), *map(str, words)], check=True, capture_output=True)
    url = RedisUrl(f"rediss://h?ssl_certfile={own.certificate}&ssl_keyfile={key}")
    with pytest.raises(SettingsError, match="a certificate and its key in PEM form"):
        connection_pool(url, connections=1)


def test_certificates_are_read_anew_only_when_they_have_changed_behind_a_link_too(
    own: Certificates, strange: Certificates, tmp_path: Path
) -> None:
    """Kubernetes swaps the link to a folder."""
    current, coming = tmp_path / "current", tmp_path / "coming"
    current.symlink_to(own.authority.parent)
    for tls in (Tls(ca_certs=str(current / "ca.pem")), Tls(ca_path=str(current))):
        found = certificates(tls)
        before = found.context()
        assert certificates(tls).context() is before
        coming.symlink_to(strange.authority.parent)
        coming.replace(current)
        after = found.context()
        assert after is not before
        assert found.context() is after
        coming.symlink_to(own.authority.parent)
        coming.replace(current)
    system = certificates(Tls())
    assert system.context() is system.context()
