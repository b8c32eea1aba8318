"""A registry that isn't there: pin-images.sh run with a stand-in for docker."""

import os
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.tools import tool

_DOCKER: Final = """#!/bin/sh
[ "$1 $2 $3 $5 $6" = "buildx imagetools inspect --format {{.Manifest.Digest}}" ] || exit 64
[ "$4" != "$UNKNOWN" ] || exit 1
printf sha256:%s "$(printf %s "$4" | sha256sum | cut -d ' ' -f 1)"
"""


def pin(script: Path, folder: Path, *, unknown: str = "") -> subprocess.CompletedProcess[str]:
    """Run it for a folder; of one image the registries know nothing."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "docker").write_text(_DOCKER)
    (programs / "docker").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [tool("sh"), script, folder],
        env={**os.environ, "PATH": path, "UNKNOWN": unknown},
        capture_output=True,
        text=True,
        check=False,
    )


def digest(image: str) -> str:
    """What that registry says."""
    return f"sha256:{sha256(image.encode()).hexdigest()}"
