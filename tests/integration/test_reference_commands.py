"""Facts about the commands that show and replace the reference data."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ingress.cli import main

DOCUMENT = """\
openapi: 3.0.3
info: {title: Sellfern API, version: "1"}
paths:
  /api/v1/webhooks:
    get: {}
    post:
      requestBody:
        content:
          application/json:
            schema:
              properties:
                events: {type: array, items: {enum: [order.updated, item.created]}}
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*arguments: str, text: str | None = None, **environ: str) -> Result:
        env: dict[str, str | None] = {"ENDPOINTS_FILE": str(tmp_path / "endpoints.toml"), **environ}
        return CliRunner().invoke(main, ["reference", *arguments], env=env, input=text)

    return invoke


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.yaml"
    path.write_text(DOCUMENT)
    return path


def available(run: Run) -> set[str]:
    rows = [json.loads(line) for line in run("show", "--json").stdout.splitlines()]
    return {row["name"] for row in rows if row["available"]}


def test_show_tells_what_is_known_and_from_where(run: Run) -> None:
    shown = run("show")
    assert shown.exit_code == 0
    assert "this project's own data" in shown.stdout
    rows: list[dict[str, Any]] = [
        json.loads(line) for line in run("show", "--json").stdout.splitlines()
    ]
    assert rows[0] == {
        "kind": "event",
        "name": "order.created",
        "available": True,
        "source": "v1",
        "note": "in the sample of the page that creates an endpoint; legacy, too",
    }
    assert available(run) == {
        "order.created",
        "order.status_changed",
        "order.updated",
        "POST /webhooks",
    }


def test_an_import_shows_what_would_change_and_asks(
    run: Run, document: Path, tmp_path: Path
) -> None:
    before = available(run)
    for arguments in (["--dry-run"], ["--dry-run", "--yes"]):
        result = run("import", str(document), *arguments)
        assert result.exit_code == 0
        for text in ("item.created", "added", "order.created", "unavailable", "GET /webhooks"):
            assert text in result.stdout
    assert run("import", str(document), text="n\n").exit_code == 1
    assert available(run) == before
    assert not (tmp_path / "reference.toml").exists()

    asked = run("import", str(document), text="y\n")
    assert asked.exit_code == 0
    assert "restart the workers" in asked.stderr
    assert available(run) == {"order.updated", "item.created", "GET /webhooks", "POST /webhooks"}
    assert str(tmp_path / "reference.toml") in run("show").stdout


def test_an_import_for_machines_is_a_line_for_each_change(run: Run, document: Path) -> None:
    result = run("import", str(document), "--yes", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {"kind": "event", "name": "item.created", "change": "added"}.items() <= rows[3].items()
    again = run("import", str(document), "--json")
    assert again.exit_code == 0
    assert again.stdout == ""


def test_the_file_says_where_it_is_from_on_one_line(
    run: Run, document: Path, tmp_path: Path
) -> None:
    document.write_text(DOCUMENT.replace("Sellfern API", '"a\\nb = 1 \\u202e"'))
    assert run("import", str(document), "--yes").exit_code == 0
    first = (tmp_path / "reference.toml").read_text().splitlines()[0]
    assert first.startswith(
        "# Written by `python -m ingress reference import` from a\\nb = 1 \\u202e 1 (sha256 "
    )


def test_a_setting_says_where_the_imported_data_go(
    run: Run, document: Path, tmp_path: Path
) -> None:
    other = str(tmp_path / "other.toml")
    assert run("show", REFERENCE_FILE=other).exit_code == 2
    assert run("import", str(document), "--yes", REFERENCE_FILE=other).exit_code == 0
    assert other in run("show", REFERENCE_FILE=other).stdout
    assert "this project's own data" in run("show").stdout


def test_a_document_that_is_silent_about_a_kind_says_so(run: Run, document: Path) -> None:
    document.write_text("openapi: 3.1.0\nwebhooks: {order.updated: {}}\n")
    result = run("import", str(document), "--yes")
    assert "the document says nothing of operations: those stay" in result.stderr
    assert available(run) == {"order.updated", "POST /webhooks"}
    document.write_text("openapi: 3.1.0\npaths: {/webhooks: {get: {}}}\n")
    result = run("import", str(document), "--yes")
    assert "the document says nothing of events: those stay" in result.stderr
    assert available(run) == {"order.updated", "GET /webhooks"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON"),
        (b"a: [", "expected YAML"),
        (b"- " * 100_000, "expected YAML"),
        (b'{"a":' * 100_000, "moderate depth"),
        (b"x" * (8 * 1024 * 1024 + 2), "expected at most 8388608 bytes"),
        (b'{"openapi": "9.0"}', "expected an OpenAPI document 3.0 or 3.1, got openapi '9.0'"),
        (b'{"swagger": "2.0"}', "got swagger '2.0'"),
        (b"\xff\xfe\xfd", "expected UTF-8"),
        (
            b'{"openapi":"3.1.0","paths":{"/webhooks":{"$ref":"#/paths/~1webhooks"}}}',
            "which leads back to itself",
        ),
        (b'{"openapi":"3.1.0","paths":{"/orders":{}}}', "got none of them"),
    ],
)
@pytest.mark.parametrize("imported", [False, True])
def test_what_can_t_be_imported_is_one_line_and_changes_nothing(
    run: Run, document: Path, tmp_path: Path, content: bytes, message: str, *, imported: bool
) -> None:
    if imported:
        assert run("import", str(document), "--yes").exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    hostile = tmp_path / "hostile"
    hostile.write_bytes(content)
    result = run("import", str(hostile), "--yes")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: FILE ({hostile}): expected")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    hostile.unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_isn_t_there_or_can_t_be_replaced_is_one_line(
    run: Run, document: Path, tmp_path: Path
) -> None:
    result = run("import", str(tmp_path / "nothing"), "--yes")
    assert result.exit_code == 2
    assert "FILE: expected a readable file" in result.stderr
    where = str(tmp_path / "nowhere" / "reference.toml")
    result = run("import", str(document), "--yes", REFERENCE_FILE=where)
    assert result.exit_code == 2
    assert "REFERENCE_FILE: expected a file that can be replaced" in result.stderr
    assert run("import", str(document), LOG_LEVEL="loud").exit_code == 2
