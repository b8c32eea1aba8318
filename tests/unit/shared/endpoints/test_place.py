"""Lines of TOML tables and keys."""

from shared.endpoints.place import TableLines

TEXT = '''# [[endpoint]] in a comment
note = """
[[endpoint]]
id = "in a text"
"""

[[ endpoint ]]
id = "a"
"weight" = 1
[endpoint.settings]
secrets = "inside"

[["endpoint"]]
secrets = [
  "x",
]
scheme.header = "X"
'''


def test_a_header_in_a_comment_or_a_text_is_none() -> None:
    lines = TableLines(TEXT, "endpoint")
    assert [lines.table(0), lines.table(1), lines.table(2)] == [7, 13, None]


def test_a_key_is_found_in_its_own_table() -> None:
    lines = TableLines(TEXT, "endpoint")
    assert lines.key(0, "id") == 8
    assert lines.key(0, "weight") == 9
    assert lines.key(0, "settings") == 10
    assert lines.key(1, "secrets") == 14
    assert lines.key(1, "scheme") == 17


def test_a_missing_key_stands_where_its_table_begins() -> None:
    assert TableLines(TEXT, "endpoint").key(1, "id") == 13


def test_an_inline_array_has_no_lines() -> None:
    lines = TableLines('endpoint = [{id = "a"}]', "endpoint")
    assert lines.table(0) is None
    assert lines.key(0, "id") is None


def test_a_key_at_the_top_is_found_as_key_and_as_table() -> None:
    lines = TableLines("# a\na = 1\n[[b]]\n[c]\n", "endpoint")
    assert [lines.top("a"), lines.top("b"), lines.top("c"), lines.top("d")] == [2, 3, 4, None]
