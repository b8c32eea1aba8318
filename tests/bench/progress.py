"""How far a run has come: one line that changes on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Final, TextIO

_CLEAR: Final = "\r\x1b[K"


class Progress:
    """Tells what is being measured.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._started = time.monotonic()
        self._section = ""
        self._steps = self._done = 0

    def begin(self, section: str, steps: int) -> None:
        """A section of so many steps begins."""
        self._section, self._steps, self._done = section, steps, 0

    def step(self, what: str) -> None:
        """The next step begins."""
        self._done += 1
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        place = f"{self._section} {self._done}/{self._steps}"
        line = f"{minutes:02d}:{seconds:02d}  {place:<18} {what}"
        self._stream.write(f"{_CLEAR}{line}" if self._live else f"{line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the changing line away, before something else is printed."""
        if self._live:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(f"{_CLEAR if self._live else ''}{text}\n")
        self._stream.flush()
