"""The sender's own ledger: every event, every body, every answer, one JSON line each."""

import json
import time
from pathlib import Path
from typing import Any


class Ledger:
    """Written by the sender and the saboteur, read by the checker.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def write(self, what: str, **fields: Any) -> None:
        """Add a line; it bears the machine's monotonic clock."""
        self._file.write(json.dumps({"what": what, "at": time.monotonic(), **fields}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
