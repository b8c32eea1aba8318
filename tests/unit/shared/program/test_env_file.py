"""Facts about a file of environment variables."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.program.env_file import parse_env_file

PATH = Path(".env")
TEMPLATE = (
    "a value of A without ${…}, or one in single quotes, got one that nothing is filled in for"
)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  export A = b  ", "b"),
        ("A=", ""),
        ("A=b c # said of it", "b c"),
        ("A=# nothing", ""),
        ("A=redis://:p#q@h/0", "redis://:p#q@h/0"),
        ("A=b=c", "b=c"),
        ("A=$b", "$b"),
        ("A='b # c' # said of it", "b # c"),
        ("A='${B}\\n'", "${B}\\n"),
        ('A="b # c"', "b # c"),
        (r'A="b\n\"c\" \\ \$"', 'b\n"c" \\ $'),
        ("A=it's", "it's"),
        ("\ufeffA=b\r", "b"),
        ("A=a\nA=b", "b"),
    ],
)
def test_a_line_sets_a_variable(line: str, value: str) -> None:
    assert parse_env_file(line, PATH) == {"A": value}


def test_blank_lines_and_comments_say_nothing() -> None:
    assert parse_env_file("\n  \n# A=b\n  # C=d\n", PATH) == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hunter2", "NAME=VALUE, got something else"),
        ("1A=hunter2", "NAME=VALUE, got something else"),
        ("A-B=hunter2", "NAME=VALUE, got something else"),
        ("A='hunter2", "one value for A, or quotes that close on its line, got something else"),
        ('A="hunter2\\"', "one value for A, or quotes that close on its line, got something else"),
        ("A='b' hunter2", "one value for A, or quotes that close on its line, got something else"),
        (
            "A=hunter2${B}",
            TEMPLATE,
        ),
        (
            'A="${hunter2}"',
            TEMPLATE,
        ),
    ],
)
def test_another_line_is_named_and_not_shown(line: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_env_file(f"# first\n{line}\n", PATH)
    assert str(caught.value) == f"--env-file (.env) line 2: expected {expected}"


@given(st.text(max_size=40))
def test_any_text_is_variables_or_an_error(text: str) -> None:
    try:
        found = parse_env_file(text, PATH)
    except SettingsError:
        return
    assert all(name.isascii() and "=" not in name for name in found)


@given(st.text(st.characters(blacklist_categories=["Cs", "Zl", "Zp", "Cc"]), max_size=40))
@example("${")
@example("\\${")
def test_double_quotes_hold_any_text(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    assert parse_env_file(f'A="{quoted}"', PATH) == {"A": text}
