"""``python -m tests.bench.traced_program FILE MODULE``: runs a program, noting each call it makes.

What is noted goes to the file when the program ends: a line a call of this project's own functions,
with the moment (by the clock that all processes share), the file, the line and the name.
"""

import runpy
import sys
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

from tests.bench.environments import ROOT

_OURS: Final = tuple(f"{ROOT / room}/" for room in ("ingress", "worker", "shared"))

_calls: list[tuple[float, CodeType]] = []


def _note(frame: FrameType, event: str, _argument: Any) -> None:
    if event == "call" and frame.f_code.co_filename.startswith(_OURS):
        _calls.append((time.monotonic(), frame.f_code))


def _write(path: Path) -> None:
    with path.open("w") as file:
        for moment, code in _calls:
            name = Path(code.co_filename).relative_to(ROOT)
            file.write(f"{moment:.6f} {name} {code.co_firstlineno} {code.co_qualname}\n")


def _main(path: str, module: str, *arguments: str) -> None:
    sys.argv = [module, *arguments]
    sys.setprofile(_note)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.setprofile(None)
        _write(Path(path))


if __name__ == "__main__":
    _main(*sys.argv[1:])
