"""Facts about the settings of the ingress."""

import pytest

from ingress.settings import IngressSettings, Limits
from shared.errors import SettingsError
from shared.program.listening import Address
from shared.queue.writer import BacklogLimits
from shared.redis.durability import Durability, Mode

MIB = 1024 * 1024


def test_nothing_needs_to_be_set() -> None:
    settings = IngressSettings.from_environ({})
    assert settings.address == Address("INGRESS", ("127.0.0.1",), 8080)
    assert settings.admin == Address("INGRESS_ADMIN", ("127.0.0.1",), 9101)
    assert settings.durability == Durability(Mode.FSYNC, replicas=1, timeout=2.0, asserted=False)
    assert settings.backlog == BacklogLimits(1_000_000, 250_000)
    assert settings.limits == Limits()
    assert (settings.drain_delay, settings.drain_seconds) == (0.2, 25.0)


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({}, BacklogLimits(62_500, 15_625)),
        ({"MAX_BACKLOG": "100"}, BacklogLimits(7, 1)),
        ({"MAX_ORGANIZATION_BACKLOG": "62500"}, BacklogLimits(62_500, 62_500)),
        ({"MAX_BACKLOG": "0"}, BacklogLimits(0, 0)),
        ({"MAX_BACKLOG": "0", "MAX_ORGANIZATION_BACKLOG": "9"}, BacklogLimits(0, 9)),
    ],
)
def test_each_partition_has_its_part_of_the_backlog(
    environ: dict[str, str], limits: BacklogLimits
) -> None:
    settings = IngressSettings.from_environ({**environ, "PARTITIONS": "16"})
    assert settings.backlog == limits


def test_each_primary_promises_what_its_kind_can() -> None:
    urls = "redis://a redis+sentinel://b,c/main"
    settings = IngressSettings.from_environ({"REDIS_URL": urls, "WAIT_REPLICAS": "2"})
    found = [settings.durability_at(url) for url in settings.common.redis_urls]
    assert [each.needed_replicas for each in found] == [0, 2]


def test_every_setting_is_read() -> None:
    settings = IngressSettings.from_environ(
        {
            "REDIS_URL": "redis://redis.example:6380/1",
            "INGRESS_HOST": "0.0.0.0, ::",
            "INGRESS_PORT": "0",
            "INGRESS_ADMIN_HOST": "::1",
            "INGRESS_ADMIN_PORT": "0",
            "DURABILITY": "REPLICA",
            "WAIT_REPLICAS": "2",
            "DURABILITY_TIMEOUT": "300ms",
            "DURABILITY_ASSERTED": "yes",
            "MAX_BODY_BYTES": "2048",
            "MAX_BYTES_IN_FLIGHT": "8192",
            "MAX_HEADER_BYTES": "16384",
            "MAX_CONNECTIONS": "7",
            "TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,,::1",
            "HEADER_TIMEOUT": "1s",
            "BODY_TIMEOUT": "2s",
            "KEEPALIVE_TIMEOUT": "3s",
            "MAX_BACKLOG": "10",
            "MAX_ORGANIZATION_BACKLOG": "5",
            "DRAIN_DELAY": "0ms",
            "DRAIN_SECONDS": "4s",
        }
    )
    assert str(settings.common.redis_url) == "redis://redis.example:6380/1"
    assert settings.address == Address("INGRESS", ("0.0.0.0", "::"), 0)  # noqa: S104  # an example
    assert settings.admin == Address("INGRESS_ADMIN", ("::1",), 0)
    said = Durability(Mode.REPLICA, replicas=2, timeout=0.3, asserted=True, is_said=True)
    assert settings.durability == said
    assert settings.limits == Limits(2048, 8192, 7, 1.0, 2.0, 3.0, 16384)
    assert [str(each) for each in settings.trusted_proxies] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "::1/128",
    ]
    assert settings.backlog == BacklogLimits(10, 5)
    assert (settings.drain_delay, settings.drain_seconds) == (0.0, 4.0)


def test_sentinels_in_the_url_mean_that_a_replica_may_become_the_primary() -> None:
    settings = IngressSettings.from_environ({"REDIS_URL": "rediss+sentinel://s0,s1/sellfern"})
    assert settings.durability == Durability(Mode.FSYNC, fails_over=True)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"MAX_HEADER_BYTES": "65537"},
            "MAX_HEADER_BYTES: expected a whole number from 1024 to 65536, got '65537'",
        ),
        (
            {"TRUSTED_PROXIES": "10.0.0.0/8,proxy.example"},
            (
                "TRUSTED_PROXIES: expected addresses and networks, such as 10.0.0.0/8,192.0.2.1, "
                "got "
                "'proxy.example' ('proxy.example' does not appear to be an IPv4 or IPv6 network)"
            ),
        ),
        (
            {"TRUSTED_PROXIES": "10.0.0.1/8"},
            (
                "TRUSTED_PROXIES: expected addresses and networks, such as 10.0.0.0/8,192.0.2.1, "
                "got "
                "'10.0.0.1/8' (10.0.0.1/8 has host bits set)"
            ),
        ),
        (
            {"INGRESS_PORT": "http"},
            "INGRESS_PORT: expected a port from 0 to 65535, got 'http'",
        ),
        (
            {"DURABILITY": "disk"},
            "DURABILITY: expected one of fsync, replica, memory, got 'disk'",
        ),
        (
            {"DURABILITY_TIMEOUT": "1m"},
            "DURABILITY_TIMEOUT: expected less than Redis has for a reply (3s), got 1m",
        ),
        (
            {"MAX_BODY_BYTES": "1023"},
            "MAX_BODY_BYTES: expected a whole number from 1024 to 16777216, got '1023'",
        ),
        (
            {"MAX_BODY_BYTES": "1e6"},
            "MAX_BODY_BYTES: expected a whole number from 1024 to 16777216, got '1e6'",
        ),
        (
            {"MAX_BODY_BYTES": "4096", "MAX_BYTES_IN_FLIGHT": "16383"},
            "MAX_BYTES_IN_FLIGHT: expected at least 4 times MAX_BODY_BYTES (16384), got 16383",
        ),
        (
            {"MAX_CONNECTIONS": "0"},
            "MAX_CONNECTIONS: expected a whole number of at least 1, got '0'",
        ),
        (
            {"MAX_BACKLOG": "8", "MAX_ORGANIZATION_BACKLOG": "9"},
            "MAX_ORGANIZATION_BACKLOG: expected at most MAX_BACKLOG (8), got 9",
        ),
        (
            {"MAX_BACKLOG": "30", "MAX_ORGANIZATION_BACKLOG": "9", "PARTITIONS": "4"},
            (
                "MAX_ORGANIZATION_BACKLOG: expected at most MAX_BACKLOG (30), "
                "divided by PARTITIONS (8), got 9"
            ),
        ),
        (
            {"DRAIN_SECONDS": "999ms"},
            (
                "DRAIN_SECONDS: expected a duration from 1s to 1h "
                "(such as 200ms, 30s, 5m, 2h or 7d), got '999ms'"
            ),
        ),
    ],
)
def test_a_setting_that_cannot_be_says_what_was_expected(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        IngressSettings.from_environ(environ)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "environ",
    [
        {"MAX_BODY_BYTES": "x", "MAX_BYTES_IN_FLIGHT": "2048"},
        {"MAX_BACKLOG": "x", "MAX_ORGANIZATION_BACKLOG": "999999999"},
    ],
)
def test_what_is_wrong_is_not_held_against_what_is_right(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        IngressSettings.from_environ(environ)
    assert [error.got for error in caught.value.errors] == ["'x'"]


@pytest.mark.parametrize("name", ["HEADER_TIMEOUT", "BODY_TIMEOUT", "KEEPALIVE_TIMEOUT"])
def test_no_client_has_for_ever(name: str) -> None:
    for text in ("0s", "30d", "never"):
        with pytest.raises(SettingsError, match=f"{name}: expected a duration from"):
            IngressSettings.from_environ({name: text})


def test_an_organization_may_fill_a_quarter_of_the_backlog_unless_it_is_set() -> None:
    assert IngressSettings.from_environ({"MAX_BACKLOG": "100"}).backlog == BacklogLimits(100, 25)


def test_without_a_limit_for_all_one_organization_may_have_one() -> None:
    environ = {"MAX_BACKLOG": "0", "MAX_ORGANIZATION_BACKLOG": "9"}
    assert IngressSettings.from_environ(environ).backlog == BacklogLimits(0, 9)
    assert IngressSettings.from_environ({"MAX_BACKLOG": "0"}).backlog == BacklogLimits(0, 0)
