"""A part of the chaos suite, short enough for every run of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.process import ROOT
from tests.chaos import faults, single_faults

PATIENCE = 300.0
"""A machine may be busy with other things; on a quiet one it takes half a minute."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits files by prlimit")


def test_one_fault_of_each_kind_breaks_no_promise(tmp_path: Path) -> None:
    kinds = single_faults.REQUIRED["fsync"]
    options = {
        "--durability": "fsync",
        "--faults": str(len(kinds)),
        "--events": "300",
        "--rate": "60",
        "--pause": "0.2",
        "--quiet-within": "30",  # two leases are for a machine of its own
        "--seed": "7",
    }
    words = [word for option in options.items() for word in option]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *words, "--partial"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" not in done.stdout.replace("broken connections", "")
    assert done.stdout.endswith("\nHOLDS\n")
    assert all(f"{len(kinds)} {faults.name(kind)}," in done.stdout for kind in kinds)
    assert list(tmp_path.iterdir()) == []
