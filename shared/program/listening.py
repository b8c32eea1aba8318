"""Where a program listens, or why it can't listen there."""

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from shared.errors import SettingsError
from shared.settings.reader import Reader

HOSTS: Final = "addresses of this machine with commas between them"
"""What an error message says was expected."""

_HOST_AT_FAULT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL})
_ALL_IPV4: Final = "0.0.0.0"  # noqa: S104  # what an operator may ask for
_ALL: Final = "::"
_LOOPBACK: Final = {_ALL_IPV4: "127.0.0.1", _ALL: "::1"}
_BACKLOG: Final = 128
# What can be none at all, `check` tells, too; which of the others are this machine's, only a start.
_HOST: Final = re.compile(r"[^\s/,\[\]@]+")
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Address:
    """Where a program is to listen.

    Attributes:
        prefix: what the names of its two settings start with, such as ``INGRESS``.
        hosts: names or addresses of this machine, at least one; ``::`` is all of them.
        port: of every host the same; 0 picks one.
        last_port: where nobody has named a port, the last of those that may stand in for it.
    """

    prefix: str
    hosts: tuple[str, ...]
    port: int
    last_port: int | None = None

    def __str__(self) -> str:
        return ",".join(f"{_bracketed(host)}:{self.port}" for host in self.hosts)

    @property
    def url(self) -> str | None:
        """Where this machine reaches it; None where its port isn't known beforehand."""
        host = _LOOPBACK.get(self.hosts[0], self.hosts[0])
        return f"http://{_bracketed(host)}:{self.port}" if self.port else None


def read_address(
    reader: Reader, prefix: str, port: int, *, last_port: int | None = None
) -> Address:
    """Read ``{prefix}_HOST`` and ``{prefix}_PORT``.

    Args:
        reader: where from.
        prefix: what the names of both settings start with.
        port: the default of the one; that of the other is this machine alone.
        last_port: where the port isn't set, the last of those that may stand in for it.
    """
    name = f"{prefix}_PORT"
    return Address(
        prefix,
        reader.parsed(f"{prefix}_HOST", ("127.0.0.1",), _hosts, HOSTS, show=",".join),
        reader.port(name, port),
        None if reader.is_set(name) else last_port,
    )


def open_sockets(address: Address) -> list[socket.socket]:
    """Listen on every host of an address; all have the port of the first.

    Looking up a name may take its time, so this is for the start of a program.

    Raises:
        SettingsError: the system says no; the message is as in `cannot_listen`.
    """
    ports = _ports(address)
    for port in ports[:-1]:
        with contextlib.suppress(_Taken):
            return _listen(address, port)
    return _listen(address, ports[-1])


def port_of(sockets: Sequence[socket.socket]) -> int:
    """The port that these listen on."""
    return int(sockets[0].getsockname()[1])


def hosts_of(sockets: Sequence[socket.socket]) -> str:
    """The addresses that these listen on, with commas between them."""
    return ",".join(str(each.getsockname()[0]) for each in sockets)


@contextlib.contextmanager
def blaming_settings(prefix: str, host: str, port: int) -> Iterator[None]:
    """Begin to listen within this block.

    Raises:
        SettingsError: the system says no; the message is as in `cannot_listen`.
    """
    try:
        yield
    except (OSError, UnicodeError) as exc:
        raise cannot_listen(prefix, host, port, exc) from exc


def cannot_listen(prefix: str, host: str, port: int, exc: OSError | UnicodeError) -> SettingsError:
    """Say which setting of ``{prefix}_HOST`` and ``{prefix}_PORT`` is at fault.

    Args:
        prefix: what the names of both settings start with, such as ``INGRESS``.
        host: the value of the one.
        port: the value of the other.
        exc: what the system said; a UnicodeError where the host can't be a name at all.
    """
    if isinstance(exc, UnicodeError | socket.gaierror) or exc.errno in _HOST_AT_FAULT:
        return SettingsError(f"{prefix}_HOST", "an address of this machine", repr(host))
    why = os.strerror(exc.errno).lower() if exc.errno else "it can't be listened on"
    kind = _Taken if exc.errno == errno.EADDRINUSE else SettingsError
    return kind(f"{prefix}_PORT", "a port free to listen on", f"{port} ({why})")


class _Taken(SettingsError):
    """Somebody else listens there."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One address of a host, as `socket.socket.bind` takes it."""

    host: str
    family: socket.AddressFamily
    where: tuple[Any, ...]


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(dict.fromkeys(each.strip().strip("[]") for each in text.split(",")))
    if not all(map(_HOST.fullmatch, hosts)):
        raise ValueError
    return hosts


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ports(address: Address) -> Sequence[int]:
    if address.port == 0:  # what is free on the first host may be taken on another
        return [0] * _TRIES
    return range(address.port, (address.last_port or address.port) + 1)


def _listen(address: Address, port: int) -> list[socket.socket]:
    targets = _targets(address)
    is_ipv6_alone = all(target.family == socket.AF_INET6 for target in targets)
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        missing = {target.host for target in targets}
        for target in targets:
            at = port_of(sockets) if sockets else port
            try:
                sock = _listening(target, at, takes_ipv4=is_ipv6_alone)
            except OSError as exc:
                if exc.errno in _HOST_AT_FAULT:  # a name may have addresses that aren't here
                    continue
                raise cannot_listen(address.prefix, target.host, at, exc) from exc
            sockets.append(opened.enter_context(sock))
            missing.discard(target.host)
        if missing:
            nowhere = OSError(errno.EADDRNOTAVAIL, "")
            raise cannot_listen(address.prefix, min(missing), port, nowhere)
        opened.pop_all()
        return sockets


def _targets(address: Address) -> list[_Target]:
    """Every address once; one that listens on all of a family stands for the others of it."""
    hosts = address.hosts
    if not _has_ipv6():  # all addresses that there are
        hosts = tuple(dict.fromkeys(_ALL_IPV4 if host == _ALL else host for host in hosts))
    found: dict[object, _Target] = {}
    for host in hosts:
        with blaming_settings(address.prefix, host, address.port):
            for family, _, _, _, where in socket.getaddrinfo(
                host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                found.setdefault((family, where[0]), _Target(host, family, where))
    whole = {each.family for each in found.values() if each.where[0] in _LOOPBACK}
    return [t for t in found.values() if t.family not in whole or t.where[0] in _LOOPBACK]


def _listening(target: _Target, port: int, *, takes_ipv4: bool) -> socket.socket:
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if target.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not takes_ipv4)
        sock.bind((target.where[0], port, *target.where[2:]))
        # Here and not by the event loop: until one listens, others can bind the same port.
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True
