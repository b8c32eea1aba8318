"""Facts about which endpoint at Sellfern is which one here."""

from typing import Any

import pytest

from ingress.management.client import RemoteEndpoint
from ingress.management.matching import (
    MatchError,
    Row,
    is_of,
    next_rotation,
    shown,
    side_by_side,
    the_one,
)
from shared.sellfern.reference import load_default
from tests.ingress_support import endpoints

PUBLIC = "https://hooks.example.com"
FILE = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = ["whsec_a"]

[[endpoint]]
id = "ended"
organization_id = "org_a"
secrets = [{ value = "whsec_e", until = 2020-01-01T00:00:00Z }]

[[endpoint]]
id = "beta"
organization_id = "org_b"
secrets = ["whsec_b"]
"""


def remote(name: str = "acme", **changes: Any) -> RemoteEndpoint:
    fields: dict[str, Any] = {
        "id": f"id_{name}",
        "url": f"{PUBLIC}/webhooks/{name}",
        "events": ["order.updated"],
        "enabled": True,
    }
    return RemoteEndpoint(**{**fields, **changes})


def rows(*remotes: RemoteEndpoint, known: bool = True, **changes: Any) -> list[Row]:
    options: dict[str, Any] = {
        "public_url": PUBLIC,
        "reference": load_default(),
        "rotating": [],
        "now": 1_795_000_000.0,
    }
    known_remotes = remotes if known else None
    return list(side_by_side(endpoints(FILE), "org_a", known_remotes, **{**options, **changes}))


def drift(*remotes: RemoteEndpoint, **changes: Any) -> dict[str | None, tuple[str, ...]]:
    return {row.endpoint: row.drift for row in rows(*remotes, **changes)}


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://h/webhooks/acme", True),
        ("https://h/webhooks/acme?rotation=2", True),
        ("https://h/prefix/webhooks/acme", True),
        ("https://h/webhooks/acme2", False),
        ("https://h/webhooks/acme/", False),
        ("https://h/?x=/webhooks/acme", False),
        ("https://[h/webhooks/acme", False),
    ],
)
def test_an_endpoint_is_known_by_the_path_of_its_url(url: str, *, same: bool) -> None:
    assert is_of(url, "acme") is same


def test_what_is_the_same_on_both_sides_has_no_drift() -> None:
    assert drift(remote())["acme"] == ()


def test_every_drift_is_named() -> None:
    found = drift(
        remote(url="https://old.example.com/webhooks/acme", enabled=False, events=["x.y", "z.z"]),
        remote("stranger"),
    )
    assert found == {
        "acme": ("disabled", "another address", "unavailable events: x.y z.z"),
        "ended": ("no active secret", "not at Sellfern"),
        None: ("not in the endpoints file",),
    }
    assert "another address" not in drift(remote(url="https://o/webhooks/acme"), public_url=None)


def test_another_organizations_endpoints_are_not_listed() -> None:
    assert "beta" not in drift(remote())
    assert "beta" not in drift(known=False)


def test_where_sellfern_can_t_be_asked_nothing_is_said_of_it() -> None:
    assert drift(known=False) == {"acme": (), "ended": ("no active secret",)}


def test_two_registrations_are_a_rotation_or_a_mistake() -> None:
    both = remote(), remote(id="second", url=f"{PUBLIC}/webhooks/acme?rotation=2")
    assert [row.drift for row in rows(*both)[:2]] == [("registered more than once",)] * 2
    assert [row.drift for row in rows(*both, rotating=["acme"])[:2]] == [("rotating",)] * 2


def test_a_row_is_shown_with_all_that_is_known() -> None:
    first, ended = rows(remote())
    assert shown(first, "org_a") == {
        "endpoint": "acme",
        "organization": "org_a",
        "remote_id": "id_acme",
        "url": f"{PUBLIC}/webhooks/acme",
        "enabled": True,
        "events": ["order.updated"],
        "drift": "",
    }
    assert shown(ended, "org_a")["remote_id"] is None


def test_the_one_is_found_or_the_message_says_what_there_is() -> None:
    second = remote(id="second", url=f"{PUBLIC}/webhooks/acme?rotation=2")
    assert the_one([remote(), remote("beta")], "acme", None) == remote()
    assert the_one([remote(), second], "acme", "second") == second
    with pytest.raises(MatchError, match=r"got 2: id_acme .* second .*rotate --abort"):
        the_one([remote(), second], "acme", None)
    with pytest.raises(MatchError, match=r"got none with a URL that ends in /webhooks/acme$"):
        the_one([remote("beta")], "acme", None)
    with pytest.raises(MatchError, match=r"and the id id_beta$"):
        the_one([remote(), remote("beta")], "acme", "id_beta")


@pytest.mark.parametrize(
    ("urls", "following"),
    [
        (["https://h/webhooks/a"], "https://h/webhooks/a?rotation=2"),
        (["https://h/webhooks/a?rotation=7"], "https://h/webhooks/a?rotation=8"),
        (
            ["https://h/webhooks/a", "https://h/webhooks/a?rotation=3", "https://i/webhooks/a"],
            "https://h/webhooks/a?rotation=4",
        ),
        (["https://h/webhooks/a?x=%20"], "https://h/webhooks/a?x=+&rotation=2"),
        (["https://h/webhooks/a?rotation=x"], "https://h/webhooks/a?rotation=2"),
        (["https://h/webhooks/a?rotation=99999999999"], "https://h/webhooks/a?rotation=2"),
    ],
)
def test_the_next_registration_has_the_same_url_under_a_new_number(
    urls: list[str], following: str
) -> None:
    remotes = [remote(url=url) for url in urls]
    assert next_rotation(remotes, remotes[0]) == following
