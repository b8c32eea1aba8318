"""Facts about whose request it is, as trusted proxies tell it."""

from ipaddress import ip_network
from unittest.mock import Mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from ingress.clients import client_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")]


def request(peer: str | None, *headers: tuple[str, str]) -> web.BaseRequest:
    transport = Mock()
    transport.get_extra_info = lambda name, _=None: (peer, 1) if name == "peername" else None
    return make_mocked_request("POST", "/", CIMultiDict(headers), transport=transport)


def listed(peer: str, *values: str) -> str | None:
    return client_address(request(peer, *(("X-Forwarded-For", each) for each in values)), TRUSTED)


def forwarded(peer: str, *values: str) -> str | None:
    return client_address(request(peer, *(("Forwarded", each) for each in values)), TRUSTED)


def test_who_is_no_trusted_proxy_is_the_client_whatever_it_says() -> None:
    assert listed("192.0.2.9", "203.0.113.5") == "192.0.2.9"
    assert forwarded("192.0.2.9", "for=203.0.113.5") == "192.0.2.9"
    sent = request("10.0.0.1", ("X-Forwarded-For", "203.0.113.5"))
    assert client_address(sent, []) == "10.0.0.1"


def test_a_client_has_one_name_whichever_family_the_socket_is_of() -> None:
    assert client_address(request("::ffff:192.0.2.9"), []) == "192.0.2.9"
    assert client_address(request("::ffff:10.0.0.1"), TRUSTED) == "10.0.0.1"
    assert client_address(request("fe80::1%eth0"), TRUSTED) == "fe80::1%eth0"


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["203.0.113.5"], "203.0.113.5"),
        (["6.6.6.6, 203.0.113.5"], "203.0.113.5"),  # the first one is what the client made up
        (["6.6.6.6", "203.0.113.5,10.1.1.1 "], "203.0.113.5"),
        (["10.2.2.2,10.1.1.1"], "10.2.2.2"),
        (["203.0.113.5:4711"], "203.0.113.5"),
        (["[2001:db8::7]:4711, 2001:db8:1::9"], "2001:db8::7"),
        (["::ffff:203.0.113.5"], "203.0.113.5"),
        (["203.0.113.5, unknown"], "10.0.0.1"),
        (["203.0.113.5, fe80::1%evil"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([","], "10.0.0.1"),
    ],
)
def test_it_is_the_last_one_that_is_not_trusted(values: list[str], client: str) -> None:
    assert listed("10.0.0.1", *values) == client


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=203.0.113.5"], "203.0.113.5"),
        (['For="203.0.113.5:80";proto=https, for=10.1.1.1'], "203.0.113.5"),
        (['proto=https;by=10.9.9.9;for="[2001:db8::7]:4711"'], "2001:db8::7"),
        (["for=6.6.6.6", "by=10.9.9.9;for=203.0.113.5"], "203.0.113.5"),
        (["for=203.0.113.5, for=_hidden"], "10.0.0.1"),
        (["for=unknown"], "10.0.0.1"),
        (["proto=https"], "10.0.0.1"),
    ],
)
def test_the_standard_header_says_the_same(values: list[str], client: str) -> None:
    assert forwarded("10.0.0.1", *values) == client


def test_two_headers_that_contradict_each_other_say_nothing() -> None:
    agreed = (("Forwarded", "for=203.0.113.5"), ("X-Forwarded-For", "203.0.113.5"))
    assert client_address(request("10.0.0.1", *agreed), TRUSTED) == "203.0.113.5"
    forged = (("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "203.0.113.5"))
    assert client_address(request("10.0.0.1", *forged), TRUSTED) == "10.0.0.1"


def test_a_client_of_no_address_has_none() -> None:
    assert client_address(request(None, ("X-Forwarded-For", "203.0.113.5")), TRUSTED) in (
        None,
        "None",
    )


@given(st.text(), st.sampled_from(["Forwarded", "X-Forwarded-For"]))
def test_whatever_is_said_it_is_an_address(value: str, name: str) -> None:
    found = client_address(request("10.0.0.1", (name, value)), TRUSTED)
    assert found is not None
    ip_network(found)


def test_a_list_without_end_is_read_from_its_end() -> None:
    assert listed("10.0.0.1", "6.6.6.6," * 100_000 + "203.0.113.5") == "203.0.113.5"
