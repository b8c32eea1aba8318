"""What both programs are told, and what settings are read with."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from shared.settings.reader import Reader, Settings
from shared.settings.redis_url import EXPECTED, RedisUrl

LogFormat = Literal["json", "console"]
"""How log lines look."""

TracingMode = Literal["off", "otlp"]
"""What ``TRACING`` may say."""

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
"""The least urgent lines that are logged."""

_REDIS_URL: Final = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True, slots=True)
class CommonSettings(Settings):
    """What both programs need to be told.

    Attributes:
        redis_url: the Redis that they share.
        endpoints_file: the TOML file of endpoints and their secrets.
        reference_file: the imported reference data; None where none is named.
        log_level: the least urgent lines that are logged.
        log_format: JSON for machines, console for people.
        tracing: whether spans are made, and where they go.
        drain_seconds: how long what is in hand may take to finish after SIGTERM.
    """

    redis_url: RedisUrl
    endpoints_file: Path
    reference_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    tracing: TracingMode
    drain_seconds: float

    @classmethod
    def from_reader(cls, reader: Reader, *, terminal: bool | None = None) -> Self:
        """Read them.

        Args:
            reader: where from.
            terminal: whether people read the log; by default, whether stderr is a terminal.

        Raises:
            SettingsError: one is wrong; none is required.
        """
        read_by_people = sys.stderr.isatty() if terminal is None else terminal
        log_format: LogFormat = "console" if read_by_people else "json"
        reference_file = reader.text("REFERENCE_FILE", "")
        return cls(
            redis_url=reader.parsed("REDIS_URL", RedisUrl(_REDIS_URL), _redis_url, EXPECTED),
            endpoints_file=Path(reader.text("ENDPOINTS_FILE", "endpoints.toml")),
            reference_file=Path(reference_file) if reference_file else None,
            log_level=reader.choice("LOG_LEVEL", get_args(LogLevel), "info"),
            log_format=reader.choice("LOG_FORMAT", get_args(LogFormat), log_format),
            tracing=reader.choice("TRACING", get_args(TracingMode), "off"),
            # One rule, since both programs are often given one environment.
            drain_seconds=reader.duration("DRAIN_SECONDS", "25s", minimum="1s", maximum="1h"),
        )


def _redis_url(text: str) -> RedisUrl:
    # What a file ends with goes, as with every secret; of blanks and quotes `RedisUrl` tells.
    return RedisUrl(text.strip("\ufeff\r\n"))
