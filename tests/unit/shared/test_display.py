"""How commands show what came from outside."""

import io
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from shared.display import (
    escape_controls,
    escape_json,
    fail,
    json_line,
    print_in_any_encoding,
)
from shared.program.tables import emit, truncate

ATTACK = "\x1b[2J\x1b]0;owned\x07\u202eevil\u2066\r\n[bold red]x[/] :boom: \x9b31m\ud800"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\u202eevil\u2066\r\n[bold red]x[/] :boom: \x9b31m\ud800"

# Cf, but part of how a script is written: joiners, and signs that show.
HARMLESS = set("\u200c\u200d\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
HARMLESS |= {chr(code) for code in range(0x0600, 0x0606)}
DANGEROUS = [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    and character not in HARMLESS
]


def dangerous(text: str) -> set[str]:
    return set(text) & set(DANGEROUS)


def test_every_control_format_and_surrogate_character_is_escaped() -> None:
    assert [c for c in DANGEROUS if not escape_controls(c).startswith("\\")] == []
    assert escape_controls("".join(DANGEROUS)).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x00\x1b\x7f\x85", r"\x00\x1b\x7f\x85"),
        ("\u202e\u2028\ufeff", r"\u202e\u2028\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        (ATTACK, SHOWN),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_text(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


@pytest.mark.parametrize("text", ["Zürich", "東京", "שלום", "नमस्\u200dते", "👩\u200d🚀", "٣ \u0600"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert escape_controls(text) == text


@given(st.text())
def test_escaped_text_can_be_printed_and_holds_nothing_to_obey(text: str) -> None:
    escaped = escape_controls(text)
    escaped.encode()
    assert not dangerous(escaped)
    assert escape_controls(escaped) == escaped


@given(st.text(max_size=20).map(escape_controls), st.integers(1, 25))
def test_a_cut_text_takes_no_more_columns_than_it_may(text: str, width: int) -> None:
    cut = truncate(text, width)
    assert cell_len(cut) <= width
    assert cut == text if cell_len(text) <= width else cut.endswith("…")


def test_a_wide_character_is_not_cut_in_half() -> None:
    assert truncate("東京東京", 8) == "東京東京"
    assert truncate("東京東京", 6) == "東京…"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(_JSON)
def test_a_json_line_is_one_safe_line_that_reads_back(value: Any) -> None:
    line = json_line(value)
    assert not dangerous(line)
    if "\\\\ud" not in line:  # a lone surrogate has no form in UTF-8, so it reads back as text
        assert json.loads(line) == _finite(value)


def _finite(value: Any) -> Any:
    """The value as JSON can say it."""
    if isinstance(value, float) and value in {float("inf"), float("-inf")}:
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


class Row(msgspec.Struct):
    name: str
    parts: tuple[str, ...] = ()


def test_a_lone_surrogate_is_shown_as_text_wherever_it_is() -> None:
    line = r'{"\\ud800":["\\udfff",1]}'
    assert json_line({"\ud800": ["\udfff", 1]}) == line
    assert (
        json_line(Row("\ud800", ("a", "\ud801"))) == r'{"name":"\\ud800","parts":["a","\\ud801"]}'
    )


def test_what_json_has_no_form_for_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        json_line({"what": object()})


def test_json_that_holds_nothing_to_obey_stays_as_it_is() -> None:
    plain = '{"a":"é 東"}'.encode()
    assert escape_json(plain) == plain
    assert escape_json(b'"\x7f"') == rb'"\u007f"'
    assert escape_json('"\U000e0041"'.encode()) == rb'"\udb40\udc41"'


def test_rows_as_json_lines_say_all_that_they_have(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"id": ATTACK, "more": [1]}, {}], ["id"], as_json=True, title="Things")
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"id": ATTACK.replace("\ud800", r"\ud800"), "more": [1]}
    assert second == "{}"
    assert not dangerous(first)


def test_a_row_is_printed_as_json_as_soon_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"n": 1}
        assert capsys.readouterr().out == '{"n":1}\n'
        yield {"n": 2}

    emit(rows(), ["n"], as_json=True)
    assert capsys.readouterr().out == '{"n":2}\n'


def cells(output: str) -> list[str]:
    """The cells of a table's last row."""
    return re.split(r"\s{2,}", output.strip().splitlines()[-1].strip())


def test_a_table_shows_its_columns_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"b": 2, "a_one": None, "z": "unseen"},
        {"a_one": True, "c": {"k": ["v"]}},
        {"a_one": False, "b": 1.5, "c": ("x", 1)},
        {"c": ("x", "y")},
    ]
    emit(rows, ["a_one", "b", "c"], as_json=False, title="Things")
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines() if line.strip()]
    assert lines[0] == ["Things"]
    assert lines[1] == ["a", "one", "b", "c"]
    assert lines[3:] == [["2"], ["yes", '{"k":["v"]}'], ["no", "1.5", '["x",1]'], ["x,", "y"]]


def test_a_table_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], ["a"], as_json=False, title="Things")
    emit([], ["a"], as_json=False)
    assert capsys.readouterr().out == "Things: none\nrows: none\n"


@pytest.mark.parametrize("wrap", [str, lambda text: {"k": text}, lambda text: [text], ValueError])
def test_a_table_shows_an_attack_as_text(capsys: pytest.CaptureFixture[str], wrap: Any) -> None:
    emit([{"id": wrap(ATTACK)}], ["id"], as_json=False)
    output = capsys.readouterr().out
    assert dangerous(output) <= {"\n"}
    assert "[bold red]x[/] :boom:" in output
    if wrap in {str, ValueError}:
        assert SHOWN in output


def test_a_line_of_a_table_is_not_broken_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    emit([{"a": "x" * 500, "b": "end"}], ["a", "b"], as_json=False)
    assert cells(capsys.readouterr().out) == ["x" * 500, "end"]


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)

    def isatty(self) -> bool:
        return True


def test_in_a_terminal_an_attack_is_folded_text_between_our_own_styles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "stdout", terminal)
    emit([{"id": ATTACK}], ["id"], as_json=False, title="[blink]Things")
    terminal.flush()
    output = terminal.bytes.getvalue().decode()
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", output)
    assert output != unstyled
    assert dangerous(unstyled) <= {"\n"}
    assert "[blink]Things" in unstyled
    lines = unstyled.splitlines()
    assert max(map(cell_len, lines)) <= 30
    folded = "".join(line.strip() for line in lines)
    assert SHOWN.replace(" ", "") in folded.replace(" ", "")


def test_a_terminal_shows_a_question_mark_for_what_its_encoding_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal("cp1252")
    monkeypatch.setattr(sys, "stdout", terminal)
    print_in_any_encoding()
    emit([{"id": "東京 🚀 é"}], ["id"], as_json=False)
    terminal.flush()
    assert b"?? ? \xe9" in terminal.bytes.getvalue()
    monkeypatch.undo()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_file_has_what_its_encoding_lacks_as_jsons_escapes(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    print_in_any_encoding()
    sys.stdout.write(json_line("東京 🚀 é"))
    sys.stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == "東京 🚀 é"
    assert (b"\\u6771" in written.getvalue()) is (encoding != "utf-8")
    monkeypatch.undo()


def test_a_failure_is_one_line_on_stderr_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        fail(f"REDIS_URL: {ATTACK}")
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert captured.out == ""
    assert captured.err == f"error: REDIS_URL: {SHOWN}\n"
