"""What the numbers were measured on: machine, versions, date."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Self

from deploy.local.embedded_redis import find_redis_server

_OURS = ("aiohttp", "arq", "redis", "hiredis", "uvloop", "msgspec")


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine at one time.

    Attributes:
        date: when, UTC.
        system: kernel and architecture.
        processor: its name.
        cores: how many it has.
        memory_gib: how much it has.
        versions: by name.
    """

    date: str
    system: str
    processor: str
    cores: int
    memory_gib: int
    versions: dict[str, str]

    @classmethod
    def here(cls) -> Self:
        """This machine, now."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gib=round(memory / 2**30),
            versions=_versions(),
        )

    def described(self) -> str:
        """One paragraph."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"Measured {self.date} on {self.cores} cores of {self.processor}, "
            f"{self.memory_gib} GiB, {self.system}; {versions}."
        )


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {"Python": platform.python_version(), "Redis": _redis_version()}
    if node := shutil.which("node"):
        versions["Node"] = _said(node, "--version").removeprefix("v")
    return versions | {name: version(name) for name in _OURS}


def _redis_version() -> str:
    found = re.search(r"v=(\S+)", _said(str(find_redis_server()), "--version"))
    return found[1] if found else "unknown"


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
