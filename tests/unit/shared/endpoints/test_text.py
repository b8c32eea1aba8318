"""A text is read piece by piece, and says the same as it does in one."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.endpoints import text as endpoints_text
from shared.endpoints.text import read_tables
from shared.errors import SettingsError
from shared.files.pace import Pace

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
