"""Facts about which room may know which."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "shared": {"ingress", "worker", "deploy", "tests"},
    "ingress": {"worker", "deploy", "tests"},
    "worker": {"ingress", "deploy", "tests"},
}
KNOWS = {
    "shared": (),
    "shared.files": ("shared",),
    "shared.settings": ("shared", "shared.files"),
    "shared.observe": ("shared", "shared.settings"),
    "shared.redis": ("shared", "shared.files", "shared.settings", "shared.observe"),
    "shared.sellfern": ("shared", "shared.settings", "shared.observe"),
    "shared.queue": ("shared", "shared.settings", "shared.observe", "shared.redis"),
    "shared.endpoints": (
        *("shared", "shared.files", "shared.settings", "shared.observe"),
        *("shared.sellfern", "shared.queue"),
    ),
    "shared.program": ("shared", "shared.settings", "shared.observe", "shared.endpoints"),
    "ingress.http": ("shared", "ingress.settings", "ingress.clients"),
    "ingress.management": ("shared", "ingress.http"),
    "worker": ("shared",),
    "worker.pipeline": ("shared", "worker"),
    "worker.sql": ("shared", "worker"),
    "worker.engine": ("shared", "worker", "worker.pipeline"),
    "worker.operate": ("shared", "worker", "worker.settings", "worker.sql"),
    "worker.testing": ("shared", "worker", "worker.pipeline"),
}
"""What each room may import beside itself; of the other package than its own, all of its rooms."""

PROGRAM = {"app", "check", "cli", "send", "settings", "doubts", "listing", "probes", "__main__"}
"""Modules of a program's own, which put the rooms together: they may know all of them."""


def imported(path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it, by its full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: a relative import hides where it goes"
            assert not node.level, f"{path}: a relative import hides where it goes"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        wrong = {name.partition(".")[0] for name in imported(module)} & FORBIDDEN[package]
        assert not wrong, f"{module.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def room_of(name: str) -> str:
    """The room that a module, or something in one, stands in; a program's own module is itself."""
    package, _, rest = name.partition(".")
    room = f"{package}.{rest.partition('.')[0]}"
    is_its_own = room in KNOWS or room == "ingress.clients" or room.partition(".")[2] in PROGRAM
    return room if is_its_own else package


def modules_of(room: str) -> Iterator[Path]:
    folder = ROOT.joinpath(*room.split("."))
    assert folder.is_dir()
    is_package = "." not in room
    for path in folder.glob("*.py") if is_package else folder.rglob("*.py"):
        if not (is_package and path.stem in PROGRAM):
            yield path


@pytest.mark.parametrize("room", KNOWS)
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    may = {room, *KNOWS[room]}
    for path in modules_of(room):
        for name in imported(path):
            package = name.partition(".")[0]
            if package in FORBIDDEN:
                found = room_of(name)
                known = found if package == room.partition(".")[0] else package
                assert known in may, f"{path.relative_to(ROOT)} imports {name}"


def test_every_room_says_in_a_sentence_what_it_is_for() -> None:
    for room in KNOWS:
        source = ROOT.joinpath(*room.split("."), "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(source)), room


def test_every_file_that_the_page_about_the_architecture_names_is_there() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:ingress|worker|shared|tests|deploy)/[\w./]+)`", page))
    assert len(named) > 30
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("program", ["ingress", "worker"])
def test_a_start_loads_nothing_that_only_commands_need(program: str) -> None:
    asked = f"import sys, {program}.__main__; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", asked], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not set(loaded) & {"yaml", "tomlkit", "rich", "jinja2", "sqlalchemy", f"{program}.check"}
