"""Starts a demo that can be interrupted from its first moment."""

import sys
from collections.abc import Callable
from typing import Final

_INTERRUPTED: Final = 130


def start(load: Callable[[], Callable[[], object]]) -> None:
    """Load a demo and run it.

    Args:
        load: imports what runs it; that takes a while, and a traceback is no answer to Ctrl-C.
    """
    try:
        run = load()
    except KeyboardInterrupt:
        print("interrupted; nothing was started", file=sys.stderr)  # noqa: T201  # click isn't there
        raise SystemExit(_INTERRUPTED) from None
    run()
