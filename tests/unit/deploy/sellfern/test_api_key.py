"""Facts about API keys: whose each is, and how often it may ask."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from deploy.sellfern.answer import Refused
from deploy.sellfern.api_key import MANAGE, ApiKey, ApiKeys, Quota, parse_api_key
from shared.settings.secret import Secret
from tests.unit.deploy.sellfern.hand_clock import HandClock


def headers(*keys: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("X-Api-Key", key) for key in keys]))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sk_1:org_a", ApiKey(Secret("sk_1"), "org_a", frozenset({MANAGE}))),
        ("sk_1:org_a:", ApiKey(Secret("sk_1"), "org_a", frozenset())),
        (
            "sk_1:org_a:webhooks:manage,orders:read",
            ApiKey(Secret("sk_1"), "org_a", frozenset({MANAGE, "orders:read"})),
        ),
    ],
)
def test_a_key_is_read_with_its_organization_and_scopes(text: str, key: ApiKey) -> None:
    assert parse_api_key(text) == key


@pytest.mark.parametrize(
    "text",
    ["", "sk_1", "sk_1:", ":org_a", "sk 1:org_a", "sk_1:org/a", "sk_1:org_a:Scope", "sk_ü:org_a"],
)
def test_a_key_in_another_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected KEY:ORGANIZATION") as refused:
        parse_api_key(text)
    assert "sk_1" not in str(refused.value)


def test_a_key_shows_its_beginning_only_if_it_is_long() -> None:
    assert parse_api_key("sk_test_1234:org_a").masked == "sk_t…"
    assert parse_api_key("sk_test_123:org_a").masked == "…"


def test_a_key_is_there_once() -> None:
    with pytest.raises(ValueError, match="each key once"):
        ApiKeys([parse_api_key("sk_1:org_a"), parse_api_key("sk_1:org_b")])


def test_two_keys_of_one_organization_make_one_organization() -> None:
    keys = ApiKeys(map(parse_api_key, ["sk_1:org_b", "sk_2:org_a", "sk_3:org_b"]))
    assert keys.organizations == ("org_b", "org_a")
    assert keys.authenticate(headers("sk_3")).organization == "org_b"


@pytest.mark.parametrize("given", [(), ("sk_2",), ("",), ("sk_1", "sk_1")])
def test_no_key_an_unknown_one_and_two_are_unauthorized(given: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as refused:
        ApiKeys([parse_api_key("sk_1:org_a")]).authenticate(headers(*given))
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


def test_a_missing_scope_is_named() -> None:
    with pytest.raises(Refused) as refused:
        parse_api_key("sk_1:org_a:orders:read").require(MANAGE)
    assert (refused.value.status, refused.value.code) == (403, "missing_scope")
    assert refused.value.details == {"required_scope": MANAGE}


def test_one_request_too_many_is_told_when_to_come_again() -> None:
    clock = HandClock()
    quota = Quota(2, clock)
    quota.take("k")
    quota.take("k")
    with pytest.raises(Refused) as refused:
        quota.take("k")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    assert refused.value.headers == {"Retry-After": "1"}
    quota.take("another key")


def test_who_comes_again_in_time_is_let_in() -> None:
    clock = HandClock()
    quota = Quota(1, clock)
    quota.take("k")
    clock.now += 0.999
    with pytest.raises(Refused):
        quota.take("k")
    clock.now += 0.001
    quota.take("k")


def test_without_a_limit_nobody_is_refused() -> None:
    quota = Quota(None, HandClock())
    for _ in range(1000):
        quota.take("k")
