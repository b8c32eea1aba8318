"""Where Redis is, as it is set: by a text, or by a file."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader
from shared.settings.redis_url import RedisUrl, UrlFile

PASSWORD = "hunter2"
URL = f"redis://ingress:{PASSWORD}@h:1/2"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "redis-url"


def read(file: Path, **beside: str) -> CommonSettings:
    return CommonSettings.from_environ({"REDIS_URL_FILE": str(file), **beside})


@pytest.mark.parametrize("text", [URL, f"{URL}\n", f"\ufeff{URL}\r\n"])
def test_a_file_holds_what_the_setting_would(file: Path, text: str) -> None:
    file.write_text(text)
    found = read(file).redis_url
    assert found == RedisUrl(URL)
    assert found.file == UrlFile(file, "REDIS_URL_FILE")


def test_a_file_may_hold_several_primaries_each_on_its_line(file: Path) -> None:
    file.write_text(f"{URL}\nredis://another\n")
    found = read(file).redis_urls
    assert found == (RedisUrl(URL), RedisUrl("redis://another"))
    assert [each.file for each in found] == [
        UrlFile(file, "REDIS_URL_FILE", number, 2) for number in (0, 1)
    ]


def test_the_redis_that_organizations_leave_has_a_file_too(file: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    file.write_text(URL)
    before.write_text("redis://before")
    found = read(file, REDIS_URL_BEFORE_FILE=str(before), PARTITIONS="4")
    assert found.redis_url_before == RedisUrl("redis://before")
    before.write_text("redis://before\nredis://after")
    with pytest.raises(SettingsError) as caught:
        read(file, REDIS_URL_BEFORE_FILE=str(before), PARTITIONS="4")
    assert str(caught.value) == f"REDIS_URL_BEFORE_FILE: expected one URL, got 2 in {before}"


@pytest.mark.parametrize(
    ("content", "expected", "got"),
    [
        (b"", "redis://", "something else in {}"),
        (PASSWORD.encode(), "redis://", "something else in {}"),
        (f"redis://u:{PASSWORD}\nx@h".encode(), "redis://", "redis://… in {}"),
        (f"'{URL}'".encode(), "no quotes", "\"'redis://ingress:***@h:1/2'\" in {}"),
        (URL.encode("utf-16"), "redis://", "{} (UTF-16, not UTF-8)"),
        (b"\xff", "redis://", "{} (not UTF-8)"),
        (f"{URL}\n{URL}".encode(), "each primary once", "redis://ingress:***@h:1/2 twice in {}"),
        (None, "a readable file", "{} (No such file or directory)"),
    ],
)
def test_a_wrong_file_is_told_without_what_is_in_it(
    file: Path, content: bytes | None, expected: str, got: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read(file)
    said = str(caught.value)
    assert said.startswith(f"REDIS_URL_FILE: expected {expected}")
    assert said.endswith(f", got {got.format(file)}")
    assert PASSWORD not in said


def test_a_name_that_no_path_can_have_is_told() -> None:
    with pytest.raises(
        SettingsError, match=r"expected a readable file, got a\x00b \(not a path\)$"
    ):
        CommonSettings.from_environ({"REDIS_URL_FILE": "a\0b"})


def test_whoever_sets_both_may_mean_either(file: Path) -> None:
    file.write_text(URL)
    with pytest.raises(SettingsError) as caught:
        read(file, REDIS_URL=URL)
    expected = "either REDIS_URL or REDIS_URL_FILE"
    assert str(caught.value) == f"REDIS_URL: expected {expected}, got both"


def test_what_is_shown_of_a_file_is_its_name_and_the_url_without_its_password(file: Path) -> None:
    file.write_text(URL)
    reader = Reader({"REDIS_URL_FILE": str(file)})
    CommonSettings.from_reader(reader)
    assert reader.shown["REDIS_URL_FILE"] == str(file)
    assert reader.shown["REDIS_URL"] == "redis://ingress:***@h:1/2"
