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
