"""``python -m tests.bench.structure``: how much the product is, and in how many pieces.

A line of code is one with anything on it but a comment or a docstring. A comment is a line of one,
but for those that speak to a tool. A module's importers are counted among the product's.
"""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tests.bench.environments import ROOT

PRODUCT: Final = ("ingress", "worker", "shared", "deploy")
SMALL: Final = 40
"""Lines, of any kind, below which a module has to earn its place."""

_ENTRANCES: Final = ("__init__", "__main__")
_TO_A_TOOL: Final = ("# noqa", "# type:")
_NOTHING: Final = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.COMMENT,
}


@dataclass(frozen=True, slots=True)
class Module:
    """A file of the product.

    Attributes:
        name: by which it is imported; a package's is that of its ``__init__``.
        stem: of the file.
        lines: of any kind.
        code: lines of code.
        comments: lines of comments.
        mentions: the names that its imports bring, with all that they may be part of.
    """

    name: str
    stem: str
    lines: int
    code: int
    comments: int
    mentions: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Structure:
    """The figures of all modules together."""

    modules: tuple[Module, ...]

    @property
    def code_lines(self) -> Counter[str]:
        """Lines of code, by package."""
        lines: Counter[str] = Counter()
        for module in self.modules:
            lines[module.name.partition(".")[0]] += module.code
        return lines

    @property
    def comments(self) -> float:
        """Comments a hundred lines of code."""
        return 100 * sum(each.comments for each in self.modules) / self.code_lines.total()

    @property
    def small(self) -> list[str]:
        """The modules of few lines, without those that only begin a package or a program."""
        return sorted(
            each.name for each in self.modules if each.lines < SMALL and each.stem not in _ENTRANCES
        )

    @property
    def with_one_importer(self) -> list[str]:
        """The modules that one other of them imports."""
        names = {module.name for module in self.modules}
        importers = Counter(
            imported for module in self.modules for imported in _imported(module, names)
        )
        return sorted(
            each.name
            for each in self.modules
            if importers[each.name] == 1 and each.stem != "__main__"
        )


def measure(root: Path = ROOT) -> Structure:
    """Read all modules of the product below a folder."""
    paths = [path for package in PRODUCT for path in sorted((root / package).rglob("*.py"))]
    return Structure(tuple(_read(path, path.relative_to(root)) for path in paths))


def _read(path: Path, place: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    code, comments = _lines(source, tree)
    parts = place.with_suffix("").parts
    return Module(
        name=".".join(parts[:-1] if path.stem == "__init__" else parts),
        stem=path.stem,
        lines=source.count("\n"),
        code=code,
        comments=comments,
        mentions=frozenset(_mentioned(tree)),
    )


def _lines(source: str, tree: ast.AST) -> tuple[int, int]:
    """The numbers of lines of code and of comments."""
    code: set[int] = set()
    comments = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        comments += token.type == tokenize.COMMENT and not token.string.startswith(_TO_A_TOOL)
        if token.type not in _NOTHING:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - _docstrings(tree)), comments


def _docstrings(tree: ast.AST) -> set[int]:
    """The lines of texts that stand by themselves, those below an attribute too."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _mentioned(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What is imported: as a module's name, and the module that it is in where it is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", node.module) for alias in node.names)


def _imported(module: Module, names: set[str]) -> set[str]:
    """The product's modules that a module imports."""
    found = {name if name in names else parent for name, parent in module.mentions}
    return found & names


@click.command()
@click.option("--list", "listed", is_flag=True, help="The modules' names, too.")
def main(*, listed: bool) -> None:
    """Print the figures that `tests/unit/test_structure.py` keeps."""
    structure = measure()
    lines = structure.code_lines
    by_package = ", ".join(f"{package} {lines[package]:,}" for package in PRODUCT)
    click.echo(f"{lines.total():,} lines of code: {by_package}")
    click.echo(f"{structure.comments:.2f} comments a hundred of them")
    for what, names in (
        (f"modules under {SMALL} lines", structure.small),
        ("modules with one importer", structure.with_one_importer),
    ):
        click.echo(f"{len(names)} {what}")
        for name in names if listed else ():
            click.echo(f"  {name}")


if __name__ == "__main__":
    main()
