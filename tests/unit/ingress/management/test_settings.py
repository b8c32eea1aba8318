"""Facts about the settings of the management commands."""

from pathlib import Path

import pytest

from ingress.management.settings import ManagementSettings, api_key, base_url
from shared.errors import SettingsError
from shared.settings.secret import Secret

KEY = "sk_live_a_secret_one"


def test_without_any_setting_the_journal_is_beside_the_endpoints_file() -> None:
    settings = ManagementSettings.from_environ({"ENDPOINTS_FILE": "conf/endpoints.toml"})
    assert settings.api_url == "https://api.sellfern.com"
    assert settings.journal == Path("conf/.sellfern/journal.json")
    assert settings.public_url is None
    assert settings.admin_url == "http://127.0.0.1:9101"
    assert settings.persistence.deadline == 60
    assert settings.persistence.timeout == 15


def test_settings_say_otherwise() -> None:
    settings = ManagementSettings.from_environ(
        {
            "SELLFERN_API_URL": "http://localhost:8090/",
            "SELLFERN_STATE_DIR": "/var/lib/sellfern",
            "INGRESS_PUBLIC_URL": "https://hooks.example.com/in/",
            "SELLFERN_DEADLINE": "5s",
            "SELLFERN_TIMEOUT": "100ms",
        }
    )
    assert settings.api_url == "http://localhost:8090"
    assert settings.journal == Path("/var/lib/sellfern/journal.json")
    assert settings.public_url == "https://hooks.example.com/in"
    assert (settings.persistence.deadline, settings.persistence.timeout) == (5, 0.1)


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("0.0.0.0", "9000", "http://127.0.0.1:9000"),  # noqa: S104  # a setting; nothing is bound
        ("::", "9000", "http://[::1]:9000"),
        ("fd00::1", "9000", "http://[fd00::1]:9000"),
        ("ingress", "9000", "http://ingress:9000"),
        ("127.0.0.1", "0", None),
    ],
)
def test_the_admin_site_is_where_this_machine_reaches_it(
    host: str, port: str, url: str | None
) -> None:
    environ = {"INGRESS_ADMIN_HOST": host, "INGRESS_ADMIN_PORT": port}
    assert ManagementSettings.from_environ(environ).admin_url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://api.sellfern.com",
        "http://localhost:1",
        "http://127.0.0.1",
        "http://[::1]:80",
        "http://10.0.0.7",
        "http://sellfern:8090",
    ],
)
def test_a_key_crosses_only_this_network_in_the_clear(url: str) -> None:
    assert base_url("X", url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.sellfern.com",
        "http://8.8.8.8",
        "ftp://localhost",
        "https://",
        "https://user@host",
        f"https://:{KEY}@host",
        "https://host?x=1",
        "https://host#x",
        "https://host/a b",
        "https://h\u00f6st",
        "https://[host",
        "https://host:x",
        "host",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        base_url("SELLFERN_API_URL", url)
    assert str(caught.value).startswith("SELLFERN_API_URL: expected https://host[:port][/path]")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", ["https://host/\n", '"https://host/"', " https://host"])
def test_quotes_and_blanks_around_a_url_are_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        base_url("X", url)
    assert str(caught.value) == f"X: expected no quotes or blanks around it, got {url!r}"


def test_a_url_with_a_secret_in_it_is_not_shown_for_its_quotes() -> None:
    with pytest.raises(SettingsError) as caught:
        base_url("X", f'"https://:{KEY}@host"')
    assert KEY not in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_key_is_in_the_environment_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert api_key({"SELLFERN_API_KEY": KEY}) == Secret(KEY)
    assert api_key({"SELLFERN_API_KEY_FILE": str(file)}) == Secret(KEY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "SELLFERN_API_KEY_FILE: expected a readable file.*No such file"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "not UTF-8"),
        (b"short", "SELLFERN_API_KEY_FILE: expected 8 to 256 printable"),
        (f"{KEY} {KEY}".encode(), "8 to 256 printable"),
        (f'{KEY}"'.encode(), "8 to 256 printable"),
    ],
)
def test_a_key_that_is_none_is_refused_and_never_shown(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        api_key({"SELLFERN_API_KEY_FILE": str(file)})
    assert KEY not in str(caught.value)


def test_no_key_or_two_keys_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"SELLFERN_API_KEY: expected an API key.*got nothing"):
        api_key({})
    with pytest.raises(SettingsError, match="got both") as caught:
        api_key({"SELLFERN_API_KEY": KEY, "SELLFERN_API_KEY_FILE": "x"})
    assert KEY not in str(caught.value)
