"""Whole runs that are kept, and the medians of them.

A shared machine is faster in one hour than in the next by more than the rounds of one run show. So
what is said of the project are the medians of several runs, each of which is kept whole.
"""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from tests.bench.environments import ROOT
from tests.bench.figures import Figure
from tests.bench.machine import Machine

COMBINED: Final = 3
"""So many runs count, the newest ones: those before were of other code."""

NUMBERS: Final = "results.json"
_KEPT: Final = "runs"


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that was measured at one time.

    Attributes:
        machine: where, and when it began.
        commit: of the code, as ``git describe`` says it; empty where nobody knows.
        minutes: that it took.
        figures: the medians of its rounds, by ``section/name``.
        raw: every round's numbers, by section.
        missing: what could not be run, and why, by section.
    """

    machine: Machine
    commit: str
    minutes: float
    figures: Mapping[str, Figure]
    raw: Mapping[str, Any]
    missing: Mapping[str, Mapping[str, str]]

    @property
    def name(self) -> str:
        """When it was, and of what."""
        return f"{self.machine.date} ({self.commit})" if self.commit else self.machine.date

    def keep(self, folder: Path) -> None:
        """Write it among the others of a folder of results."""
        runs = folder / _KEPT
        runs.mkdir(parents=True, exist_ok=True)
        date = self.machine.date.removesuffix(" UTC").replace(" ", "T").replace(":", "")
        (runs / f"{date}.json").write_bytes(_json(self))


@dataclass(frozen=True, slots=True)
class Results:
    """What the newest runs say together.

    Attributes:
        runs: what they are called, the oldest first.
        figures: of each the median of the runs' medians, with the lowest and the highest of them.
    """

    runs: Sequence[str]
    figures: Mapping[str, Figure]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Self:
        """Of these runs; a figure that not all of them have is of those that do."""
        medians: dict[str, list[float]] = {}
        for run in runs:
            for name, figure in run.figures.items():
                medians.setdefault(name, []).append(figure.middle)
        figures = {name: Figure.of(of_runs) for name, of_runs in medians.items()}
        return cls([run.name for run in runs], figures)

    def write(self, folder: Path) -> None:
        """Write them to ``results.json``."""
        (folder / NUMBERS).write_bytes(_json(self))


def kept(folder: Path) -> list[Run]:
    """The newest runs that are kept in a folder of results, the oldest first."""
    newest = sorted((folder / _KEPT).glob("*.json"))[-COMBINED:]
    return [msgspec.json.decode(path.read_bytes(), type=Run) for path in newest]


def commit() -> str:
    """What git says that is here; nothing where it can't."""
    git = shutil.which("git")
    if git is None:
        return ""
    words = [git, "describe", "--always", "--dirty"]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def _json(thing: Run | Results) -> bytes:
    return msgspec.json.format(msgspec.json.encode(asdict(thing)), indent=1) + b"\n"
