"""A folder of endpoints files: each as it last was valid, and all of one moment."""

from pathlib import Path

import pytest

from shared.endpoints import text as endpoints_text
from shared.endpoints.file import EndpointsFile
from shared.endpoints.reader import EndpointsReader, Reading
from shared.errors import SettingsError
from shared.files.background import Pace
from shared.files.patient import PatientFiles

PACE = Pace(rest=0)


def table(name: str, organization: str | None = None, extra: str = "") -> str:
    return (
        f'[[endpoint]]\nid = "{name}"\norganization_id = "{organization or name}"\n'
        f'secrets = ["whsec_{name}"]\n{extra}\n'
    )


class Folder:
    """Endpoints files, and a reader of them."""

    def __init__(self, path: Path, **files: str) -> None:
        self.path = path
        self.write(**files)
        self.reader = EndpointsReader(path, {}, PatientFiles(), verifies=True)
        self.ids = list(self.reader.first())
        self.errors: dict[str, str] = {}

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / f"{name}.toml").write_text(text)

    def look(self) -> Reading | None:
        reading = self.reader.again(PACE)
        if reading is not None:
            self.errors = {path.stem: str(error) for path, error in reading.errors.items()}
            if reading.endpoints is not None:
                self.ids = list(reading.endpoints)
        return reading

    def settle(self) -> list[str]:
        """Look until all that has changed has been seen; the endpoints then."""
        for _ in range(4):
            self.look()
        return self.ids


def test_all_files_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = Folder(tmp_path, b=table("bolt"), a=table("acme") + table("apex"))
    assert folder.ids == ["acme", "apex", "bolt"]
    folder.write(c=table("cask"))
    assert folder.settle() == ["acme", "apex", "bolt", "cask"]
    (tmp_path / "a.toml").unlink()
    assert folder.settle() == ["bolt", "cask"]


def test_what_begins_with_a_dot_is_no_file_of_it(tmp_path: Path) -> None:
    """As Kubernetes mounts it: links to a hidden folder, which is swapped."""
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.toml").write_text(table("acme" if version == "..1" else "apex"))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.toml").symlink_to("..data/a.toml")
    (tmp_path / ".b.toml").write_text("nonsense")
    folder = Folder(tmp_path)
    assert folder.ids == ["acme"]
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert folder.settle() == ["apex"]


def test_a_file_with_a_mistake_stays_as_it_was_and_the_others_go_on(tmp_path: Path) -> None:
    folder = Folder(tmp_path, a=table("acme"), b=table("bolt"))
    folder.write(a=table("apex") + "wieght = 1", b=table("bulk"))
    assert folder.settle() == ["acme", "bulk"]
    assert list(folder.errors) == ["a"]
    assert "a.toml) line 6: expected one of the keys" in folder.errors["a"]
    folder.write(a=table("apex"))
    assert folder.settle() == ["apex", "bulk"]
    assert folder.errors == {}


def test_a_new_file_with_a_mistake_adds_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, a=table("acme"))
    folder.write(b="nonsense")
    assert folder.settle() == ["acme"]
    assert list(folder.errors) == ["b"]


def test_of_two_files_that_contradict_each_other_the_changed_one_is_refused(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path, a=table("acme", "org"), b=table("bolt", "org", "weight = 2"))
    folder.write(a=table("acme", "org", "weight = 3"))
    folder.settle()
    assert list(folder.errors) == ["a"]
    assert (
        "expected weight to be 2.0 as in another endpoint of organization org"
        in (folder.errors["a"])
    )
    folder.write(b=table("bolt", "org", "weight = 3"))  # both mean it
    folder.settle()
    assert folder.errors == {}


def test_an_endpoint_that_is_in_two_files_for_a_moment_is_never_away(tmp_path: Path) -> None:
    folder = Folder(tmp_path, a=table("acme") + table("move"), b=table("bolt"))
    folder.write(b=table("bolt") + table("move"))
    assert sorted(folder.settle()) == ["acme", "bolt", "move"]
    assert list(folder.errors) == ["b"]
    folder.write(a=table("acme"))
    assert sorted(folder.settle()) == ["acme", "bolt", "move"]
    assert folder.errors == {}


def test_a_file_whose_change_is_refused_is_in_the_way_of_nobody_else(tmp_path: Path) -> None:
    """The refused one keeps an endpoint that another one takes: then that one is refused, too."""
    folder = Folder(tmp_path, a=table("acme"), b=table("bolt"), c=table("move"))
    folder.write(b=table("bolt") + table("move"), c=table("acme"))
    assert sorted(folder.settle()) == ["acme", "bolt", "move"]
    assert sorted(folder.errors) == ["b", "c"]


def test_what_changes_while_it_is_read_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint moves from b, not read yet, to a, read already: it would be in neither."""
    folder = Folder(tmp_path, a=table("acme"), b=table("bolt") + table("move"))
    folder.write(a=table("acme", extra="weight = 2"), b=table("bolt", extra="# x") + table("move"))
    assert folder.look() is None
    read = endpoints_text._read_piece

    def move(*arguments: object) -> object:
        monkeypatch.undo()
        folder.write(a=table("acme") + table("move"), b=table("bolt"))
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(endpoints_text, "_read_piece", move)
    assert folder.look() is None
    assert sorted(folder.settle()) == ["acme", "bolt", "move"]


def test_only_what_has_changed_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path, a=table("acme") + table("apex"), b=table("bolt"))
    parsed: list[str] = []
    read = endpoints_text._read_piece

    def note(piece: str, first: int, path: Path) -> object:
        parsed.append(piece)
        return read(piece, first, path)

    monkeypatch.setattr(endpoints_text, "_read_piece", note)
    folder.write(a=table("acme") + table("apex", extra="weight = 2"))
    folder.settle()
    assert parsed == [table("apex", extra="weight = 2")]


def test_a_folder_that_is_gone_or_empty_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "endpoints"
    path.mkdir()
    folder = Folder(path, a=table("acme"))
    (path / "a.toml").rename(tmp_path / "a.toml")
    with pytest.raises(SettingsError, match=r"expected a folder with \*.toml files"):
        folder.settle()
    path.rmdir()
    with pytest.raises(SettingsError, match="No such file or directory"):
        folder.settle()
    assert folder.ids == ["acme"]
    path.mkdir()
    folder.write(a=table("apex"))
    assert folder.settle() == ["apex"]


def test_a_folder_with_a_mistake_anywhere_is_no_start(tmp_path: Path) -> None:
    """Which endpoints the wrong file is to have nobody knows: they would be 404."""
    (tmp_path / "a.toml").write_text(table("acme"))
    (tmp_path / "b.toml").write_text(table("bolt") + "a =")
    with pytest.raises(SettingsError, match=r"b.toml\) line 6: expected valid TOML"):
        EndpointsFile(tmp_path, {}).load()


def test_secret_files_are_looked_for_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("whsec_x")
    text = table("acme").replace('"whsec_acme"', '{ file = "acme" }')
    (tmp_path / "a.toml").write_text(text)
    endpoints = EndpointsFile(tmp_path, {}).load()
    assert endpoints["acme"].active_secrets(0) == [b"whsec_x"]
