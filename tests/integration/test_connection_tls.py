"""Redis behind TLS: whom we trust, what we show, and what is said when it doesn't fit."""

import socket
from collections.abc import Iterator

import pytest
from redis import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.connection import REDIS_ERRORS, open_redis, translate
from shared.redis_url import RedisUrl
from tests.integration.certificates import Certificates, make_certificates
from tests.integration.sentinels import SERVICE, EmbeddedSentinel
from tests.tools import tool

PASSWORD = "of_the_redis"
SENTINEL_PASSWORD = "of the sentinel"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
        assert await code(url) == "redis_unreachable"
        assert await code(url + shown[strange]) == "redis_unreachable"
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
        assert await code(f"rediss+sentinel://{place}") == "redis_no_primary"
        assert (
            await code(f"redis+sentinel://{place.split('?', maxsplit=1)[0]}") == "redis_no_primary"
        )
        assert await code(f"rediss+sentinel://{place}{secret}") == "OK"
        assert await code(f"rediss+sentinel://app:wrong@{place}{secret}") == "redis_refused_login"
