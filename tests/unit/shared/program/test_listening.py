"""Which setting is to blame for a port that can't be listened on."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from shared.errors import SettingsError
from shared.program import listening
from shared.program.listening import Address, cannot_listen, open_sockets, port_of, read_address
from shared.settings.reader import Reader

ALL_IPV4 = "0.0.0.0"  # noqa: S104  # what an operator may ask for


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (
            OSError(errno.EADDRINUSE, "in use"),
            "X_PORT: expected a port free to listen on, got 80 (address already in use)",
        ),
        (
            OSError(errno.EACCES, "no"),
            "X_PORT: expected a port free to listen on, got 80 (permission denied)",
        ),
        (
            OSError("odd"),
            "X_PORT: expected a port free to listen on, got 80 (it can't be listened on)",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "no"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "unknown"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
        (
            UnicodeError("label empty or too long"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
    ],
)
def test_the_setting_at_fault_is_named(exc: OSError | UnicodeError, message: str) -> None:
    assert str(cannot_listen("X", "here", 80, exc)) == message


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        return sock.connect_ex(("::1", 1)) == errno.ECONNREFUSED


two_families = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@contextmanager
def listening_on(*hosts: str, port: int = 0, last: int | None = None) -> Iterator[list[str]]:
    """Listen there; gives what is listened on, the port left out where it is the same for all."""
    with ExitStack() as opened:
        sockets = [
            opened.enter_context(sock) for sock in open_sockets(Address("X", hosts, port, last))
        ]
        assert {sock.getsockname()[1] for sock in sockets} == {port_of(sockets)}
        yield [f"{sock.getsockname()[0]} {port_of(sockets)}" for sock in sockets]


def answers(host: str, port: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        return client.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        (f"{ALL_IPV4},::", (ALL_IPV4, "::")),
        (f" {ALL_IPV4} , [::1]", (ALL_IPV4, "::1")),
        ("here,here", ("here",)),
        ("", ("127.0.0.1",)),
    ],
)
def test_the_hosts_are_a_list(text: str, hosts: tuple[str, ...]) -> None:
    assert read_address(Reader({"X_HOST": text}), "X", 80) == Address("X", hosts, 80)


@pytest.mark.parametrize("text", [",", "::,", " ", "a,,b"])
def test_a_list_with_a_gap_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^X_HOST: expected addresses of this machine "):
        read_address(Reader({"X_HOST": text}), "X", 80)


@pytest.mark.parametrize(
    ("hosts", "url"),
    [
        (("127.0.0.1",), "http://127.0.0.1:80"),
        ((ALL_IPV4, "::"), "http://127.0.0.1:80"),
        (("::",), "http://[::1]:80"),
        (("10.0.0.1", "::"), "http://10.0.0.1:80"),
    ],
)
def test_an_address_knows_where_this_machine_reaches_it(hosts: tuple[str, ...], url: str) -> None:
    assert Address("X", hosts, 80).url == url
    assert Address("X", hosts, 0).url is None


def test_an_address_is_shown_with_its_port() -> None:
    assert str(Address("X", (ALL_IPV4, "::"), 80)) == "0.0.0.0:80,[::]:80"


@two_families
@pytest.mark.parametrize("hosts", [("::",), (ALL_IPV4, "::"), ("::", ALL_IPV4)])
def test_all_addresses_are_those_of_both_families(hosts: tuple[str, ...]) -> None:
    with listening_on(*hosts) as found:
        assert [each.split()[0] for each in found] == list(hosts)
        port = found[0].split()[1]
        assert answers("127.0.0.1", port)
        assert answers("::1", port)


@two_families
def test_two_hosts_share_a_port_and_nothing_else_is_listened_on() -> None:
    with listening_on("127.0.0.2", "::1") as found:
        port = found[0].split()[1]
        assert answers("127.0.0.2", port)
        assert answers("::1", port)
        assert not answers("127.0.0.1", port)


@two_families
@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (("127.0.0.1", ALL_IPV4), [ALL_IPV4]),
        (("::1", "::", "127.0.0.1"), ["::", "127.0.0.1"]),
        (("localhost", "127.0.0.1"), ["127.0.0.1"]),
    ],
)
def test_what_is_named_twice_is_listened_on_once(
    hosts: tuple[str, ...], expected: list[str]
) -> None:
    with listening_on(*hosts) as found:
        addresses = [each.split()[0] for each in found]
        assert [each for each in addresses if each in expected] == expected


@pytest.mark.parametrize(
    ("hosts", "expected"), [(("::",), [ALL_IPV4]), ((ALL_IPV4, "::"), [ALL_IPV4])]
)
def test_where_there_is_no_ipv6_all_addresses_are_those_of_ipv4(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...], expected: list[str]
) -> None:
    monkeypatch.setattr(listening, "_has_ipv6", lambda: False)
    with listening_on(*hosts) as found:
        assert [each.split()[0] for each in found] == expected


def test_a_name_of_which_one_address_is_elsewhere_is_listened_on_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def two_addresses(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("192.0.2.1", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two_addresses)
    with listening_on("here") as found:
        assert [each.split()[0] for each in found] == ["127.0.0.1"]


def test_one_host_of_several_that_is_not_here_is_named() -> None:
    with (
        pytest.raises(SettingsError, match=r"^X_HOST: .*, got '192\.0\.2\.1'$"),
        listening_on("127.0.0.1", "192.0.2.1"),
    ):
        pass


def test_where_nobody_named_the_port_the_next_free_one_is_taken() -> None:
    with listening_on("127.0.0.1") as first:
        port = int(first[0].split()[1])
        with listening_on("127.0.0.1", port=port, last=port + 9) as second:
            assert port < int(second[0].split()[1]) <= port + 9


def test_a_port_that_is_bound_and_not_listened_on_yet_is_not_lost_to_another() -> None:
    """Both could bind it, and one would fail at its first `listen`, too late to take the next."""
    with socket.socket() as early:
        early.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        early.bind(("127.0.0.1", 0))
        port = early.getsockname()[1]
        with (
            listening_on("127.0.0.1", port=port, last=port + 9),
            pytest.raises(OSError, match="in use"),
        ):
            early.listen()
        early.listen()
        with listening_on("127.0.0.1", port=port, last=port + 9) as moved:
            assert int(moved[0].split()[1]) > port


def test_ports_that_are_all_taken_are_an_error() -> None:
    with listening_on("127.0.0.1") as first:
        port = int(first[0].split()[1])
        with (
            pytest.raises(SettingsError, match=rf"^X_PORT: .*, got {port} \(address already"),
            listening_on("127.0.0.1", port=port, last=port),
        ):
            pass


def test_a_port_that_is_named_is_never_replaced() -> None:
    named = read_address(Reader({"X_PORT": "80"}), "X", 80, last_port=90)
    assert named == Address("X", ("127.0.0.1",), 80)
    assert read_address(Reader({"X_PORT": ""}), "X", 80, last_port=90).last_port == 90


@pytest.mark.parametrize("host", ["a b", "http://a", "u@a", "a,,b", ",", "[]"])
def test_what_is_no_host_at_all_is_refused_before_anybody_listens(host: str) -> None:
    with pytest.raises(SettingsError, match="TEST_HOST: expected addresses of this machine"):
        read_address(Reader({"TEST_HOST": host}), "TEST", 0)
