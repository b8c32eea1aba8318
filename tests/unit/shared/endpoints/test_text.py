"""A text is read piece by piece, and says the same as it does in one."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.endpoints import text as endpoints_text
from shared.endpoints.text import endpoint_names, read_tables
from shared.errors import SettingsError
from shared.files.background import Pace

PATH = Path("endpoints.toml")
PACE = Pace(rest=0)
TABLE = '[[endpoint]]\nid = "a"\norganization_id = "o"\nsecrets = ["x"]\n'
PARTS = st.lists(
    st.sampled_from(
        [
            *("[[endpoint]]\n", "[[ endpoint ]] # x\r\n", '[["endpoint"]]\n', "[endpoint]\n"),
            *('id = "a"\n', 'organization_id = "o"\n', 'secrets = ["x"]\n', "weight = 2\n"),
            *("[endpoint.settings]\n", "[[endpoint.settings.x]]\n", "a = 1\n", "# [[endpoint]]\n"),
            *('b = """\n', '"""\n', "c = '''\n", "'''\n", "d = [\n", "]\n", '  [["endpoint"]],\n'),
            *('e = "[[endpoint]]"\n', "\n", "  ", "\t", "endpoint = [1]\n", "[other]\n", TABLE),
        ]
    ),
    max_size=12,
)


def read(text: str) -> list[object] | str:
    try:
        return [draft for draft, _ in read_tables(text, PATH, pace=PACE).placed]
    except SettingsError as exc:
        return str(exc)


LONG = f'{TABLE}[endpoint.settings]\nnote = """\n[[endpoint]]\n"""\n'


@example([LONG])
@example([LONG.replace('"""', "'''")])
@given(PARTS)
def test_pieces_say_what_the_whole_says(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints_text, "_pieces", lambda text: [(1, text)])
        whole = read(text)
    assert isinstance(pieces, list) == isinstance(whole, list)
    if isinstance(pieces, list):
        assert pieces == whole


@given(PARTS)
def test_no_text_is_cut_within_a_value(parts: list[str]) -> None:
    text = "".join(parts)
    pieces = list(endpoints_text._pieces(text))
    assert "".join(piece for _, piece in pieces)[-len(text) :] in text
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for first, piece in pieces:
        tomllib.loads(piece)
        assert text.split("\n")[first - 1].strip() == piece.split("\n")[0].strip()


def test_a_line_is_counted_from_the_beginning_of_the_file() -> None:
    other = TABLE.replace('"a"', '"b"')
    text = f"# what this is\n\n{TABLE}\n{other}weight = 0\n"
    assert "line 12: expected weight" in str(read(text))
    assert "line 12: expected valid TOML" in str(read(text.replace("weight = 0", "weight =")))
    assert "line 12: expected only [[endpoint]] tables, got the key 'x'" in str(
        read(text.replace("weight = 0", "[x]"))
    )


def test_a_piece_that_is_known_is_not_read_again() -> None:
    first = read_tables(TABLE, PATH, pace=PACE)
    second = read_tables("# moved\n" + TABLE, PATH, before=first, pace=PACE)
    (draft, place), (before, _) = second.placed[0], first.placed[0]
    assert draft is before
    assert "line 2:" in str(place.wrong("nothing", "x", "y"))


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
