"""Facts about what is hidden in what is told of failures, and what is left to be read."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pytest
from yarl import URL

from shared.settings.secret import Secret
from worker.masking import MASK, Mask, Masks

TOKEN: Final = "t0ken-of-acme-42"


def hidden(text: str, environ: dict[str, str] | None = None, **settings: Any) -> str:
    return Masks(environ or {}).of("org_a", settings).hide(text)


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"anything": Secret("hunter2")}, "hunter2"),
        ({"api_key": "hunter22"}, "hunter22"),
        ({"erp": {"password": "hunter22"}}, "hunter22"),
        ({"erp": [{"token": "hunter22"}]}, "hunter22"),
        ({"login": "a1b2c3d4e5f6a7b8"}, "a1b2c3d4e5f6a7b8"),
        ({"url": "https://acme:hunter22@erp.example/x"}, "hunter22"),
    ],
)
def test_a_secret_of_the_settings_is_hidden(settings: dict[str, Any], secret: str) -> None:
    assert hidden(f"refused: {secret}", **settings) == "refused: ***"


@pytest.mark.parametrize(
    ("name", "text", "secret"),
    [
        ("ACME_TOKEN", TOKEN, TOKEN),
        ("DB_PASSWORD", "long enough", "long enough"),
        ("AWS_SECRET_ACCESS_KEY", "/bPxRfiCYEXAMPLE7MDENG", "/bPxRfiCYEXAMPLE7MDENG"),
        ("SENTRY_DSN", "https://public@sentry.example/1", "https://public@sentry.example/1"),
        ("DATABASE_URL", "postgresql://shop:hunter2@db/shop", "hunter2"),
        ("DATABASE_URL", "postgresql://shop:a%2Fbcdefgh@db/shop", "a/bcdefgh"),
        ("DATABASE_URL", "postgresql://db/shop?user=shop&password=a%2Fbcdefgh", "a/bcdefgh"),
        ("DATABASE_URL", "postgresql://db/shop?sslpassword=hunter2&user=shop", "hunter2"),
        ("REDIS_URL", "redis://:primary1@a:6379 rediss://u:primary2@b:6379", "primary1"),
        ("REDIS_URL", "redis://:primary1@a:6379 rediss://u:primary2@b:6379", "primary2"),
        ("REDIS_URL", "redis://a\n unix:///tmp/b?password=primary3\n", "primary3"),
        ("REDIS_URL", "redis://a redis+sentinel://:primary4@s1,s2/main", "primary4"),
        ("ACME_WEBHOOK", "whsec_MTIzNDU2Nzg5MDEyMzQ1Ng==", "whsec_MTIzNDU2Nzg5MDEyMzQ1Ng=="),
    ],
)
def test_a_secret_of_the_environment_is_hidden(name: str, text: str, secret: str) -> None:
    assert hidden(f"<{secret}>", {name: text}) == "<***>"


def test_the_password_in_the_file_of_redis_s_url_is_hidden(tmp_path: Path) -> None:
    file = tmp_path / "redis-url"
    file.write_text("redis://u:primary5@a:6379\n")
    assert hidden("<primary5>", {"REDIS_URL_FILE": str(file)}) == "<***>"
    assert hidden("<primary5>", {"REDIS_URL_FILE": "/nowhere"}) == "<primary5>"


@pytest.mark.parametrize(
    ("environ", "settings", "text"),
    [
        ({}, {"url": "https://erp.example/api"}, "no connection to https://erp.example/api"),
        ({}, {"region": "eu-central"}, "no host in eu-central"),
        ({"ACME_TOKEN": "abc"}, {}, "abc"),
        ({"HOME": "/home/handlers"}, {}, "/home/handlers/hooks.py"),
        ({"PWD": "/builds/shop-7f3a/checkout"}, {}, "/builds/shop-7f3a/checkout/hooks.py"),
        ({"SSL_KEY": "/etc/ssl/private.pem"}, {}, "/etc/ssl/private.pem is missing"),
        ({"API_KEY_FILE": "/run/secrets/api"}, {}, "/run/secrets/api is missing"),
        ({"DATABASE_URL": "postgresql://shop:test@db/shop"}, {}, "tests/latest.py, contest"),
        ({"DATABASE_URL": "postgresql://[/"}, {}, "no address"),
    ],
)
def test_what_is_no_secret_stays(
    environ: dict[str, str], settings: dict[str, Any], text: str
) -> None:
    assert hidden(text, environ, **settings) == text


def test_a_secret_is_hidden_in_the_forms_in_which_it_is_told() -> None:
    mask = Mask(["a/b c'd\"e+f", "line of a key 1\nline of a key 2\n"])
    for said in ("a%2Fb%20c%27d%22e%2Bf", repr("a/b c'd\"e+f"), "line of a key 2"):
        assert mask.hide(f"<{said.strip(chr(39))}>") == "<***>"


@pytest.mark.parametrize(
    "told",
    [
        json.dumps,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        lambda secret: json.dumps(json.dumps(secret))[2:-2],
        lambda secret: repr(json.dumps(secret)),
        lambda secret: repr(secret.encode()),
        quote,
        lambda secret: quote(secret, safe="").lower(),
        quote_plus,
        lambda secret: str(URL("//erp").with_query(key=secret)),
        lambda secret: str(URL.build(scheme="https", host="erp", user="a", password=secret)),
    ],
)
@pytest.mark.parametrize("secret", ["p\"s\\w\xf6rd+12/34=ab c'", "w\xf6rd+1/=", "line 1\nline 2"])
def test_in_whichever_form_it_is_told(told: Callable[[str], str], secret: str) -> None:
    said = Mask([secret]).hide(told(secret))
    assert said.count(MASK) == 1
    assert "rd" not in said
    assert "line" not in said


def test_a_text_of_many_backslashes_takes_no_time() -> None:
    mask, began = Mask(["\\" * 30 + "x", '\\"' * 10]), time.perf_counter()
    assert MASK not in mask.hide("x" + "\\" * 6000)
    assert time.perf_counter() - began < 1


def test_settings_that_have_changed_are_hidden_from_then_on() -> None:
    masks = Masks({})
    before, now = {"token": "before-12345"}, {"token": "now-12345678"}
    text = "before-12345 now-12345678"
    assert masks.of("org_a", before).hide(text) == "*** now-12345678"
    assert masks.of("org_a", now).hide(text) == "before-12345 ***"
    assert masks.of("org_b", before).hide(text) == "*** now-12345678"


def test_of_many_organizations_not_all_are_remembered() -> None:
    masks = Masks({})
    for n in range(2500):
        assert masks.of(f"org_{n}", {"token": f"secret-{n:08}"}).hide(f"secret-{n:08}") == "***"
    assert len(masks._known) <= 1000
