"""How many instructions a program executes, whatever else its machine does: counted by Valgrind."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from deploy.local.embedded_redis import find_redis_server
from tests.bench.environments import CannotRunError

_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
_OUTPUT: Final = "instructions"


def counted_redis(folder: Path) -> Path:
    """A program that starts Redis so that its instructions are counted; it is slow.

    Args:
        folder: for it and the counts.

    Raises:
        CannotRunError: Valgrind isn't there.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CannotRunError("valgrind is not installed")
    program = folder / "redis-server"
    words = f"{valgrind} --quiet --tool=callgrind --callgrind-out-file={folder / _OUTPUT}.%p"
    program.write_text(f'#!/bin/sh\nexec {words} {find_redis_server()} "$@"\n')
    program.chmod(0o700)
    return program


def instructions(folder: Path, pid: int) -> int:
    """Those that such a server has executed since its start.

    Args:
        folder: of `counted_redis`.
        pid: of the server.
    """
    words = ["/usr/bin/env", "callgrind_control", "--dump", str(pid)]
    subprocess.run(words, check=True, capture_output=True)
    # Each has what came since the one before.
    counts = (_TOTAL.search(path.read_text()) for path in folder.glob(f"{_OUTPUT}.{pid}.*"))
    return sum(int(found[1]) for found in counts if found)
