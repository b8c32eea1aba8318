"""Facts about how the lines of several programs are shown."""

from pathlib import Path

import click
import pytest

from deploy.local.services import LogView, Tail, readable
from shared.observe.log_lines import render_json


def plain(line: bytes) -> str:
    return click.unstyle(readable(line))


def test_a_line_of_ours_is_shown_with_its_own_time() -> None:
    line = b'{"timestamp":"2026-01-02T03:04:05.678Z","level":"info","event":"begun","port":1}'
    assert plain(line) == "03:04:05.678 info     begun port=1\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"a print", "a print"),
        (b"\x1b[2Jcleared\tby \xff", "\\x1b[2Jcleared     by \ufffd"),
        (b'{"event": "no time"}', '{"event": "no time"}'),
        (b"[1]", "[1]"),
        (b"[" * 100_000, "[" * 100_000),
        (b'{"timestamp":1,"level":[],"event":null}', " []       None\n"),
    ],
)
def test_any_other_line_is_shown_as_it_is_and_obeyed_by_no_terminal(
    line: bytes, shown: str
) -> None:
    assert plain(line) == shown


def test_every_line_of_a_traceback_has_the_prefix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "redis.log"
    log.write_text("what was there before\n")
    view = LogView("redis", "worker")
    view.follow_file("redis", log)
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018  # for its traceback
    with log.open("ab") as file:
        file.write(render_json("error", {"event": "failed", "exc_info": caught.value}))
        file.write(b"half a li")
    view.show()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert all(line.startswith("redis  | ") for line in lines)
    assert lines[-1].endswith("ZeroDivisionError: division by zero")
    with log.open("ab") as file:
        file.write(b"ne")
    view.show()
    assert capsys.readouterr().out == ""
    view.finish("redis")
    assert capsys.readouterr().out == "redis  | half a line\n"


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "none", at_end=True)
    assert list(tail.lines()) == []
    (tmp_path / "none").write_bytes(b"now\n")
    assert list(tail.rest()) == [b"now"]
