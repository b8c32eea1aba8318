"""Facts about the console's settings."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.program.listening import Address
from shared.settings.reader import Reader
from worker.operate.console.settings import ConsoleSettings, is_loopback

EVERYWHERE = "0.0.0.0"  # noqa: S104  # what the token is for
TOKEN = "0123456789abcdef"


def test_the_console_is_for_this_machine_unless_told_otherwise() -> None:
    settings = ConsoleSettings.from_mapping({})
    assert settings.address == Address("CONSOLE", ("127.0.0.1",), 9200)
    assert settings.is_loopback
    assert not settings.token
    assert not settings.show_payloads
    assert settings.dedupe_retention == 7 * 86_400


@pytest.mark.parametrize(
    "host", [EVERYWHERE, "::", "10.1.2.3", "console.example", "127.0.0.1.nip", "127.0.0.1,10.1.2.3"]
)
def test_beyond_this_machine_a_token_is_required(host: str) -> None:
    with pytest.raises(SettingsError, match="CONSOLE_TOKEN: expected a token of at least 16"):
        ConsoleSettings.from_mapping({"CONSOLE_HOST": host})
    settings = ConsoleSettings.from_mapping({"CONSOLE_HOST": host, "CONSOLE_TOKEN": TOKEN})
    assert not settings.is_loopback


def test_a_short_token_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        ConsoleSettings.from_mapping({"CONSOLE_TOKEN": TOKEN[:-1]})
    assert str(caught.value) == "CONSOLE_TOKEN: expected at least 16 characters, got 15 of them"


def test_a_token_to_look_is_another_one_and_enough_beyond_this_machine() -> None:
    settings = ConsoleSettings.from_mapping(
        {"CONSOLE_HOST": "10.0.0.1", "CONSOLE_READ_TOKEN": TOKEN}
    )
    assert settings.asks
    assert not settings.token
    assert TOKEN not in repr(settings)
    for given, expected in (
        (TOKEN, "CONSOLE_READ_TOKEN: expected another token than CONSOLE_TOKEN's, got the same"),
        ("short", "CONSOLE_READ_TOKEN: expected at least 16 characters, got 5 of them"),
    ):
        with pytest.raises(SettingsError) as caught:
            ConsoleSettings.from_mapping({"CONSOLE_TOKEN": TOKEN, "CONSOLE_READ_TOKEN": given})
        assert str(caught.value) == expected


def test_a_token_that_is_none_is_not_called_missing_as_well() -> None:
    with pytest.raises(SettingsError) as caught:
        ConsoleSettings.from_mapping({"CONSOLE_HOST": "10.0.0.1", "CONSOLE_TOKEN": "${TOKEN}"})
    assert str(caught.value) == (
        "CONSOLE_TOKEN: expected a secret, got a template that nobody has filled in"
    )


def test_a_token_is_in_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "other").write_text(f"{TOKEN}-to-read")
    names = {"CONSOLE_TOKEN_FILE": "token", "CONSOLE_READ_TOKEN_FILE": "other"}
    reader = Reader({name: str(tmp_path / file) for name, file in names.items()})
    settings = ConsoleSettings.from_reader(reader)
    assert settings.token.reveal() == TOKEN
    assert settings.read_token.reveal() == f"{TOKEN}-to-read"
    assert reader.shown["CONSOLE_TOKEN_FILE"] == str(tmp_path / "token")


@pytest.mark.parametrize(
    ("content", "beside", "said"),
    [
        (
            None,
            {},
            "CONSOLE_TOKEN_FILE: expected a readable file, got {} (No such file or directory)",
        ),
        ("", {}, "CONSOLE_TOKEN_FILE: expected a secret that isn't empty, got nothing in {}"),
        ("a\nb", {}, "CONSOLE_TOKEN_FILE: expected the secret alone, got several lines in {}"),
        ("short", {}, "CONSOLE_TOKEN_FILE: expected at least 16 characters, got 5 of them"),
        ("\udcff", {}, "CONSOLE_TOKEN_FILE: expected a secret, got {} (not UTF-8)"),
        (
            TOKEN,
            {"CONSOLE_TOKEN": TOKEN},
            "CONSOLE_TOKEN: expected either CONSOLE_TOKEN or CONSOLE_TOKEN_FILE, got both",
        ),
    ],
)
def test_a_file_without_a_token_lets_nobody_in(
    tmp_path: Path, content: str | None, beside: dict[str, str], said: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    environ = {"CONSOLE_HOST": "10.0.0.1", "CONSOLE_TOKEN_FILE": str(file), **beside}
    with pytest.raises(SettingsError) as caught:
        ConsoleSettings.from_mapping(environ)
    assert str(caught.value) == said.format(file)


def test_what_stands_around_a_token_is_no_part_of_it() -> None:
    settings = ConsoleSettings.from_mapping({"CONSOLE_TOKEN": f" {TOKEN}\r\n"})
    assert settings.token.reveal() == TOKEN


def test_a_token_does_not_show() -> None:
    settings = ConsoleSettings.from_mapping({"CONSOLE_TOKEN": TOKEN})
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("", False),
        ("localhost.example", False),
        (EVERYWHERE, False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, expected: bool) -> None:  # noqa: FBT001
    assert is_loopback(host) is expected
