"""Facts about wrong arguments, before anything is opened."""

import sys

import pytest

from deploy.sellfern.__main__ import main

KEY = ("--api-key", "k:a")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--api-key"),
        (("--api-key", "sk_no_organization"), "KEY:ORGANIZATION"),
        ((*KEY, "--port", "65536"), "--port"),
        ((*KEY, "--rate", "fast"), "--rate"),
        ((*KEY, "--duplicates", "1.5"), "--duplicates"),
        ((*KEY, "--for", "soon"), "a duration such as"),
        ((*KEY, "--fault", "crash"), "--fault"),
        ((*KEY, "--nothing"), "--nothing"),
        ((*KEY, "extra"), "extra"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulator", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert "sk_no" not in line


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_it_tells_how_it_is_used(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulator", option])
    main()
    out, err = capsys.readouterr()
    assert (out != "", err) == (True, "")
