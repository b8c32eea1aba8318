"""The settings of the ingress."""

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Final, Self

from ingress.clients import Network
from ingress.organization_bytes import SHARE
from shared.errors import SettingsError
from shared.program.listening import Address, read_address
from shared.queue.writer import BacklogLimits
from shared.redis.connection import SOCKET_TIMEOUT
from shared.redis.durability import Durability, Mode
from shared.settings.config import CommonSettings
from shared.settings.durations import format_duration
from shared.settings.reader import Reader, Settings
from shared.settings.redis_url import RedisUrl

_KIB: Final = 1024
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of the ingress.

    Attributes:
        body_bytes: the largest body (``MAX_BODY_BYTES``).
        bytes_in_flight: requests that are being read or not yet durable, all together; bodies that
            are being read may have half (``MAX_BYTES_IN_FLIGHT``).
        connections: open at once (``MAX_CONNECTIONS``).
        header_seconds: from the first byte of a request to the end of its headers, and from the
            beginning of a connection to its first byte (``HEADER_TIMEOUT``).
        body_seconds: from there to the end of its body (``BODY_TIMEOUT``).
        keepalive_seconds: how long a connection may be idle (``KEEPALIVE_TIMEOUT``).
        header_bytes: the largest request line, and the largest single header
            (``MAX_HEADER_BYTES``).
    """

    body_bytes: int = _MIB
    bytes_in_flight: int = 64 * _MIB
    connections: int = 4096
    header_seconds: float = 5.0
    body_seconds: float = 10.0
    keepalive_seconds: float = 75.0
    header_bytes: int = 8190


@dataclass(frozen=True, slots=True)
class IngressSettings(Settings):
    """Everything that the ingress needs to be told.

    Attributes:
        common: what both programs need.
        address: where Sellfern's deliveries come to (``INGRESS_HOST``, ``INGRESS_PORT``).
        admin: where the admin site is (``INGRESS_ADMIN_HOST``, ``INGRESS_ADMIN_PORT``).
        durability: what must hold before a delivery counts as accepted (``DURABILITY`` …).
        backlog: how many unfinished events a partition may have (``MAX_BACKLOG`` …).
        organization_bytes: how much of Redis one organization may hold; 0: no limit, ``None``: a
            share (``MAX_ORGANIZATION_BYTES``).
        limits: what one client may ask.
        trusted_proxies: whose word is taken for the address of a client (``TRUSTED_PROXIES``).
        organization_series: organizations with metrics of their own
            (``METRICS_ORGANIZATIONS``).
        drain_delay: seconds that the ingress goes on listening after SIGTERM (``DRAIN_DELAY``).
        drain_seconds: seconds that requests in flight then have to finish (``DRAIN_SECONDS``).
    """

    common: CommonSettings
    address: Address
    admin: Address
    durability: Durability
    backlog: BacklogLimits
    organization_bytes: int | None
    limits: Limits
    trusted_proxies: tuple[Network, ...]
    organization_series: int
    drain_delay: float
    drain_seconds: float

    def durability_at(self, url: RedisUrl) -> Durability:
        """What holds before an event counts as accepted by one of several primaries."""
        return replace(self.durability, **_fail_over(url))

    @classmethod
    def from_reader(cls, reader: Reader) -> Self:
        """Read them in its block."""
        # One environment is often given to several programs, so these are read alike by all.
        common = CommonSettings.from_reader(reader)
        return cls(
            common=common,
            address=read_address(reader, "INGRESS", 8080),
            admin=read_address(reader, "INGRESS_ADMIN", 9101),
            durability=_durability(reader, common.redis_url),
            backlog=_backlog(reader, common.partitions),
            organization_bytes=_organization_bytes(reader),
            limits=_limits(reader),
            trusted_proxies=_networks(reader, "TRUSTED_PROXIES"),
            organization_series=reader.integer(
                "METRICS_ORGANIZATIONS", 20, minimum=0, maximum=1000
            ),
            drain_delay=reader.duration("DRAIN_DELAY", "200ms", maximum="5m"),
            drain_seconds=common.drain_seconds,
        )


def _limits(reader: Reader) -> Limits:
    default = Limits()
    body = reader.integer("MAX_BODY_BYTES", default.body_bytes, minimum=_KIB, maximum=16 * _MIB)
    in_flight = reader.integer("MAX_BYTES_IN_FLIGHT", default.bytes_in_flight, minimum=_KIB)
    # Bodies that are being read share half of it: so two of the largest fit beside each other.
    if reader.are_good("MAX_BODY_BYTES", "MAX_BYTES_IN_FLIGHT") and in_flight < 4 * body:
        expected = f"at least 4 times MAX_BODY_BYTES ({4 * body})"
        reader.refuse(SettingsError("MAX_BYTES_IN_FLIGHT", expected, str(in_flight)))
    return Limits(
        body_bytes=body,
        bytes_in_flight=in_flight,
        header_bytes=reader.integer(
            "MAX_HEADER_BYTES", default.header_bytes, minimum=_KIB, maximum=64 * _KIB
        ),
        connections=reader.integer("MAX_CONNECTIONS", default.connections, minimum=1),
        header_seconds=reader.duration("HEADER_TIMEOUT", "5s", minimum="100ms", maximum="5m"),
        body_seconds=reader.duration("BODY_TIMEOUT", "10s", minimum="100ms", maximum="5m"),
        keepalive_seconds=reader.duration("KEEPALIVE_TIMEOUT", "75s", minimum="1s", maximum="1h"),
    )


def _networks(reader: Reader, name: str) -> tuple[Network, ...]:
    """Addresses and networks, with commas between them; nothing is none."""
    networks: list[Network] = []
    for text in filter(None, map(str.strip, reader.text(name, "").split(","))):
        try:
            networks.append(ip_network(text))
        except ValueError as exc:  # it says what is wrong, such as bits behind the mask
            expected = "addresses and networks, such as 10.0.0.0/8,192.0.2.1"
            got = f"{text[:40]!r} ({str(exc)[:80]})"
            reader.refuse(SettingsError(name, expected, got))
    return tuple(networks)


def _durability(reader: Reader, url: RedisUrl) -> Durability:
    modes = [mode.value for mode in Mode]
    timeout = reader.duration("DURABILITY_TIMEOUT", "2s", minimum="10ms")
    # The connection would be given up before Redis could say that it isn't durable.
    if timeout >= SOCKET_TIMEOUT:
        expected = f"less than Redis has for a reply ({format_duration(SOCKET_TIMEOUT)})"
        reader.refuse(SettingsError("DURABILITY_TIMEOUT", expected, format_duration(timeout)))
    mode = Mode(reader.choice("DURABILITY", modes, Mode.FSYNC.value))
    # Sentinel is there for a replica, where a cluster may do without.
    may_be_none = url.nodes is not None and mode is not Mode.REPLICA
    least = 0 if may_be_none else 1
    return Durability(
        mode=mode,
        replicas=reader.integer("WAIT_REPLICAS", 1, minimum=least, maximum=100),
        timeout=timeout,
        asserted=reader.flag("DURABILITY_ASSERTED", default=False),
        is_said=reader.is_set("WAIT_REPLICAS"),
        **_fail_over(url),
    )


def _fail_over(url: RedisUrl) -> dict[str, Any]:
    if url.nodes is not None:
        return {"fails_over": True, "promoter": "a cluster"}
    return {"fails_over": url.sentinels is not None}


def _backlog(reader: Reader, partitions: int) -> BacklogLimits:
    """The limits of one partition; left alone, one organization may fill a quarter of it."""
    total = reader.integer("MAX_BACKLOG", 1_000_000, minimum=0)
    part = -(-total // partitions)
    organization = reader.integer("MAX_ORGANIZATION_BACKLOG", part // 4, minimum=0)
    good = reader.are_good("MAX_BACKLOG", "MAX_ORGANIZATION_BACKLOG", "PARTITIONS")
    if good and 0 < part < organization:
        divided = "" if partitions == 1 else f", divided by PARTITIONS ({part})"
        expected = f"at most MAX_BACKLOG ({total}){divided}"
        reader.refuse(SettingsError("MAX_ORGANIZATION_BACKLOG", expected, str(organization)))
    return BacklogLimits(part, organization)


def _organization_bytes(reader: Reader) -> int | None:
    share = f"1/{SHARE} of maxmemory"

    def show(value: int) -> str:
        return share if value < 0 else str(value)

    name = "MAX_ORGANIZATION_BYTES"
    # The share is -1 here, since 0 is a value of its own: no limit.
    value = reader.parsed(name, -1, _bytes, "a whole number of bytes from 0", show=show)
    return None if value < 0 else value


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError
    return int(text)
