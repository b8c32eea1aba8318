"""Settings: what they may say, what they are told when they are wrong, and what they hide."""

import copy
import math
import traceback
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError, SettingsErrors
from shared.settings.config import CommonSettings
from shared.settings.reader import Reader
from shared.settings.redis_url import RedisUrl
from shared.settings.secret import Secret

PASSWORD = "hunter2"
Read = Callable[[Reader], Any]


def read(text: str, reads: Read) -> Any:
    return reads(Reader({"X": text}))


def error(text: str | None, reads: Read) -> str:
    with pytest.raises(SettingsError) as caught:
        reads(Reader({} if text is None else {"X": text}))
    message = str(caught.value)
    assert message.startswith("X: expected ")
    return message.removeprefix("X: expected ")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "expected PARTITIONS over 1, into which its organizations move, got PARTITIONS=1"),
        (
            {"PARTITIONS": "4", "REDIS_URL": "redis://before:6379"},
            "expected another Redis than REDIS_URL, got redis://before:6379",
        ),
    ],
)
def test_organizations_leave_another_redis_for_several_partitions(
    environ: dict[str, str], message: str
) -> None:
    before = {"REDIS_URL_BEFORE": "redis://before:6379"}
    with pytest.raises(SettingsError) as caught:
        CommonSettings.from_environ({**before, **environ})
    assert str(caught.value) == f"REDIS_URL_BEFORE: {message}"
    found = CommonSettings.from_environ({**before, "PARTITIONS": "4"})
    assert found.redis_url_before == RedisUrl("redis://before:6379")
    assert CommonSettings.from_environ({}).redis_url_before is None


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        (lambda r: r.text("X"), "a text"),
        (lambda r: r.text("X", expected="an address"), "an address"),
        (lambda r: r.secret("X"), "a secret"),
        (lambda r: r.integer("X", None), "a whole number"),
        (lambda r: r.port("X", None), "a port from 0 to 65535"),
        (lambda r: r.number("X", None, minimum=0.5), "a number of at least 0.5"),
        (lambda r: r.number("X", None, maximum=2.0), "a number of at most 2.0"),
        (
            lambda r: r.duration("X", None, minimum="1s", maximum="2h"),
            "a duration from 1s to 2h (such as 200ms, 30s, 5m, 2h or 7d)",
        ),
        (lambda r: r.choice("X", ("a", "b"), None), "one of a, b"),
    ],
)
def test_a_setting_without_a_default_must_be_there(reads: Read, expected: str) -> None:
    for text in (None, ""):  # an empty one counts as unset
        assert error(text, reads) == f"{expected}, got nothing"


@pytest.mark.parametrize(
    ("reads", "default"),
    [
        (lambda r: r.text("X", "d"), "d"),
        (lambda r: r.text("X", "d", pattern="[0-9]"), "d"),
        (lambda r: r.secret("X", ""), Secret("")),
        (lambda r: r.integer("X", 5, minimum=6), 5),
        (lambda r: r.port("X", 80), 80),
        (lambda r: r.number("X", 0.5), 0.5),
        (lambda r: r.duration("X", "5m"), 300.0),
        (lambda r: r.choice("X", ("a", "b"), "a"), "a"),
        (lambda r: r.flag("X", default=True), True),
        (lambda r: r.flag("X", default=False), False),
    ],
)
def test_a_setting_that_is_left_out_or_empty_has_its_default(reads: Read, default: object) -> None:
    assert reads(Reader({})) == default
    assert read("", reads) == default


@pytest.mark.parametrize(
    ("text", "reads", "value"),
    [
        ("any thing", lambda r: r.text("X"), "any thing"),
        ("ab", lambda r: r.text("X", pattern="[a-z]+"), "ab"),
        ("s", lambda r: r.secret("X"), Secret("s")),
        ("-12", lambda r: r.integer("X", None), -12),
        ("+12", lambda r: r.integer("X", None), 12),
        ("1", lambda r: r.integer("X", None, minimum=1, maximum=1), 1),
        ("0", lambda r: r.port("X", None), 0),
        ("65535", lambda r: r.port("X", None), 65_535),
        ("1.5e2", lambda r: r.number("X", None), 150.0),
        ("-3", lambda r: r.number("X", None), -3.0),
        ("1s", lambda r: r.duration("X", None, minimum="1s", maximum="1s"), 1.0),
        ("0", lambda r: r.duration("X", "1s"), 0.0),
        ("30", lambda r: r.duration("X", "1s", minimum="30s", maximum="30s"), 30.0),
        ("B", lambda r: r.choice("X", ("a", "b"), "a"), "b"),
    ],
)
def test_a_setting_that_is_right_is_read(text: str, reads: Read, value: object) -> None:
    assert read(text, reads) == value


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_a_yes_is_a_yes_in_any_case(text: str) -> None:
    assert read(text, lambda r: r.flag("X", default=False)) is True


@pytest.mark.parametrize("text", ["0", "false", "NO", "Off"])
def test_a_no_is_a_no_in_any_case(text: str) -> None:
    assert read(text, lambda r: r.flag("X", default=True)) is False


@pytest.mark.parametrize(
    ("text", "reads", "message"),
    [
        ("a1", lambda r: r.text("X", pattern="[a-z]+", expected="letters"), "letters, got 'a1'"),
        ("a\n", lambda r: r.text("X", pattern="a"), "a text, got 'a\\n'"),
        ("1.0", lambda r: r.integer("X", 1), "a whole number, got '1.0'"),
        ("1_0", lambda r: r.integer("X", 1), "a whole number, got '1_0'"),
        (" 1", lambda r: r.integer("X", 1), "a whole number, got ' 1'"),
        ("\u0661", lambda r: r.integer("X", 1), "a whole number, got '\u0661'"),
        ("0", lambda r: r.integer("X", 1, minimum=1), "a whole number of at least 1, got '0'"),
        ("9", lambda r: r.integer("X", 1, maximum=8), "a whole number of at most 8, got '9'"),
        ("65536", lambda r: r.port("X", 1), "a port from 0 to 65535, got '65536'"),
        ("-1", lambda r: r.port("X", 1), "a port from 0 to 65535, got '-1'"),
        ("nan", lambda r: r.number("X", 1), "a number, got 'nan'"),
        ("inf", lambda r: r.number("X", 1), "a number, got 'inf'"),
        ("1e999", lambda r: r.number("X", 1), "a number, got '1e999'"),
        ("0.4", lambda r: r.number("X", 1, minimum=0.5), "a number of at least 0.5, got '0.4'"),
        (
            "30 s",
            lambda r: r.duration("X", "1s"),
            "a duration (such as 200ms, 30s, 5m, 2h or 7d), got '30 s'",
        ),
        (
            "999ms",
            lambda r: r.duration("X", "2s", minimum="1s"),
            "a duration of at least 1s (such as 200ms, 30s, 5m, 2h or 7d), got '999ms'",
        ),
        (
            "61m",
            lambda r: r.duration("X", "2s", maximum="1h"),
            "a duration of at most 1h (such as 200ms, 30s, 5m, 2h or 7d), got '61m'",
        ),
        ("c", lambda r: r.choice("X", ("a", "b"), "a"), "one of a, b, got 'c'"),
        ("maybe", lambda r: r.flag("X", default=True), "true or false, got 'maybe'"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(text: str, reads: Read, message: str) -> None:
    assert error(text, reads) == message


def test_a_wrong_setting_is_shown_as_one_line_of_bounded_length() -> None:
    assert error("\x1b[2J\u202e", lambda r: r.port("X", 1)).endswith(r"got '\x1b[2J\u202e'")
    long = error("x" * 5_000, lambda r: r.port("X", 1))
    assert long.endswith("x…'")
    assert len(long) < 130


@given(st.text(max_size=40))
def test_any_text_is_a_value_within_its_bounds_or_a_settings_error(text: str) -> None:
    def within(value: Any) -> bool:
        return value is None or (math.isfinite(value) and 1 <= value <= 60)

    def attempt(reads: Read) -> Any:
        try:
            return read(text, reads)
        except SettingsError:
            return None

    assert within(attempt(lambda r: r.integer("X", 1, minimum=1, maximum=60)))
    assert within(attempt(lambda r: r.number("X", 1, minimum=1, maximum=60)))
    assert within(attempt(lambda r: r.duration("X", "1s", minimum="1s", maximum="1m")))
    assert attempt(lambda r: r.flag("X", default=True)) in {True, False, None}
    assert attempt(lambda r: r.choice("X", ("a", "b"), "a")) in {"a", "b", None}


@dataclass
class Holder:
    secret: Secret


def test_a_secret_shows_nowhere_but_where_it_is_asked_for() -> None:
    secret = Secret(PASSWORD)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>20}",
        "%s" % secret,  # noqa: UP031  # every way of formatting
        repr(Holder(secret)),
        repr([secret]),
        repr({secret: secret}),
        repr(copy.deepcopy(secret)),
        repr(ValueError(secret)),
        "".join(traceback.format_exception(ValueError(secret))),
        str(dir(secret)),
    ]
    assert PASSWORD not in "".join(shown)
    assert secret.reveal() == PASSWORD
    assert secret.raw == PASSWORD.encode()
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_a_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a")
    assert not Secret("")


def test_a_wrong_secret_is_never_shown() -> None:
    assert Reader({"X": PASSWORD}).secret("X").reveal() == PASSWORD
    assert error("", lambda r: r.secret("X")) == "a secret, got nothing"


def test_what_both_programs_need_has_its_defaults() -> None:
    settings = CommonSettings.from_reader(Reader({}), terminal=False)
    assert settings.redis_url == RedisUrl("redis://127.0.0.1:6379/0")
    assert settings.endpoints_file == Path("endpoints.toml")
    assert (settings.log_level, settings.log_format) == ("info", "json")


def test_what_both_programs_need_is_read() -> None:
    environ = {
        "REDIS_URL": f"redis://:{PASSWORD}@h:1/2",
        "ENDPOINTS_FILE": "/etc/e.toml",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "Console",
    }
    settings = CommonSettings.from_reader(Reader(environ))
    assert settings.redis_url.reveal() == environ["REDIS_URL"]
    assert settings.endpoints_file == Path("/etc/e.toml")
    assert (settings.log_level, settings.log_format) == ("debug", "console")
    assert PASSWORD not in repr(settings)


A, B = "redis://:secret@a:1", "rediss+sentinel://u:secret@b:2,c:3/main/1"


def common(**environ: str) -> CommonSettings:
    return CommonSettings.from_reader(Reader(environ))


def test_a_single_redis_is_not_divided() -> None:
    settings = common(REDIS_URL=A)
    assert (settings.redis_urls, settings.partitions) == ((RedisUrl(A),), 1)
    assert common(REDIS_URL=A, PARTITIONS="256").partitions == 256
    blank = "redis://:a b@h"  # in a password
    assert common(REDIS_URL=blank).redis_urls == (RedisUrl(blank),)


def test_redis_may_be_several_primaries() -> None:
    settings = common(REDIS_URL=f"{A} \n {B}\n")
    assert settings.redis_urls == (RedisUrl(A), RedisUrl(B))
    assert settings.redis_url == RedisUrl(A)
    assert (settings.partitions, settings.partitions_each) == (16, 8)
    assert [settings.url_of(number) for number in (0, 1, 2)] == [*settings.redis_urls, RedisUrl(A)]
    assert common(REDIS_URL=f"{A} {B}", PARTITIONS="3").partitions_each == 2


def test_a_cluster_is_divided_and_any_node_may_have_any_partition() -> None:
    url = "redis+cluster://u:secret@a,b:1"
    settings = common(REDIS_URL=url)
    assert (settings.redis_urls, settings.partitions) == ((RedisUrl(url),), 16)
    assert (settings.in_cluster, settings.clients, settings.partitions_each) == (True, 16, 1)
    assert settings.url_of(7) == RedisUrl(url)
    assert common(REDIS_URL=url, PARTITIONS="1").clients == 1
    assert [common(REDIS_URL=each).clients for each in (A, f"{A} {B}")] == [1, 2]


def test_every_primary_has_a_partition() -> None:
    many = " ".join(f"redis://h{number}" for number in range(20))
    assert common(REDIS_URL=many).partitions == 20


def test_several_primaries_are_shown_without_their_passwords() -> None:
    reader = Reader({"REDIS_URL": f"{A} {B}"})
    CommonSettings.from_reader(reader)
    assert reader.shown["REDIS_URL"] == ("redis://:***@a:1 rediss+sentinel://u:***@b:2,c:3/main/1")
    assert reader.shown["PARTITIONS"] == "16"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"PARTITIONS": "0"}, "PARTITIONS: expected a whole number from 1 to 256, got '0'"),
        ({"PARTITIONS": "257"}, "PARTITIONS: expected a whole number from 1 to 256, got '257'"),
        (
            {"PARTITIONS": "1", "REDIS_URL": f"{A} {B}"},
            "PARTITIONS: expected a whole number from 2 to 256, got '1'",
        ),
        (
            {"REDIS_URL": f"{A} {B} {A}"},
            "REDIS_URL: expected each primary once, got redis://:***@a:1 twice",
        ),
        (
            {"REDIS_URL": f"{A} redis+cluster://u:secret@a"},
            "REDIS_URL: expected a cluster by itself, got 2 URLs",
        ),
        (
            {"REDIS_URL": " ".join(f"redis://h{number}" for number in range(257))},
            "REDIS_URL: expected at most 256 primaries, got 257",
        ),
    ],
)
def test_partitions_have_their_bounds(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        CommonSettings.from_reader(Reader(environ))
    assert str(caught.value) == message


@pytest.mark.parametrize("wrong", [f"{A} b:1", f"{A} http://b", f" {A} {B}"])
def test_one_of_several_that_is_no_url_is_told_without_a_password(wrong: str) -> None:
    with pytest.raises(SettingsError) as caught:
        common(REDIS_URL=wrong)
    assert "secret" not in str(caught.value)


THREE = {"A": "x", "B": "9", "C": "0s", "D": "4"}


def error_of(environ: dict[str, str], *steps: Read) -> SettingsError:
    """What a block of these steps raises at its end."""

    def block() -> None:
        with Reader(environ) as reader:
            for step in steps:
                step(reader)

    with pytest.raises(SettingsError) as caught:
        block()
    return caught.value


def fail(name: str) -> None:
    raise SettingsError(name, "this", "that")


def test_a_block_reads_on_and_tells_of_all_that_is_wrong_at_its_end() -> None:
    read: list[object] = []
    error = error_of(
        THREE,
        lambda r: read.append(r.integer("A", 1)),
        lambda r: read.append(r.integer("B", 2, maximum=8)),
        lambda r: read.append(r.duration("C", "3s", minimum="1s")),
        lambda r: read.append(r.integer("D", 5)),
        lambda r: read.append((r.are_good("D"), r.are_good("D", "A"))),
    )
    assert read == [1, 2, 3.0, 4, (True, False)]
    assert str(error).splitlines() == [
        "A: expected a whole number, got 'x'",
        "B: expected a whole number of at most 8, got '9'",
        "C: expected a duration of at least 1s (such as 200ms, 30s, 5m, 2h or 7d), got '0s'",
    ]
    assert [each.setting for each in error.errors] == ["A", "B", "C"]
    assert (error.setting, type(error)) == ("A", SettingsErrors)


def test_a_block_tells_of_what_ended_it_as_well() -> None:
    error = error_of(
        {"A": "x"},
        lambda r: r.integer("A", 1),
        lambda r: r.note(lambda: fail("M")),
        lambda _: fail("N"),
    )
    assert [each.setting for each in error.errors] == ["A", "M", "N"]


def test_a_block_with_one_thing_wrong_raises_just_that() -> None:
    for environ, default in ({"A": "x"}, 1), ({}, None):
        error = error_of(environ, lambda r, default=default: r.integer("A", default))
        assert (type(error), error.errors) == (SettingsError, (error,))


def test_what_two_programs_read_is_wrong_once() -> None:
    def twice(reader: Reader) -> None:
        CommonSettings.from_reader(reader)
        CommonSettings.from_reader(reader)

    assert len(error_of({"LOG_LEVEL": "loud"}, twice).errors) == 1


def test_a_block_lets_other_errors_through() -> None:
    def fall_out() -> None:
        with Reader({"A": "x"}) as reader:
            reader.integer("A", 1)
            raise LookupError

    with pytest.raises(LookupError):
        fall_out()


def test_people_get_the_console_format_unless_they_ask_for_another() -> None:
    assert CommonSettings.from_reader(Reader({}), terminal=True).log_format == "console"
    asked = CommonSettings.from_reader(Reader({"LOG_FORMAT": "json"}), terminal=True)
    assert asked.log_format == "json"


def test_stderr_says_whether_people_read_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert CommonSettings.from_reader(Reader({})).log_format == "json"  # captured, so no terminal


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"LOG_LEVEL": "loud"},
            "LOG_LEVEL: expected one of debug, info, warning, error, critical, got 'loud'",
        ),
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: expected one of json, console, got 'xml'"),
        ({"REDIS_URL": "h:1"}, None),
    ],
)
def test_what_both_programs_need_is_checked(environ: dict[str, str], message: str | None) -> None:
    with pytest.raises(SettingsError) as caught:
        CommonSettings.from_reader(Reader(environ))
    assert message is None or str(caught.value) == message
    assert caught.value.setting == next(iter(environ))


def test_settings_never_change() -> None:
    settings = CommonSettings.from_reader(Reader({}))
    with pytest.raises(FrozenInstanceError):
        settings.log_level = "debug"


def test_what_stands_around_a_secret_or_a_url_is_no_part_of_it() -> None:
    reader = Reader({"X": "\ufeffwhsec_x\r\n", "REDIS_URL": "\ufeffredis://:a@b:1/2\r\n"})
    assert reader.secret("X").reveal() == "whsec_x"
    settings = CommonSettings.from_reader(reader, terminal=False)
    assert settings.redis_url.reveal() == "redis://:a@b:1/2"


def test_blanks_are_no_secret_and_a_template_is_told_as_such() -> None:
    assert error(" \n", lambda r: r.secret("X")) == "a secret that isn't empty, got nothing"
    assert error("${TOKEN}", lambda r: r.secret("X")) == (
        "a secret, got a template that nobody has filled in"
    )
