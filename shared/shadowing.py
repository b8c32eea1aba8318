"""Packages of somebody else's that stand where this project's are looked for.

`ingress` and `worker` run this file by its place before they import anything else, since
``shared`` may be somebody else's by then; so it imports nothing of ours.
"""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

NAMES: Final = ("ingress", "shared", "worker")
"""The packages of this project; each is a word that others use, too."""

ROOT: Final = Path(__file__).resolve().parents[1]
"""Where all of them are."""

_PROGRAMS: Final = ("-m", "sellfern-ingress", "sellfern-worker")
"""What ``sys.argv[0]`` ends in while one of the programs begins: Python says -m until it has it."""


def refuse_shadows(program: str) -> None:
    """Make sure that ``shared`` is ours; otherwise say on a line what is in its place, and leave.

    Args:
        program: the package that asks, ``ingress`` or ``worker``.

    Raises:
        SystemExit: it is not, and this is the program itself; the exit code is 2.
        ImportError: it is not, and something else imports the package.
    """
    for name, place in strangers():
        if name == "shared":
            message = (
                f"expected {ROOT / name} as the package {name}, got {place}: {_way_out(program)}"
            )
            if Path(sys.argv[0]).name not in _PROGRAMS:
                raise ImportError(message, name=name)
            sys.stderr.write(f"error: {message}\n")
            raise SystemExit(2)


def strangers() -> Iterator[tuple[str, Path]]:
    """Each of our names that means something else here, and what that is."""
    for name in NAMES:
        place = _place(name)
        if place is not None and place.parent != ROOT:
            yield name, place


def hidden(name: str, folder: Path) -> Path | None:
    """What a folder has under a name of ours, where nobody finds it since ours has that name."""
    top = name.partition(".")[0]
    if top in NAMES and folder.resolve() != ROOT:
        for place in (folder / top, folder / f"{top}.py"):
            if place.exists():
                return place
    return None


def _place(name: str) -> Path | None:
    """The folder or the file of a package or module, as an import would find it now."""
    try:
        spec = find_spec(name)
    # ValueError: it is loaded already, by something that gave it no spec.
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    # A folder has no origin where it has no __init__.py.
    folders = list(spec.submodule_search_locations or [])
    found = folders[0] if folders else spec.origin
    return Path(found).resolve() if found else None


def _way_out(program: str) -> str:
    if Path(sys.argv[0]).name == "-m":
        return f"start it as sellfern-{program}, which doesn't look here first, or rename that"
    return "rename that, or take it off PYTHONPATH"
