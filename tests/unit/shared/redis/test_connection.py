"""Opening Redis, and how its errors read in this project's words."""

import asyncio
import builtins
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import exceptions
from redis.asyncio import client, connection
from redis.asyncio.sentinel import MasterNotFoundError

from shared.errors import SettingsError, Unavailable
from shared.redis.connection import REDIS_ERRORS, connection_pool, open_redis, translate
from shared.settings.redis_url import RedisUrl

PASSWORD = "hunter2"
UNUSED = (
    exceptions.ChildDeadlockedError,  # of locks after a fork
    exceptions.RedisClusterException,  # of clusters, as is the next
    exceptions.SlotNotCoveredError,
)
LIBRARYS_ERRORS = [
    error
    for _, error in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(error, Exception) and error not in UNUSED
]


SYSTEMS_ERRORS = [
    error
    for module in (builtins, socket, ssl)
    for _, error in inspect.getmembers(module, inspect.isclass)
    if issubclass(error, OSError)
]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.ReadOnlyError("You can't write"), "redis_readonly"),
        (exceptions.ResponseError("READONLY You can't write against a replica"), "redis_readonly"),
        (exceptions.ResponseError("UNBLOCKED force unblock from blocking"), "redis_readonly"),
        (exceptions.OutOfMemoryError("command not allowed"), "redis_out_of_memory"),
        (exceptions.ResponseError("OOM command not allowed"), "redis_out_of_memory"),
        (exceptions.BusyLoadingError("loading"), "redis_loading"),
        (exceptions.AuthenticationError("invalid password"), "redis_refused_login"),
        (exceptions.AuthenticationError("Authentication required."), "redis_refused_login"),
        (exceptions.NoPermissionError("no"), "redis_permission"),
        (exceptions.ResponseError("ACL failure in script: User x has no"), "redis_permission"),
        (exceptions.ResponseError("MISCONF disk"), "redis_not_persisting"),
        (exceptions.ResponseError("BUSY script"), "redis_busy"),
        (exceptions.ResponseError("BUSYKEY Target key name already exists."), "redis_error"),
        (exceptions.ResponseError("MASTERDOWN link"), "redis_unreachable"),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas"), "not_replicated"),
        (exceptions.TimeoutError("Timeout reading"), "redis_timeout"),
        (TimeoutError(), "redis_timeout"),
        (exceptions.ConnectionError("refused"), "redis_unreachable"),
        (exceptions.MaxConnectionsError("too many"), "redis_unreachable"),
        (ConnectionResetError(), "redis_unreachable"),
        (socket.gaierror(-2, "Name or service not known"), "redis_unreachable"),
        (ssl.SSLError(1, "wrong version number"), "redis_unreachable"),
        (ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "redis_untrusted"),
        (
            exceptions.ConnectionError("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"),
            "redis_refused_certificate",
        ),
        (
            ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert"),
            "redis_refused_certificate",
        ),
        (
            ssl.SSLError(1, "[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error"),
            "redis_unreachable",
        ),
        (
            MasterNotFoundError("No master found for 'm' : R<h> - AuthenticationError('x')"),
            "redis_refused_login",
        ),
        (
            MasterNotFoundError("No master found for 'm' : R<h> - ConnectionError('x')"),
            "redis_no_primary",
        ),
        (MasterNotFoundError("No master found for 'm'"), "redis_no_primary"),
        (exceptions.ResponseError("ERR what"), "redis_error"),
        (exceptions.ResponseError(""), "redis_error"),
        (exceptions.NoScriptError("No matching script"), "redis_error"),
    ],
)
def test_each_failure_has_a_code(error: Exception, code: str) -> None:
    assert translate(error).code == code


def test_no_password_and_a_wrong_one_are_told_apart() -> None:
    missing = translate(exceptions.AuthenticationError("Authentication required."))
    wrong = translate(exceptions.AuthenticationError("invalid username-password pair"))
    assert missing.message == "Redis asks for a password"
    assert wrong.message == "Redis refuses the user name or password"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1/0", ": connection refused"),
        ("redis://redis.invalid/0", ": its host's name has no address"),
        ("unix:///nowhere/redis.sock", ": no such file or directory"),
    ],
)
async def test_why_there_is_no_connection_is_told_in_the_systems_words(url: str, why: str) -> None:
    assert (await failure(RedisUrl(url))).message == f"no connection to Redis{why}"


async def test_a_failure_of_tls_is_told_without_its_words() -> None:
    failed = translate(ssl.SSLError(1, f"[SSL: WRONG_VERSION_NUMBER] {PASSWORD}"))
    assert failed.message == "no connection to Redis: TLS failed"


def test_what_is_translated_already_stays() -> None:
    mine = Unavailable("backlog_full", "too many")
    assert translate(mine) is mine


@pytest.mark.parametrize("error", LIBRARYS_ERRORS, ids=lambda error: error.__name__)
def test_no_error_of_the_library_was_forgotten(error: type[Exception]) -> None:
    assert issubclass(error, REDIS_ERRORS)
    translated = translate(error("1 h:1"))
    assert translated.code.startswith("redis_")
    assert "h:1" not in str(translated)


@pytest.mark.parametrize("error", UNUSED, ids=lambda error: error.__name__)
def test_what_is_left_out_is_not_raised_by_the_client_that_we_use(error: type[Exception]) -> None:
    assert error.__name__ not in inspect.getsource(connection)
    assert error.__name__ not in inspect.getsource(client)


@pytest.mark.parametrize("error", SYSTEMS_ERRORS, ids=lambda error: error.__name__)
def test_an_error_of_the_system_is_a_time_out_or_no_connection(error: type[OSError]) -> None:
    assert issubclass(error, REDIS_ERRORS)
    expected = "redis_timeout" if issubclass(error, TimeoutError) else "redis_unreachable"
    assert translate(error(5, "why")).code == expected


@given(st.sampled_from([exceptions.ResponseError, exceptions.ConnectionError, OSError]), st.text())
def test_no_words_of_the_error_are_in_the_translation(error: type[Exception], text: str) -> None:
    for words in (text + PASSWORD, f"ERR {text} {PASSWORD}", f"OOM {PASSWORD}"):
        translated = translate(error(words))
        assert PASSWORD not in f"{translated!r} {translated.code} {translated.message}"


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[RedisUrl]:
    """Something on a port that isn't quite Redis."""
    tasks: list[asyncio.Task[None]] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield RedisUrl(f"redis://127.0.0.1:{port}/0")
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(reply: bytes) -> Serve:
    """Answer each command, and the two that redis-py says at the start, with the same bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(reply)
            await writer.drain()

    return serve


async def failure(url: RedisUrl, patience: float = 5.0) -> Unavailable:
    """What becomes of a command."""
    async with open_redis(url, connections=1, socket_timeout=patience) as redis:
        with pytest.raises(REDIS_ERRORS) as caught:
            await redis.execute_command("GET", "x")
    return translate(caught.value)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("READONLY You can't write against a read only replica.", "redis_readonly"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "redis_out_of_memory"),
        ("LOADING Redis is loading the dataset in memory", "redis_loading"),
        ("MISCONF Redis is configured to save RDB snapshots", "redis_not_persisting"),
        ("MASTERDOWN Link with MASTER is down", "redis_unreachable"),
        ("NOREPLICAS Not enough good replicas to write.", "not_replicated"),
        ("BUSY Redis is busy running a script.", "redis_busy"),
        ("NOAUTH Authentication required.", "redis_refused_login"),
        ("WRONGPASS invalid username-password pair", "redis_refused_login"),
        ("NOPERM this user has no permissions", "redis_permission"),
        ("EXECABORT Transaction discarded", "redis_error"),
        ("CLUSTERDOWN The cluster is down", "redis_cluster"),
        ("MOVED 3999 127.0.0.1:6381", "redis_cluster"),
        ("ASK 3999 127.0.0.1:6381", "redis_cluster"),
        ("ASKING for trouble", "redis_error"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "redis_cluster"),
        ("ERR max number of clients reached", "redis_unreachable"),
        ("ERR", "redis_error"),
        ("", "redis_error"),
    ],
)
async def test_what_redis_says_is_translated_through_the_real_client(said: str, code: str) -> None:
    async with server(saying(f"-{said}\r\n".encode())) as url:
        assert (await failure(url)).code == code


async def hangs(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


async def leaves(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def leaves_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(4096)
    writer.write(b"+OK\r\n+OK\r\n+OK\r\n$10\r\nabc")
    await writer.drain()


@pytest.mark.parametrize(
    ("serve", "code"),
    [
        (hangs, "redis_timeout"),
        (leaves, "redis_unreachable"),
        (leaves_in_the_middle, "redis_unreachable"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "redis_error"),
        (saying(b"\xff\xfe\x00"), "redis_error"),
    ],
)
async def test_a_server_that_misbehaves_is_a_failure_with_a_code(serve: Serve, code: str) -> None:
    async with server(serve) as url:
        assert (await failure(url, patience=0.1)).code == code


async def test_tls_with_a_server_that_speaks_none_is_a_failure_with_a_code() -> None:
    async with server(saying(b"-ERR Protocol error\r\n")) as url:
        tls = RedisUrl(url.reveal().replace("redis://", "rediss://"))
        assert (await failure(tls)).code == "redis_unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1/0",
        "rediss://127.0.0.1:1/0",
        "redis://a..b/0",  # no name at all
        f"redis://{'a' * 70}/0",
        "unix:///nowhere/redis.sock",
    ],
)
async def test_a_redis_that_is_not_there_is_unreachable(url: str) -> None:
    assert (await failure(RedisUrl(url))).code == "redis_unreachable"


async def test_sentinels_that_are_not_there_name_no_primary() -> None:
    url = RedisUrl("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster/0")
    assert (await failure(url)).code == "redis_no_primary"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "ssl_ca_certs=/nowhere/ca.pem",
            (
                "ssl_ca_certs to be a file of certificates in PEM form, "
                "got /nowhere/ca.pem: No such file or directory"
            ),
        ),
        (
            f"ssl_ca_certs={__file__}",
            (
                "ssl_ca_certs to be a file of certificates in PEM form, "
                f"got {__file__}: NO_CERTIFICATE_OR_CRL_FOUND"
            ),
        ),
        ("ssl_ca_path=/nowhere", "ssl_ca_path to be a folder of certificates, got /nowhere"),
        (
            "ssl_certfile=/nowhere/a.pem&ssl_keyfile=/nowhere/b.pem",
            (
                "ssl_certfile and ssl_keyfile to be a certificate and its key in PEM form, "
                "got /nowhere/a.pem and /nowhere/b.pem: No such file or directory"
            ),
        ),
    ],
)
def test_a_certificate_that_is_not_there_is_a_wrong_setting(options: str, message: str) -> None:
    for url in (f"rediss://h?{options}", f"rediss+sentinel://s/m?{options}"):
        with pytest.raises(SettingsError) as caught:
            connection_pool(RedisUrl(url), connections=1)
        assert str(caught.value) == f"REDIS_URL: expected {message}"


async def test_nothing_is_sent_before_the_first_command() -> None:
    async with open_redis(RedisUrl("redis://127.0.0.1:1/0")):
        pass


@pytest.mark.parametrize(
    ("url", "keep_alive"),
    [
        (f"redis://user:{PASSWORD}@h:1/2", True),
        (f"rediss://:{PASSWORD}@h", True),
        (f"redis+sentinel://:{PASSWORD}@s/m?sentinel_password={PASSWORD}", True),
        (f"unix://:{PASSWORD}@/redis.sock", None),
    ],
)
async def test_a_pool_is_bounded_in_number_and_time_and_shows_no_password(
    url: str, keep_alive: object
) -> None:
    pool = connection_pool(RedisUrl(url), connections=7, socket_timeout=1.5)
    assert (pool.max_connections, pool.timeout) == (7, 1.5)
    made = pool.make_connection()
    assert made.socket_timeout == made.socket_connect_timeout == 1.5
    assert getattr(made, "socket_keepalive", None) is keep_alive
    assert PASSWORD not in repr(pool) + repr(made)
    await pool.aclose()


async def test_who_finds_no_free_connection_waits_for_one_and_not_for_ever() -> None:
    open_now = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        while received := await reader.read(4096):
            writer.write(b"+OK\r\n" * received.count(b"*"))
        open_now -= 1

    async with server(serve) as url, open_redis(url, connections=2) as redis:
        await asyncio.gather(*(redis.execute_command("PING") for _ in range(50)))
    assert most == 2

    async with server(hangs) as url, open_redis(url, connections=1, socket_timeout=0.1) as redis:
        pings = (redis.execute_command("PING") for _ in range(3))
        results = await asyncio.gather(*pings, return_exceptions=True)
    assert all(isinstance(result, REDIS_ERRORS) for result in results)
