"""Facts about editing the endpoints file."""

import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingress.management.editing import EndpointsEditor, expired, named, read_endpoints
from shared.endpoints.endpoint import EndpointSecret
from shared.errors import SettingsError
from shared.settings.secret import Secret

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
NEW = Secret("whsec_new")
FILE = """\
# Our endpoints.

[[endpoint]]  # the first
id = "acme"                # the last part of the URL
organization_id = "org_a"
secrets = [
    "whsec_1",             # from the dashboard
    { env = "ACME" },      # from the environment
]
weight = 2.0

# What Beta wants.
[[endpoint]]
organization_id = "org_b"  # before the id
id = "beta"
secrets = ["whsec_b"]      # one
[endpoint.settings]
erp = "https://erp.example"

[[endpoint]]
id = "cato"
organization_id = "org_c"
[[endpoint.secrets]]
value = "whsec_c"
"""
DIE_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from ingress.management.editing import EndpointsEditor
from shared.files import atomic as atomic_file
from shared.settings.secret import Secret

write = atomic_file._write

def write_and_die(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

atomic_file._write = write_and_die
EndpointsEditor(Path(sys.argv[1]), {"ACME": "whsec_2"}).accept("acme", Secret("whsec_new"))
"""


def editor(path: Path) -> EndpointsEditor:
    return EndpointsEditor(path, {"ACME": "whsec_2"})


@pytest.fixture
def path(endpoints_file: Callable[[str], Path]) -> Path:
    return endpoints_file(FILE)


def secrets(path: Path, endpoint_id: str) -> list[tuple[str, datetime | None]]:
    endpoint = read_endpoints(path, {"ACME": "whsec_2"})[endpoint_id]
    return [(secret.value.reveal(), secret.until) for secret in endpoint.secrets]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_accepted_before_the_others_and_nothing_else_changes(path: Path) -> None:
    for endpoint_id in ("acme", "beta"):
        editor(path).accept(endpoint_id, Secret(f"whsec_new_{endpoint_id}"))
    changed = FILE.replace("secrets = [\n", 'secrets = [\n    "whsec_new_acme",\n')
    changed = changed.replace('["whsec_b"]', '["whsec_new_beta", "whsec_b"]')
    assert path.read_text() == changed


def test_secrets_in_tables_of_their_own_are_edited_too(path: Path) -> None:
    editor(path).accept("cato", NEW)
    assert secrets(path, "cato") == [("whsec_new", None), ("whsec_c", None)]
    editor(path).retire("cato", lambda secret: secret.value != NEW, UNTIL)
    assert secrets(path, "cato") == [("whsec_new", None), ("whsec_c", UNTIL)]


def test_accepting_again_changes_nothing(path: Path) -> None:
    editor(path).accept("acme", NEW)
    once = path.read_text()
    editor(path).accept("acme", NEW)
    assert path.read_text() == once


def test_a_secret_that_had_an_end_is_accepted_without_one(path: Path) -> None:
    editor(path).retire("beta", lambda _: True, UNTIL)
    editor(path).accept("beta", Secret("whsec_b"))
    assert secrets(path, "beta") == [("whsec_b", None)]


def test_retiring_gives_an_end_to_what_has_none_and_keeps_the_comments(path: Path) -> None:
    old = [EndpointSecret(Secret(text)).fingerprint for text in ("whsec_1", "whsec_2")]
    editor(path).accept("acme", NEW)
    editor(path).retire("acme", named(old), UNTIL)
    assert secrets(path, "acme") == [
        ("whsec_new", None),
        ("whsec_1", UNTIL),
        ("whsec_2", UNTIL),
    ]
    text = path.read_text()
    assert "# from the dashboard" in text
    assert '{ env = "ACME", until = 2027-01-01T00:00:00Z}' in text
    editor(path).retire("acme", named(old), datetime(2030, 1, 1, tzinfo=UTC))
    assert path.read_text() == text


def test_what_is_dropped_leaves_but_never_the_last_one(path: Path) -> None:
    editor(path).retire("acme", lambda secret: secret.value == Secret("whsec_1"), UNTIL)
    editor(path).drop("acme", expired(UNTIL.timestamp() - 1))
    assert len(secrets(path, "acme")) == 2
    editor(path).drop("acme", expired(UNTIL.timestamp()))
    assert secrets(path, "acme") == [("whsec_2", None)]
    before = path.read_text()
    with pytest.raises(SettingsError, match="a list of 1 to 16 secrets"):
        editor(path).drop("acme", lambda _: True)
    assert path.read_text() == before


def test_an_endpoint_is_added_at_the_end(path: Path) -> None:
    editor(path).add("delta", "org_d", NEW)
    added = '\n[[endpoint]]\nid = "delta"\norganization_id = "org_d"\nsecrets = ["whsec_new"]\n'
    assert path.read_text() == FILE + added
    editor(path).add("delta", "org_d", NEW)
    assert path.read_text() == FILE + added
    editor(path).add("delta", "org_d", Secret("whsec_newer"))
    assert secrets(path, "delta") == [("whsec_newer", None), ("whsec_new", None)]


@pytest.mark.parametrize("text", ["", "# nothing yet", "\n\n"])
def test_the_first_endpoint_makes_the_file_for_its_owner_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "endpoints.toml"
    if text:
        path.write_text(text)
    editor(path).add("acme", "org_a", NEW)
    assert secrets(path, "acme") == [("whsec_new", None)]
    assert path.read_text().startswith(text)
    if not text:
        assert mode(path) == 0o600
        assert not editor(path).is_read_by_others


def test_endpoints_in_an_inline_array_are_edited_too(
    endpoints_file: Callable[[str], Path],
) -> None:
    row = '{ id = "a", organization_id = "org_a", secrets = ["whsec_a"] }'
    path = endpoints_file(f"endpoint = [ {row} ]  # short\n")
    editor(path).add("b", "org_b", NEW)
    editor(path).accept("a", Secret("whsec_newer"))
    assert secrets(path, "a") == [("whsec_newer", None), ("whsec_a", None)]
    assert secrets(path, "b") == [("whsec_new", None)]
    editor(path).remove("a")
    assert list(read_endpoints(path, {})) == ["b"]
    assert path.read_text().endswith("# short\n")


@pytest.mark.parametrize(
    ("endpoint_id", "start", "end"),
    [
        ("acme", "[[endpoint]]  # the first", "# What Beta wants."),
        ("beta", "# What Beta wants.", '[[endpoint]]\nid = "cato"'),
    ],
)
def test_an_endpoint_leaves_with_its_comments_and_no_others(
    path: Path, endpoint_id: str, start: str, end: str
) -> None:
    editor(path).remove(endpoint_id)
    before, _, rest = FILE.partition(start)
    assert path.read_text() == before + end + rest.partition(end)[2]


def test_the_last_table_of_the_file_leaves_too(path: Path) -> None:
    editor(path).remove("cato")
    assert path.read_text() == FILE.partition('\n[[endpoint]]\nid = "cato"')[0]
    editor(path).remove("cato")
    assert list(read_endpoints(path, {"ACME": "x"})) == ["acme", "beta"]


def test_the_only_endpoint_stays(endpoints_file: Callable[[str], Path]) -> None:
    text = '[[endpoint]]\nid = "a"\norganization_id = "org_a"\nsecrets = ["whsec_a"]\n'
    path = endpoints_file(text)
    editor(path).remove("a")
    assert path.read_text() == text


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o644])
def test_the_mode_is_kept(path: Path, kept: int) -> None:
    path.chmod(kept)
    editor(path).accept("acme", NEW)
    assert mode(path) == kept
    assert editor(path).is_read_by_others == (kept != 0o600)


def test_a_kill_between_write_and_rename_loses_neither_file(path: Path) -> None:
    path.chmod(0o600)
    died = subprocess.run([sys.executable, "-c", DIE_BEFORE_THE_RENAME, path], check=False)
    assert died.returncode == -signal.SIGKILL
    assert path.read_text() == FILE
    draft = path.with_name(".endpoints.toml.new")
    assert secrets(draft, "acme")[0] == ("whsec_new", None)
    assert mode(draft) == 0o600
    editor(path).accept("acme", NEW)
    assert secrets(path, "acme")[0] == ("whsec_new", None)
    assert not draft.exists()


def test_line_ends_of_windows_stay(path: Path) -> None:
    path.write_bytes(FILE.replace("\n", "\r\n").encode())
    editor(path).accept("beta", NEW)
    text = path.read_bytes()
    assert (
        text
        == FILE.replace('["whsec_b"]', '["whsec_new", "whsec_b"]').replace("\n", "\r\n").encode()
    )


def test_what_the_ingress_would_refuse_is_not_written(path: Path) -> None:
    with pytest.raises(SettingsError, match="secrets of this organization alone"):
        editor(path).accept("acme", Secret("whsec_b"))
    assert path.read_text() == FILE


@pytest.mark.parametrize(
    ("content", "message"), [(b"\xff", "not UTF-8"), (b"[[[", "valid TOML"), (b"x = 1", "the key")]
)
def test_a_file_that_is_wrong_is_refused_before_anything(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        editor(path)


def test_a_folder_that_can_t_be_written_to_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a file that can be replaced"):
        editor(tmp_path / "nowhere" / "endpoints.toml")


def test_a_file_that_can_t_be_replaced_is_a_settings_error(path: Path) -> None:
    found = editor(path)
    path.with_name(".endpoints.toml.new").mkdir()
    with pytest.raises(SettingsError, match="a file that can be replaced"):
        found.accept("acme", NEW)
