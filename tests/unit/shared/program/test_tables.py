"""Facts about what commands list, on terminals of any width."""

import pytest
from rich.cells import cell_len
from rich.console import Console

from shared.program import tables

MOMENT = "2026-11-29T21:27:20.983+00:00"
WHY = "東京の注文 is down, " * 20
ROWS = [
    {"organization": "org_" + "x" * 60, "waiting": 1_234_567, "up": "1d 23h", "why": WHY},
    {"organization": "org_b", "waiting": 7, "redis": "1023.9 MiB", "at": MOMENT, "why": None},
    {"organization": "org_c", "waiting": 0, "redis": "1.0 KiB", "rate": "12.5/s"},
]
COLUMNS = ["organization", "waiting", "redis", "up", "at", "rate", "why"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_number_is_broken_however_narrow_a_terminal_is(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "stdout_console", lambda: Console(width=width, highlight=False))
    tables.draw(ROWS, COLUMNS, "Things")
    text = capsys.readouterr().out
    for whole in ("1234567", "1023.9 MiB", "1d 23h", MOMENT, "12.5/s", "org_b"):
        assert whole in text, text
    assert max(map(cell_len, text.splitlines())) <= width
    shown = "".join(text.split())
    assert shown.count("東京の注文") == 20
    assert shown.count("x") >= 60


def test_a_terminal_that_is_wide_enough_has_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "stdout_console", lambda: Console(width=120, highlight=False))
    tables.draw(ROWS[1:], COLUMNS, "Things")
    _, _, names, _, first, *_ = capsys.readouterr().out.splitlines()
    assert names.split() == COLUMNS
    assert first.split() == ["org_b", "7", "1023.9", "MiB", MOMENT]
