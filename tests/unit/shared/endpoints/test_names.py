"""Facts about the names in an endpoints file, without its secrets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.endpoints.names import endpoint_names

ACME = '[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = [{ file = "none" }]\n'


def test_the_names_are_read_though_the_secrets_are_not_there(
    endpoints_file: Callable[[str], Path],
) -> None:
    bolt = '[[endpoint]]\nid = "bolt"\norganization_id = 12\n'
    assert endpoint_names(endpoints_file(f"\ufeff{ACME}{bolt}")) == {"acme": "org_a", "bolt": "12"}


@pytest.mark.parametrize(
    "text", ["", "[", "endpoint = 1", "endpoint = [1]", "[[endpoint]]\nid = true", "[[endpoint]]"]
)
def test_what_is_not_there_is_left_out(endpoints_file: Callable[[str], Path], text: str) -> None:
    assert endpoint_names(endpoints_file(text)) == {}


def test_a_file_that_is_not_there_has_no_names(tmp_path: Path) -> None:
    assert endpoint_names(tmp_path / "none.toml") == {}
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    assert endpoint_names(tmp_path / "latin.toml") == {}


def test_a_directory_holds_files_of_endpoints(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ACME)
    (tmp_path / "b.toml").write_text(ACME.replace("acme", "bolt"))
    (tmp_path / ".c.toml").write_text(ACME.replace("acme", "hidden"))
    assert endpoint_names(tmp_path) == {"acme": "org_a", "bolt": "org_a"}
