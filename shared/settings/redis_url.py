"""Where Redis is, and who we are there, as one URL says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

from shared.errors import SettingsError
from shared.files.plain_text import UNWRAPPED, has_blanks_or_quotes, split_wrapping

_MASK: Final = "***"
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26_379

EXPECTED: Final = (
    "redis://host:port/database, rediss://…, redis+sentinel://…, redis+cluster://… or unix://…"
)
"""What an error message says was expected."""

# What begins another URL, so that a blank in a password is told as ever.
_SCHEME: Final = re.compile(r"(?:rediss?(?:\+sentinel|\+cluster)?|unix)://")
_NEXT_URL: Final = re.compile(rf"\s+(?={_SCHEME.pattern})")

_URL_OPTIONS: Final = frozenset({"client_name", "db", "password", "username"})
_TLS_OPTIONS: Final = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
)
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_password", "sentinel_username"})
_HIDDEN_OPTIONS: Final = frozenset({"password", "username", *_SENTINEL_OPTIONS})

# Not by urlsplit: newer ones refuse several hosts of which one stands in brackets.
_URL_OF_SEVERAL: Final = re.compile(
    r"(?P<scheme>rediss?\+(?:sentinel|cluster))://(?P<netloc>[^/?]*)(?P<path>[^?]*)(?:\?(?P<query>.*))?"
)
_SERVICE: Final = re.compile(r"/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{0,5}))?", re.ASCII)


def split_urls(text: str) -> list[str]:
    """The URLs that stand in one text, with blanks between them.

    What a file begins or ends with goes; of other blanks and of quotes `RedisUrl` tells.
    """
    return _NEXT_URL.split(text.strip("\ufeff\r\n"))


@dataclass(frozen=True, slots=True)
class Tls:
    """How the other side of a TLS connection is checked, and what we show it.

    Attributes:
        ca_certs: a file of the authorities to trust; None: those that the system trusts.
        ca_path: a folder of the same.
        certfile: our own certificate, where Redis asks for one.
        keyfile: its key.
        check_hostname: whether the certificate has to be for the host that we asked for.
    """

    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the primary is.

    Attributes:
        hosts: host and port of each.
        service: the name that they have given to the primary and its replicas.
        username: who we are at the Sentinels themselves; None where they ask nobody.
        password: what proves it.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def login(self) -> tuple[str, ...]:
        """What ``AUTH`` takes at the Sentinels themselves; nothing where they ask nobody."""
        return _login(self.username, self.password)


@dataclass(frozen=True, slots=True)
class UrlFile:
    """Where a URL stands that somebody may change there.

    Attributes:
        path: of the file.
        setting: the name of what names it.
        number: which of its URLs it is, from 0.
        count: how many it has.
    """

    path: Path
    setting: str
    number: int = 0
    count: int = 1


class RedisUrl:
    """The URL of a Redis server and database, whose password never shows.

    Takes ``redis://[[user]:password@]host[:port][/database]``, ``rediss://…`` for TLS,
    ``redis+sentinel://[[user]:password@]host[:port][,host[:port]…]/service[/database]``,
    ``rediss+sentinel://…``, ``redis+cluster://[[user]:password@]host[:port][,host[:port]…]``,
    ``rediss+cluster://…`` and ``unix:///path/of.sock?db=0``. Of redis-py's query options it takes
    those that say where and who, not those that would change time-outs or the form of replies.

    Args:
        url: the URL as it was set.
        setting: the name to blame when it is wrong.
        file: where it stands, if in a file.

    Attributes:
        file: the same.

    Raises:
        SettingsError: it is no such URL. The message holds nothing of it but the scheme, or what
            no password is a part of.
    """

    __slots__ = ("_masked", "_parts", "_url", "file")

    def __init__(
        self, url: str, *, setting: str = "REDIS_URL", file: UrlFile | None = None
    ) -> None:
        parts = _split_url(url)
        if isinstance(parts, str):
            raise SettingsError(setting, *_trouble(url, parts))
        self._url = url
        self._parts = parts
        self._masked = _masked_url(parts)
        self.file = file

    def reveal(self) -> str:
        """Give the URL with its password."""
        return self._url

    @property
    def is_unix_socket(self) -> bool:
        """Whether the server is reached by a file on this machine."""
        return self._parts.scheme == "unix"

    @property
    def tls(self) -> Tls | None:
        """How TLS is spoken; None where it isn't."""
        if not _has_tls(self._parts):
            return None
        options = _options(self._parts)
        return Tls(
            ca_certs=options.get("ssl_ca_certs"),
            ca_path=options.get("ssl_ca_path"),
            certfile=options.get("ssl_certfile"),
            keyfile=options.get("ssl_keyfile"),
            check_hostname=options.get("ssl_check_hostname", "true").lower() == "true",
        )

    @property
    def sentinels(self) -> Sentinels | None:
        """Who is asked for the primary; None where the URL itself says where it is."""
        path = _SERVICE.fullmatch(self._parts.path)
        if not _has_sentinels(self._parts) or path is None:
            return None
        options = _options(self._parts)
        return Sentinels(
            hosts=_places(self._parts, _SENTINEL_PORT),
            service=path["service"],
            username=options.get("sentinel_username"),
            password=options.get("sentinel_password"),
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Whom the URL names; nobody where it is a Unix socket's."""
        return () if self.is_unix_socket else tuple(host for host, _ in _places(self._parts, _PORT))

    @property
    def nodes(self) -> tuple[tuple[str, int], ...] | None:
        """Host and port of some nodes of a cluster, which know the others; None: it is none."""
        return _places(self._parts, _PORT) if _has_nodes(self._parts) else None

    @property
    def login(self) -> tuple[str, ...]:
        """What ``AUTH`` takes: user and password, or a password, or nothing."""
        options = _options(self._parts)
        user, _, password = self._parts.netloc.rpartition("@")[0].partition(":")
        return _login(
            unquote(user) or options.get("username"), unquote(password) or options.get("password")
        )

    @property
    def place(self) -> str:
        """All that it says but who we are."""
        options = [each for each in self._parts.query.split("&") if not _is_hidden(each)]
        where, query = self._parts.netloc.rpartition("@")[2], "&".join(options)
        return f"{self._parts.scheme}://{where}{self._parts.path}{query and '?' + query}"

    @property
    def server(self) -> str:
        """A URL for redis-py, without who we are and what only this project reads.

        Where Sentinels or a cluster's nodes know the host, the one that it names stands for it.
        """
        options = [each for each in self._parts.query.split("&") if _is_redis_pys(each)]
        where, path = self._parts.netloc.rpartition("@")[2], self._parts.path
        if found := _has_sentinels(self._parts) and _SERVICE.fullmatch(path):
            where, path = "sentinel.invalid", f"/{found['db'] or 0}"
        elif _has_nodes(self._parts):
            where, path = "cluster.invalid", "/0"
        scheme = "unix" if self.is_unix_socket else "redis"
        query = "&".join(options)
        return f"{scheme}://{where}{path}{query and '?' + query}"

    def __eq__(self, other: object) -> bool:
        return self._url == other._url if isinstance(other, RedisUrl) else NotImplemented

    def __hash__(self) -> int:
        return hash((RedisUrl, self._url))

    def __repr__(self) -> str:
        return f"RedisUrl('{self._masked}')"

    def __str__(self) -> str:
        return self._masked


def _has_tls(parts: SplitResult) -> bool:
    return parts.scheme.startswith("rediss")


def _has_sentinels(parts: SplitResult) -> bool:
    return parts.scheme.endswith("+sentinel")


def _has_nodes(parts: SplitResult) -> bool:
    return parts.scheme.endswith("+cluster")


def _split_url(url: str) -> SplitResult | str:
    """Take a Redis URL apart, or say what was expected in its place."""
    if not _SCHEME.match(url) or not url.isprintable():
        return EXPECTED
    if several := _URL_OF_SEVERAL.fullmatch(url):
        named = several.groupdict(default="")
        parts = SplitResult(**named, fragment="#" if "#" in url else "")
    else:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            return f"{EXPECTED}, with %2F, %23 and %3F for /, # and ? in a password"
    # Cut off by urlsplit, it would be a password's second half.
    if parts.fragment:
        return "no # (in a password it is written %23)"
    return _wrong_places(parts) or _wrong_option(parts) or parts


def _wrong_places(parts: SplitResult) -> str | None:
    if _has_sentinels(parts):
        return _wrong_service(parts)
    return _wrong_nodes(parts) if _has_nodes(parts) else _wrong_place(parts)


def _wrong_place(parts: SplitResult) -> str | None:
    if parts.scheme == "unix":
        # redis-py would drop what stands before the first slash.
        whole = not parts.hostname and parts.path.strip("/")
        return None if whole else "the whole path of a socket after unix://, as in unix:///a.sock"
    if not parts.hostname:
        return f"a host after {parts.scheme}://"
    if parts.port == 0:  # redis-py would take 6379
        return "a port from 1 to 65535"
    if has_blanks_or_quotes(parts.netloc.rpartition("@")[2]):
        return "a host's name"
    if not re.fullmatch(r"/?[0-9]{0,5}", parts.path, re.ASCII):
        return "the number of a database after the host's /"
    return None


def _wrong_service(parts: SplitResult) -> str | None:
    if wrong := _wrong_hosts(parts, "Sentinel"):
        return wrong
    if not _SERVICE.fullmatch(parts.path):
        return "/service or /service/database after the Sentinels, as in /mymaster/0"
    return None


def _wrong_nodes(parts: SplitResult) -> str | None:
    if wrong := _wrong_hosts(parts, "node"):
        return wrong
    if parts.path not in {"", "/", "/0"}:
        return "nothing after the nodes: a cluster has database 0 only"
    return None


def _wrong_hosts(parts: SplitResult, kind: str) -> str | None:
    who, at, _ = parts.netloc.rpartition("@")
    try:
        each = [urlsplit(f"redis://{who}{at}{host}") for host in _hosts(parts)]
        wrong = any(map(_wrong_place, each))
    except ValueError:
        wrong = True
    if wrong:
        return (
            f"host:port of each {kind} after {parts.scheme}://, with commas between them "
            "(and %2F, %23, %3F and %40 for /, #, ? and @ in a password)"
        )
    return None


def _hosts(parts: SplitResult) -> list[str]:
    return parts.netloc.rpartition("@")[2].split(",")


def _places(parts: SplitResult, port: int) -> tuple[tuple[str, int], ...]:
    each = (urlsplit(f"redis://{host}") for host in _hosts(parts))
    return tuple((split.hostname or "", split.port or port) for split in each)


def _wrong_option(parts: SplitResult) -> str | None:
    given = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(given)
    known = _URL_OPTIONS - {"db"} if _has_nodes(parts) else set(_URL_OPTIONS)
    known |= _TLS_OPTIONS if _has_tls(parts) else set()
    known |= _SENTINEL_OPTIONS if _has_sentinels(parts) else set()
    if not options.keys() <= known:
        return "no query options but " + ", ".join(sorted(known))
    if len(options) < len(given):
        return "each query option once"
    if not re.fullmatch(r"[0-9]{1,5}", options.get("db", "0"), re.ASCII):
        return "a number in the query option db"
    return _wrong_tls(options)


def _wrong_tls(options: Mapping[str, str]) -> str | None:
    for name in sorted(_TLS_OPTIONS & options.keys()):
        if not options[name]:
            return f"something after {name}="
    if options.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        return "true or false in the query option ssl_check_hostname"
    if ("ssl_certfile" in options) != ("ssl_keyfile" in options):
        return "ssl_certfile and ssl_keyfile together"
    return None


def _options(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query))


def _login(username: str | None, password: str | None) -> tuple[str, ...]:
    if username:
        return (username, password or "")
    return (password,) if password else ()


def _is_redis_pys(option: str) -> bool:
    return unquote_plus(option.partition("=")[0]) in _URL_OPTIONS and not _is_hidden(option)


def _is_hidden(option: str) -> bool:
    return unquote_plus(option.partition("=")[0]) in _HIDDEN_OPTIONS


def _trouble(url: str, expected: str) -> tuple[str, str]:
    """What a wrong URL should have been, and what may be shown of it."""
    before, inside, after = split_wrapping(url)
    parts = _split_url(inside)
    if not isinstance(parts, str):  # so we know where its password is
        return UNWRAPPED, repr(f"{before}{_masked_url(parts)}{after}")
    if has_blanks_or_quotes(url):
        expected += ", and no blanks or quotes in it (%20, %22 and %27 in a password)"
    return expected, _scheme_only(url)


def _scheme_only(url: str) -> str:
    """Tell of a wrong URL what can't be a part of its password."""
    scheme = re.match(r"[a-z][a-z0-9+.-]{0,16}://", url)
    return f"{scheme[0]}…" if scheme else "something else"


def _masked_url(parts: SplitResult) -> str:
    who, at, where = parts.netloc.rpartition("@")
    user, colon, _ = who.partition(":")
    # A name without a password is often a password in the wrong place.
    # Part of what is shown in errors, in the log and by `check --settings`.
    masked = f"{user}:{_MASK}" if colon else _MASK
    query = "&".join(map(_masked_option, parts.query.split("&")))
    return f"{parts.scheme}://{masked + at if at else ''}{where}{parts.path}{query and '?' + query}"


def _masked_option(option: str) -> str:
    """Mask one option of a query; what is percent-encoded stays so, for it may be a line feed."""
    name, equals, _ = option.partition("=")
    return f"{name}{equals}{_MASK}" if _is_hidden(option) else option
