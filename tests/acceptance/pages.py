"""The commands that this project's pages show, and a fresh copy of it where they are typed."""

import os
import re
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from textwrap import dedent
from typing import Final, Self

from tests.acceptance.process import PATIENCE, ROOT
from tests.tools import tool

_BLOCK: Final = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"\s+# .*$", re.MULTILINE)
_HEADING: Final = re.compile(r"^## (.+)$", re.MULTILINE)
_FILE: Final = re.compile(r"# (\w[\w./-]*\.\w+)\n")
_COMMAND: Final = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_LONGEST: Final = 120.0
"""Seconds that a command may take whose end is waited for, on a busy machine."""


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of a language on a page, by its path below the root."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for name, code in _blocks_of(text) if name == language]


def commands(page: str) -> list[str]:
    """What a page shows behind a ``$``, in order, each with the lines that go on with it."""
    return [command for command, _ in _commands_in("".join(blocks(page, "console")))]


def _blocks_of(text: str) -> list[tuple[str, str]]:
    return [(name, dedent(code)) for _, name, code in _BLOCK.findall(text)]


def _commands_in(shown: str) -> list[tuple[str, str]]:
    """Each command, and what is shown below it."""
    return [(_COMMENT.sub("", each).strip(), below) for each, below in _COMMAND.findall(shown)]


@dataclass(frozen=True, slots=True)
class Program:
    """What a section of a page has its reader write and type.

    A block that begins with a comment of a file's name is that file; what stands below a command
    is what it answers, line by line, where ``…`` stands for anything.

    Attributes:
        title: of the section.
        files: by their names.
        typed: the commands, in order.
    """

    title: str
    files: dict[str, str]
    typed: list["Typed"]


def programs(page: str) -> list[Program]:
    """The programs of a page: of each section that names a file."""
    _, *parts = _HEADING.split((ROOT / page).read_text(encoding="utf-8"))
    found = [_program(title, text) for title, text in zip(parts[::2], parts[1::2], strict=True)]
    return [each for each in found if each.files]


def _program(title: str, text: str) -> Program:
    files, typed = dict[str, str](), list[Typed]()
    for language, code in _blocks_of(text):
        if language == "console":
            typed += [Typed(command, _pattern(below)) for command, below in _commands_in(code)]
        elif named := _FILE.match(code):
            files[named[1]] = code
    return Program(title, files, typed)


def _pattern(shown: str) -> str:
    """What an output has in it that is shown so."""
    lines = [re.escape(line).replace("…", ".*") for line in shown.splitlines() if line.strip()]
    return r"(?:.*\n)*?".join(lines)


def pages() -> list[str]:
    """All pages of this project, by their paths below the root."""
    return _listed("*.md")


@dataclass(frozen=True, slots=True)
class Typed:
    """A command of a page, with what the page says that comes of it.

    Attributes:
        command: as the page shows it.
        answer: a pattern that its output has.
        goes_on: whether it is a program that runs until Ctrl-C.
        looks: whether it shows what is being done elsewhere: it is typed until that is so.
    """

    command: str
    answer: str
    goes_on: bool = False
    looks: bool = False

    def is_answer(self, output: str) -> bool:
        """Whether the page is right."""
        return bool(re.search(self.answer, output, re.MULTILINE))


@dataclass
class Terminal:
    """A shell in a folder, which has no settings but those of the test.

    Attributes:
        folder: where commands are typed.
        environ: what the shell begins with.
        logs: a folder for what programs say that go on.
        places: what the pages show, an address say, and what stands for it in this test.
    """

    folder: Path
    environ: dict[str, str]
    logs: Path
    places: dict[str, str] = field(default_factory=dict)
    _set: str = ""
    _running: list["_Running"] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._running:
            each.end()

    def type_all(self, *sessions: Sequence[Typed]) -> None:
        """Type one command after the other; each has to answer as its page says."""
        for typed in chain.from_iterable(sessions):
            command = typed.command
            for shown, place in self.places.items():
                command = command.replace(shown, place)
            if typed.goes_on:
                self._begin(command).until(typed.answer)
            else:
                self._type(command, typed)

    def _type(self, command: str, typed: Typed) -> None:
        if command.startswith("export "):  # holds for all that is typed behind it
            self._set += f"{command}\n"
        deadline = time.monotonic() + PATIENCE
        output = self._run(command)
        while typed.looks and not typed.is_answer(output) and time.monotonic() < deadline:
            output = self._run(command)
        assert typed.is_answer(output), f"{command}\n{output}"

    def interrupt(self) -> str:
        """Press Ctrl-C in the program that has been started last; all that it has said."""
        return self._running.pop().interrupted()

    def _begin(self, command: str) -> "_Running":
        log = self.logs / f"{len(self._running)}.log"
        running = _Running(self._set + command, self.folder, self.environ, log)
        self._running.append(running)
        return running

    def _run(self, command: str) -> str:
        ended = subprocess.run(
            ["/bin/sh", "-c", self._set + command],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}"
        return ended.stdout


class _Running:
    """A program in the foreground of a terminal of its own."""

    def __init__(self, command: str, folder: Path, environ: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, answer: str) -> str:
        """Wait until its output has this pattern."""
        deadline = time.monotonic() + _LONGEST
        while not re.search(answer, output := self._log.read_text(), re.MULTILINE):
            assert self._process.poll() is None, output
            assert time.monotonic() < deadline, output
            time.sleep(0.02)
        return output

    def interrupted(self) -> str:
        """What it has said at its end, after Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(PATIENCE)
        finally:
            self.end()
        return self._log.read_text()

    def end(self) -> None:
        """End it with all that it has started, whatever they do."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def fresh_checkout(folder: Path) -> Path:
    """Copy what git tracks; `make setup` has run there, but that nothing was downloaded."""
    for name in _listed():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    environment = folder / ".venv"
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    # The folders alone, without their .pth files: one of those leads to this repository.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    pip = ("-m", "pip", "--python", python, "install", "--quiet", "--no-index")
    editable = ("--no-deps", "--no-build-isolation", "--editable", ".")
    subprocess.run([sys.executable, *pip, *editable], cwd=folder, check=True)
    (environment / ".ready").touch()
    return folder


def environment_of(home: Path) -> dict[str, str]:
    """What a shell has where nobody has set anything, in an empty home."""
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PIP_NO_INDEX": "1"}


def _listed(*patterns: str) -> list[str]:
    """The files that git tracks, and that are there."""
    words = [str(tool("git")), "ls-files", "-z", *patterns]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in found.stdout.split("\0") if name and (ROOT / name).is_file()]
