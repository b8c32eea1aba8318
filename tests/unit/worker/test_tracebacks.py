"""Facts about the text of a traceback, whatever was raised."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.tracebacks import MOST_BYTES, traceback_of


def plain(text: str) -> str:
    return text


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as exc:  # noqa: BLE001  what is raised is the subject
        return exc
    raise AssertionError("nothing was raised")


def text_of(call: Callable[[], object], hide: Callable[[str], str] = plain) -> str:
    return traceback_of(raised(call), hide)


def fails() -> NoReturn:
    password = "in a variable"
    raise ValueError("as told" if password else "")


def test_it_shows_where_and_what_without_variables() -> None:
    lines = text_of(fails).split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-3].startswith(f'  File "{__file__}", line ')
    assert lines[-3].endswith(", in fails")
    assert lines[-2:] == [
        '    raise ValueError("as told" if password else "")',
        "ValueError: as told",
    ]
    assert "in a variable" not in "\n".join(lines)


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert traceback_of(ValueError("as told"), plain) == "ValueError: as told"


def test_causes_stand_before_it_and_say_how_they_led_to_it() -> None:
    def caused() -> None:
        try:
            fails()
        except ValueError as exc:
            raise KeyError("second") from exc

    def meanwhile() -> None:
        try:
            fails()
        except ValueError:
            raise KeyError("second")  # noqa: B904

    def hidden() -> None:
        try:
            fails()
        except ValueError:
            raise KeyError("second") from None

    text = text_of(caused)
    assert text.index("ValueError: as told") < text.index("direct cause") < text.index("KeyError")
    assert "During handling" in text_of(meanwhile)
    assert "as told" not in text_of(hidden)


def test_a_group_shows_its_first_parts() -> None:
    def many() -> None:
        raise ExceptionGroup("many", [ValueError(f"part {n}") for n in range(10_000)])

    text = text_of(many)
    assert "ExceptionGroup: many (10000 sub-exceptions)" in text
    assert "  +- 5 of 10000\n  |   ValueError: part 4".replace("|   V", "| V") in text
    assert "part 5" not in text


def test_of_a_deep_recursion_the_first_and_the_last_calls_are_shown() -> None:
    def down(left: int) -> None:
        if not left:
            raise ValueError("bottom")
        down(left - 1)

    text = text_of(lambda: down(900))
    assert text.count("  File ") == 30
    assert "  … 873 more …\n" in text
    assert text.endswith("ValueError: bottom")


def test_causes_in_a_circle_are_told_once() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    text = traceback_of(one, plain)
    assert (text.count("ValueError: one"), text.count("ValueError: other")) == (1, 1)


def test_of_very_many_causes_the_last_are_told() -> None:
    error = ValueError("0")
    for n in range(1, 100_000):
        following = ValueError(str(n))
        following.__cause__ = error
        error = following
    text = traceback_of(error, plain)
    assert text.count("ValueError") == 10
    assert text.endswith("ValueError: 99999")


def test_it_is_bounded_and_keeps_its_end() -> None:
    error = ValueError("é" * 10_000_000)
    for n in range(20):
        error.add_note(f"{n}" + "ü" * 100_000)
    text = traceback_of(ExceptionGroup("ö" * 5000, [error] * 3), plain)
    assert text.startswith("…\n")
    assert MOST_BYTES - 4 < len(text.encode()) <= MOST_BYTES


def test_a_secret_is_hidden_though_it_stands_where_the_text_is_cut() -> None:
    secret = "s3cret" * 20
    for length in range(1900, 2010, 7):
        text = traceback_of(ValueError("x" * length + secret), lambda t: t.replace(secret, "***"))
        assert "s3cret" not in text


class Hostile(Exception):
    """Says nothing about itself without harm."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise KeyboardInterrupt

    __context__ = __traceback__ = __suppress_context__ = __notes__ = __cause__


def test_what_an_author_makes_of_an_exception_changes_nothing() -> None:
    assert text_of(lambda: fail_with(Hostile())).endswith("can't be printed)")


def fail_with(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/tty.py", "pipe.py", "relative.py", "<string>"])
def test_the_source_of_compiled_code_is_read_only_where_that_is_a_plain_file(
    tmp_path: Path, file: str
) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    name = str(tmp_path / file) if file == "pipe.py" else file
    began = time.perf_counter()
    text = text_of(lambda: exec(compile("\n1 / 0", name, "exec")))  # noqa: S102
    assert time.perf_counter() - began < 1
    assert f'  File "{name}", line 2, in <module>\nZeroDivisionError' in text


def test_a_name_or_a_line_without_end_is_cut() -> None:
    long = "x" * 100_000
    scope: dict[str, Any] = {}
    exec(f"def {long}():\n    1 / 0\n", scope)  # noqa: S102
    assert len(text_of(scope[long])) < 1000


@given(st.recursive(st.text(), lambda parts: st.lists(parts, min_size=1, max_size=9)))
def test_whatever_is_raised_its_text_can_be_stored(shape: Any) -> None:
    def made(shape: Any) -> Exception:
        if isinstance(shape, str):
            return ValueError(shape)
        return ExceptionGroup("group", [made(each) for each in shape])

    text = traceback_of(made(shape), plain)
    assert len(text.encode()) <= MOST_BYTES
