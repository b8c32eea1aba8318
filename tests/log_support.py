"""The log of the program under test, as a test reads it."""

import contextlib
import json
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from typing import Any

from shared.observe import logs
from shared.settings.config import LogLevel


class CapturedLog:
    """What has been logged."""

    def __init__(self, buffer: BytesIO) -> None:
        self._buffer = buffer

    @property
    def text(self) -> str:
        """All of it."""
        return self._buffer.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its lines, each a JSON object."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def events(self) -> list[str]:
        """The events in order."""
        return [line["event"] for line in self.lines]


@contextlib.contextmanager
def captured_log(level: LogLevel = "info") -> Iterator[CapturedLog]:
    """Capture the log while a block runs."""
    buffer = BytesIO()
    stream = TextIOWrapper(buffer, encoding="utf-8")  # held here: it would close the buffer
    logs.configure(level=level, fmt="json", stream=stream)
    try:
        yield CapturedLog(buffer)
    finally:
        logs.configure(level="info", fmt="json")
        stream.detach()
