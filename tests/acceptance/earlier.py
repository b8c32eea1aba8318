"""The earlier version that runs beside this one in a rolling deploy."""

import io
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Final

from tests.acceptance.process import ROOT

EARLIER: Final = "f5d2509e6dec3e059761132b5ae8af930b84c51d"
"""Whatever is stored in Redis has to be read by both."""


def unpack(folder: Path) -> None:
    """Put its source there."""
    archive = _git("archive", EARLIER, "shared", "ingress", "worker", "tests")
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        members.extractall(folder, filter="data")


@cache
def users() -> dict[str, str]:
    """What its line in `users.acl` says of each user's keys and commands."""
    lines = _git("show", f"{EARLIER}:deploy/redis/users.acl").decode().splitlines()
    return {line.split()[1]: line.partition(" resetpass ")[2] for line in lines}


def _git(*words: str) -> bytes:
    command = ("git", *words)
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
