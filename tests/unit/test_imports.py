"""Facts about which room may know which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "shared": {"ingress", "worker", "deploy", "tests"},
    "ingress": {"worker", "deploy", "tests"},
    "worker": {"ingress", "deploy", "tests"},
}


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: a relative import hides where it goes")
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_may_know(package: str) -> None:
    modules = list((ROOT / package).rglob("*.py"))
    assert modules
    for module in modules:
        wrong = imported(module) & FORBIDDEN[package]
        assert not wrong, f"{module.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("program", ["ingress", "worker"])
def test_a_start_loads_nothing_that_only_commands_need(program: str) -> None:
    asked = f"import sys, {program}.__main__; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", asked], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not set(loaded) & {"yaml", "tomlkit", "jinja2", f"{program}.check"}
