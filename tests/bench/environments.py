"""The peers' environments: one folder each under `.bench`, made from pinned versions."""

import platform
import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".bench"
SCRIPTS: Final = Path(__file__).parent / "peers"

_READY: Final = ".ready"
_INSTALL_SECONDS: Final = 300.0


class CannotRunError(Exception):
    """Something can't be measured on this machine; the message says why, in one line."""


def python_environment(name: str) -> Path:
    """The Python of a peer's virtual environment.

    Args:
        name: of the peer; ``{name}.txt`` lists its packages.

    Raises:
        CannotRunError: they can't be installed.
    """
    requirements = SCRIPTS / f"{name}.txt"
    folder = CACHE / name
    python = folder / "bin" / "python"
    stamp = f"{platform.python_version()}\n{requirements.read_text()}"
    if not _is_ready(folder, stamp):
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _install([*pip, "--requirement", str(requirements)], folder)
        (folder / _READY).write_text(stamp)
    return python


def node_packages(name: str) -> Path:
    """The ``node_modules`` of a peer.

    Raises:
        CannotRunError: Node or npm is not there, or the packages can't be installed.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise CannotRunError(f"{program} is not installed")
    folder = CACHE / name
    manifest = (SCRIPTS / "package.json").read_text()
    if not _is_ready(folder, manifest):
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder)
        (folder / "package.json").write_text(manifest)
        quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        _install(["npm", "install", "--silent", *quiet], folder)
        (folder / _READY).write_text(manifest)
    return folder / "node_modules"


def _is_ready(folder: Path, stamp: str) -> bool:
    """Whether an earlier run made it of the same packages; also makes the cache folder."""
    _make(CACHE)
    (CACHE / ".gitignore").write_text("*\n")
    ready = folder / _READY
    return ready.exists() and ready.read_text() == stamp


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _install(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            timeout=_INSTALL_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotRunError(f"not installed within {_INSTALL_SECONDS:g} s") from None
    if done.returncode:
        raise CannotRunError(f"not installed: {last_line(done.stderr or done.stdout)}")


def last_line(text: str) -> str:
    """The last line that says something."""
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no output"])[-1]
