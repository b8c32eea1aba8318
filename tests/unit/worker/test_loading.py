"""Facts about a module of handlers that can't be imported."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from worker.loading import load_handlers


@pytest.mark.parametrize(
    ("name", "text", "got"),
    [
        ("wrong_name", "import json\nundefined", "name 'undefined' is not defined ({}, line 2)"),
        ("wrong_syntax", "\n\n(", "SyntaxError: '(' was never closed (wrong_syntax.py, line 3)"),
        ("wrong_import", "\nimport nowhere.at_all", "No module named 'nowhere' ({}, line 2)"),
        ("wrong_json", "import json\njson.loads('[')", "line 1 column 2 (char 1) ({}, line 2)"),
    ],
)
def test_the_error_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, got: str
) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_handlers(f"{name}:handlers")
    assert got.format(path) in str(caught.value)


def test_a_module_that_is_not_there_has_no_place() -> None:
    with pytest.raises(SettingsError) as caught:
        load_handlers("nowhere_at_all:handlers")
    assert str(caught.value).endswith("No module named 'nowhere_at_all'")


FAILS = """\
import json, os
from worker import Handlers

handlers = Handlers()


def load():
    return json.loads(os.environ["ACME_TOKEN"])


load()
"""
SYNC = """\
from worker import Handlers

handlers = Handlers()


@handlers.on_error
def report(failure):
    ...
"""


def test_the_traceback_stands_below_without_what_led_to_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "failing.py"
    path.write_text(FAILS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ACME_TOKEN", "no-json-at-all")
    with pytest.raises(SettingsError) as caught:
        load_handlers("failing:handlers")
    lines = caught.value.detail.split("\n")
    assert lines[:5] == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 11, in <module>',
        "    load()",
        f'  File "{path}", line 8, in load',
        '    return json.loads(os.environ["ACME_TOKEN"])',
    ]
    assert lines[-1].startswith("JSONDecodeError: Expecting value")
    assert "\n" not in str(caught.value)


def test_a_hook_that_is_none_is_told_like_a_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sync_hook.py").write_text(SYNC)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as caught:
        load_handlers("sync_hook:handlers")
    assert "report: expected an async def function, got function" in str(caught.value)
    assert caught.value.detail == ""


def test_a_secret_in_the_error_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'import os\nraise ValueError(os.environ["ACME_TOKEN"])\n'
    (tmp_path / "telling.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ACME_TOKEN", "hunter2hunter2")
    with pytest.raises(SettingsError) as caught:
        load_handlers("telling:handlers")
    assert "hunter2" not in f"{caught.value}{caught.value.detail}"
    assert "ValueError: ***" in str(caught.value)
