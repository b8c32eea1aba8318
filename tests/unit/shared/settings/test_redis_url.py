"""A Redis URL: what it shows, what it refuses, and what redis-py is told."""

import ssl
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio.connection import UnixDomainSocketConnection, parse_url

from shared.errors import SettingsError
from shared.redis.connection import connection_pool
from shared.settings.redis_url import RedisUrl, Sentinels, Tls

PASSWORD = "hunter2"
FORM = "redis://host:port/database, rediss://…, redis+sentinel://…, redis+cluster://… or unix://…"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://localhost/", "redis://localhost/"),
        ("redis://localhost:6380/3", "redis://localhost:6380/3"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        (f"redis://:{PASSWORD}@h:1/0", "redis://:***@h:1/0"),
        (f"redis://user:{PASSWORD}@h:1/0", "redis://user:***@h:1/0"),
        (f"redis://{PASSWORD}@h:1/0", "redis://***@h:1/0"),  # a password in the wrong place
        (f"redis://user:a@{PASSWORD}@h/0", "redis://user:***@h/0"),
        ("redis://user:@h/0", "redis://user:***@h/0"),
        (f"redis://h?db=2&password={PASSWORD}", "redis://h?db=2&password=***"),
        (f"redis://h?p%61ssword={PASSWORD}", "redis://h?p%61ssword=***"),
        (f"redis://h?username={PASSWORD}&client_name=x", "redis://h?username=***&client_name=x"),
        ("redis://h?client_name=a%0Ab", "redis://h?client_name=a%0Ab"),
        ("rediss://h?ssl_ca_certs=/ca.pem", "rediss://h?ssl_ca_certs=/ca.pem"),
        ("redis+sentinel://s/mymaster", "redis+sentinel://s/mymaster"),
        (
            f"rediss+sentinel://user:{PASSWORD}@s:1,[::1]:2/m/0",
            "rediss+sentinel://user:***@s:1,[::1]:2/m/0",
        ),
        (
            f"redis+sentinel://s/m?sentinel_username={PASSWORD}&sentinel_password={PASSWORD}",
            "redis+sentinel://s/m?sentinel_username=***&sentinel_password=***",
        ),
        (
            f"rediss+cluster://user:{PASSWORD}@a:1,[::1]?ssl_ca_certs=/ca.pem",
            "rediss+cluster://user:***@a:1,[::1]?ssl_ca_certs=/ca.pem",
        ),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        (f"unix://user:{PASSWORD}@/run/redis.sock", "unix://user:***@/run/redis.sock"),
    ],
)
def test_a_redis_url_shows_all_but_what_logs_in(url: str, shown: str) -> None:
    parsed = RedisUrl(url)
    assert (str(parsed), repr(parsed)) == (shown, f"RedisUrl('{shown}')")
    assert PASSWORD not in shown
    assert parsed.reveal() == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "",
            f"{FORM}, got something else",
        ),
        (
            f"{PASSWORD}@localhost",
            f"{FORM}, got something else",
        ),
        (
            "http://h",
            f"{FORM}, got http://…",
        ),
        (
            "REDIS://h",
            f"{FORM}, got something else",
        ),
        (
            "redis://h\n",
            r"no quotes or blanks around it, got 'redis://h\n'",
        ),
        (
            f'"redis://u:{PASSWORD}@h:1/0"',
            "no quotes or blanks around it, got '\"redis://u:***@h:1/0\"'",
        ),
        (
            f" redis://:{PASSWORD}@h:1/0",
            "no quotes or blanks around it, got ' redis://:***@h:1/0'",
        ),
        (
            f"“redis://h?password={PASSWORD}”",
            "no quotes or blanks around it, got '“redis://h?password=***”'",
        ),
        (
            f"redis://:{PASSWORD}@my host/0",
            (
                "a host's name, and no blanks or quotes in it "
                "(%20, %22 and %27 in a password), got redis://…"
            ),
        ),
        (
            f"redis://:{PASSWORD} @h:1 /0",
            (
                f"{FORM}, with %2F, %23 and %3F for /, # and ? in a password, and no blanks or "
                "quotes in it (%20, %22 and %27 in a password), got redis://…"
            ),
        ),
        (
            f"'{PASSWORD}@h'",
            (
                f"{FORM}, and no blanks or quotes in it (%20, %22 and %27 in a password), "
                "got something else"
            ),
        ),
        (
            "redis://h:65536",
            (f"{FORM}, with %2F, %23 and %3F for /, # and ? in a password, got redis://…"),
        ),
        (
            f"redis://user:{PASSWORD}/x@h",
            (f"{FORM}, with %2F, %23 and %3F for /, # and ? in a password, got redis://…"),
        ),
        (
            "redis://[::1",
            (f"{FORM}, with %2F, %23 and %3F for /, # and ? in a password, got redis://…"),
        ),
        ("redis://h/0#x", "no # (in a password it is written %23), got redis://…"),
        ("redis://", "a host after redis://, got redis://…"),
        (f"redis://:{PASSWORD}@", "a host after redis://, got redis://…"),
        ("rediss:///0", "a host after rediss://, got rediss://…"),
        ("redis://h:0/0", "a port from 1 to 65535, got redis://…"),
        ("redis://h/db", "the number of a database after the host's /, got redis://…"),
        ("redis://h/0/1", "the number of a database after the host's /, got redis://…"),
        ("redis://h/\u0661", "the number of a database after the host's /, got redis://…"),
        (
            "redis://h?socket_timeout=1",
            "no query options but client_name, db, password, username, got redis://…",
        ),
        (
            "redis://h?ssl_keyfile=k",
            "no query options but client_name, db, password, username, got redis://…",
        ),
        (
            "rediss://h?sentinel_password=x",
            (
                "no query options but client_name, db, password, ssl_ca_certs, ssl_ca_path, "
                "ssl_certfile, ssl_check_hostname, ssl_keyfile, username, got rediss://…"
            ),
        ),
        (
            "redis+sentinel://s/m?ssl_ca_certs=x",
            (
                "no query options but client_name, db, password, sentinel_password, "
                "sentinel_username, username, got redis+sentinel://…"
            ),
        ),
        ("rediss://h?ssl_ca_certs=", "something after ssl_ca_certs=, got rediss://…"),
        (
            "rediss://h?ssl_check_hostname=perhaps",
            "true or false in the query option ssl_check_hostname, got rediss://…",
        ),
        ("rediss://h?ssl_keyfile=k", "ssl_certfile and ssl_keyfile together, got rediss://…"),
        *(
            (
                f"redis+sentinel://{hosts}/m",
                (
                    "host:port of each Sentinel after redis+sentinel://, with commas between them "
                    "(and %2F, %23, %3F and %40 for /, #, ? and @ in a password), "
                    "got redis+sentinel://…"
                ),
            )
            for hosts in ("", "a,", "a:0", "a:65536", f":{PASSWORD}@", "[::1", f"[u:{PASSWORD}@s")
        ),
        *(
            (
                f"rediss+sentinel://s{path}",
                (
                    "/service or /service/database after the Sentinels, as in /mymaster/0, "
                    "got rediss+sentinel://…"
                ),
            )
            for path in ("", "/", "/0/1/2", "/a,b", "/m/x", "/\u0661/\u0661")
        ),
        (
            "redis+sentinel://s/m#x",
            "no # (in a password it is written %23), got redis+sentinel://…",
        ),
        *(
            (
                f"redis+cluster://{hosts}",
                (
                    "host:port of each node after redis+cluster://, with commas between them "
                    "(and %2F, %23, %3F and %40 for /, #, ? and @ in a password), "
                    "got redis+cluster://…"
                ),
            )
            for hosts in ("", "a,", "a:0/0", f":{PASSWORD}@", "[::1")
        ),
        *(
            (
                f"rediss+cluster://a,b{path}",
                "nothing after the nodes: a cluster has database 0 only, got rediss+cluster://…",
            )
            for path in ("/1", "/0/", "/mymaster")
        ),
        (
            "redis+cluster://a?db=0",
            "no query options but client_name, password, username, got redis+cluster://…",
        ),
        ("redis://h?db=x&db=1", "each query option once, got redis://…"),
        ("redis://h?db=", "a number in the query option db, got redis://…"),
        ("redis://h?db=-1", "a number in the query option db, got redis://…"),
        (
            "unix://",
            "the whole path of a socket after unix://, as in unix:///a.sock, got unix://…",
        ),
        (
            "unix://run/redis.sock",
            "the whole path of a socket after unix://, as in unix:///a.sock, got unix://…",
        ),
    ],
)
def test_a_wrong_redis_url_says_what_was_expected(url: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        RedisUrl(url, setting="X")
    assert str(caught.value) == f"X: expected {message}"


def test_a_redis_url_is_a_value() -> None:
    assert RedisUrl("redis://h") == RedisUrl("redis://h")
    assert RedisUrl("redis://:a@h") != RedisUrl("redis://:b@h")
    assert RedisUrl("redis://h") != "redis://h"
    assert len({RedisUrl("redis://h"), RedisUrl("redis://h")}) == 1


def test_a_redis_url_knows_a_file_from_a_host() -> None:
    assert RedisUrl("unix:///a.sock").is_unix_socket
    assert not RedisUrl("rediss://h").is_unix_socket


@given(st.text(max_size=20))
@example("/0?client_name=x")
@example("#/?@:[]%")
def test_no_password_shows_whether_it_is_quoted_or_not(rest: str) -> None:
    password = "Zq9" + rest
    quoted = RedisUrl(f"redis://user:{quote(password, safe='', errors='replace')}@host/0")
    assert "Zq9" not in f"{quoted} {quoted!r}"
    urls = (f"redis://user:{password}@host/0", f"redis://host?password={password}", password)
    for url in (*urls, *(f"'{url}' " for url in urls), f" {quoted.reveal()}\n"):
        try:
            shown = repr(RedisUrl(url))
        except SettingsError as exc:
            shown = str(exc)
        assert "Zq9" not in shown


_OF_SEVERAL = ["redis+sentinel://", "rediss+sentinel://", "redis+cluster://", "rediss+cluster://"]
_SCHEMES = ["redis://", "rediss://", "unix://", *_OF_SEVERAL]
_PLACES = [*_SCHEMES, "h", ",", "/m", "[::1]", ":1", ":0", "/0", "/"]
_REST = ["?", "db=1", "&", "password=", "ssl_check_hostname=", "@", ":", "#", "%2F", "x", "é"]
_PIECES = st.sampled_from([*_PLACES, *_REST])


@given(st.one_of(st.text(max_size=30), st.lists(_PIECES, max_size=8).map("".join)))
def test_any_text_is_a_url_that_redis_py_takes_or_a_settings_error(text: str) -> None:
    try:
        url = RedisUrl(text)
    except SettingsError:
        return
    connection_pool(url, connections=1)
    assert ".invalid" not in str(url)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://h:1/2", {"host": "h", "port": 1, "db": 2}),
        ("rediss://h?ssl_ca_certs=/ca.pem&db=3", {"host": "h", "db": 3}),
        ("rediss+cluster://u:p%40@a:1,b?client_name=n", {"db": 0, "client_name": "n"}),
        ("rediss+sentinel://s/m/4?sentinel_password=x&client_name=n", {"db": 4}),
        (
            "unix:///a.sock?db=1",
            {"path": "/a.sock", "db": 1, "connection_class": UnixDomainSocketConnection},
        ),
    ],
)
def test_redis_py_reads_a_url_as_it_is_meant(url: str, parts: dict[str, object]) -> None:
    assert parts.items() <= parse_url(RedisUrl(url).server).items()


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("redis://h", ()),
        ("redis://u:p%40%2F@h", ("u", "p@/")),
        ("redis://u@h", ("u", "")),
        ("redis://:p@h", ("p",)),
        ("redis://h?username=u&password=p%2B", ("u", "p+")),
        ("unix://u:p@/a.sock", ("u", "p")),
        ("redis+sentinel://u:p@s:1,t/m?sentinel_password=x", ("u", "p")),
        ("rediss+cluster://:p@a:1,b", ("p",)),
    ],
)
def test_who_we_are_stands_in_a_redis_url_and_is_kept_from_redis_py(
    url: str, login: tuple[str, ...]
) -> None:
    """Which would keep it for every connection."""
    assert RedisUrl(url).login == login
    assert not {"username", "password"} & parse_url(RedisUrl(url).server).keys()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://u:p@h:1/2?client_name=n&password=x", "redis://h:1/2?client_name=n"),
        ("redis+sentinel://u:p@s,t/m?sentinel_password=x", "redis+sentinel://s,t/m"),
        ("rediss://:p@h?ssl_ca_certs=/ca.pem", "rediss://h?ssl_ca_certs=/ca.pem"),
        ("unix://u:p@/a.sock?db=1", "unix:///a.sock?db=1"),
    ],
)
def test_a_place_is_all_but_who_we_are(url: str, place: str) -> None:
    assert RedisUrl(url).place == place


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("redis://h", None),
        ("redis+sentinel://h/m", None),
        ("rediss://h", Tls()),
        ("redis+cluster://h", None),
        ("rediss+cluster://h", Tls()),
        ("rediss+sentinel://h/m?ssl_check_hostname=FALSE", Tls(check_hostname=False)),
        (
            "rediss://h?ssl_ca_certs=/a%20b.pem&ssl_ca_path=/c&ssl_certfile=/d&ssl_keyfile=/e",
            Tls(ca_certs="/a b.pem", ca_path="/c", certfile="/d", keyfile="/e"),
        ),
    ],
)
def test_a_redis_url_says_how_tls_is_spoken(url: str, tls: Tls | None) -> None:
    assert RedisUrl(url).tls == tls


def test_a_certificate_is_checked_against_the_host_unless_the_url_says_no() -> None:
    checked = connection_pool(RedisUrl("rediss://h"), connections=1)
    unchecked = connection_pool(RedisUrl("rediss://h?ssl_check_hostname=false"), connections=1)
    assert checked.connection_kwargs["tls"].context().check_hostname
    assert not unchecked.connection_kwargs["tls"].context().check_hostname
    assert unchecked.connection_kwargs["tls"].context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("url", "sentinels"),
    [
        ("redis://h", None),
        ("redis+sentinel://s/m", Sentinels((("s", 26379),), "m")),
        (
            "rediss+sentinel://:p@s:1,[::1]:2,t/my.master_1-x/3",
            Sentinels((("s", 1), ("::1", 2), ("t", 26379)), "my.master_1-x"),
        ),
        (
            "redis+sentinel://s/m?sentinel_username=u&sentinel_password=p%2B",
            Sentinels((("s", 26379),), "m", "u", "p+"),
        ),
    ],
)
def test_a_redis_url_says_which_sentinels_know_the_primary(
    url: str, sentinels: Sentinels | None
) -> None:
    assert RedisUrl(url).sentinels == sentinels
    assert "p+" not in repr(RedisUrl(url).sentinels)


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("redis://h", None),
        ("redis+sentinel://s/m", None),
        ("redis+cluster://a", (("a", 6379),)),
        ("redis+cluster://u:p@a:1,[::1]:2,b/0", (("a", 1), ("::1", 2), ("b", 6379))),
        ("rediss+cluster://a/?username=u", (("a", 6379),)),
    ],
)
def test_a_redis_url_says_which_nodes_know_the_others(
    url: str, nodes: tuple[tuple[str, int], ...] | None
) -> None:
    assert RedisUrl(url).nodes == nodes
