"""Facts about how the structure of the product is counted."""

from pathlib import Path

import pytest

from tests.bench.structure import Structure, measure

EVENTS = '''"""What an event is.

Two lines of a docstring, and a blank one between.
"""

from shared import keys

# Why the list is sorted:
# a reader would stop here.
NAMES = sorted(  # noqa: C414  a tool is told
    ["a", "b"],
)
"""Of all of them."""


def first() -> str:  # the smallest
    """The first one."""
    return f"""
{NAMES[0]}
"""
'''


@pytest.fixture
def structure(tmp_path: Path) -> Structure:
    sources = {
        "ingress/__init__.py": "",
        "ingress/app.py": "import shared.keys\nfrom shared.events import first, NAMES\n",
        "ingress/__main__.py": "from ingress import app\n",
        "shared/__init__.py": '"""What both have."""\n',
        "shared/events.py": EVENTS,
        "shared/keys.py": "QUEUE = 1\n" * 40,
    }
    for name, source in sources.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return measure(tmp_path)


def test_a_line_of_code_is_neither_blank_nor_a_comment_nor_a_docstring(
    structure: Structure,
) -> None:
    (events,) = (each for each in structure.modules if each.name == "shared.events")
    assert events.code == 8
    assert structure.code_lines == {"ingress": 3, "shared": 48}


def test_a_comment_to_a_tool_says_nothing_to_a_reader(structure: Structure) -> None:
    assert sum(each.comments for each in structure.modules) == 3
    assert structure.comments == pytest.approx(300 / 51)


def test_a_small_module_has_less_than_forty_lines_of_any_kind(structure: Structure) -> None:
    assert structure.small == ["ingress.app", "shared.events"]


def test_an_importer_counts_once_and_a_name_in_a_module_is_its_modules(
    structure: Structure,
) -> None:
    assert structure.with_one_importer == ["ingress.app", "shared.events"]
