"""What both programs are told, and what settings are read with."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from shared.errors import SettingsError
from shared.settings.reader import Reader, Settings
from shared.settings.redis_setting import read_urls
from shared.settings.redis_url import RedisUrl

LogFormat = Literal["json", "console"]
"""How log lines look."""

TracingMode = Literal["off", "otlp"]
"""What ``TRACING`` may say."""

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
"""The least urgent lines that are logged."""

MOST_PARTITIONS: Final = 256

_REDIS_URL: Final = "redis://127.0.0.1:6379/0"
_PARTITIONS_OF_SEVERAL: Final = 16
"""Of several primaries, or of a cluster."""


@dataclass(frozen=True, slots=True)
class CommonSettings(Settings):
    """What both programs need to be told.

    Attributes:
        redis_urls: the Redis that they share; of several independent primaries each one. A
            cluster is one.
        partitions: how many queues these hold together.
        endpoints_file: the TOML file of endpoints and their secrets.
        reference_file: the imported reference data; None where none is named.
        log_level: the least urgent lines that are logged.
        log_format: JSON for machines, console for people.
        tracing: whether spans are made, and where they go.
        drain_seconds: how long what is in hand may take to finish after SIGTERM.
        redis_url_before: a single queue from which organizations move into partitions, while they
            do.
    """

    redis_urls: tuple[RedisUrl, ...]
    partitions: int
    endpoints_file: Path
    reference_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    tracing: TracingMode
    drain_seconds: float
    redis_url_before: RedisUrl | None = None

    @property
    def redis_url(self) -> RedisUrl:
        """The only Redis; of several, the first."""
        return self.redis_urls[0]

    @property
    def in_cluster(self) -> bool:
        """Whether they are in a cluster, whose nodes may have any of them."""
        return self.redis_url.nodes is not None

    @property
    def clients(self) -> int:
        """How many clients reach them all: one for each primary, or in a cluster one for each."""
        return self.partitions if self.in_cluster else len(self.redis_urls)

    @property
    def partitions_each(self) -> int:
        """How many partitions the client has that has most."""
        return -(-self.partitions // self.clients)

    def url_of(self, partition: int) -> RedisUrl:
        """Where a partition is, by its number."""
        return self.redis_urls[partition % len(self.redis_urls)]

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
        redis_urls = read_urls(reader, "REDIS_URL", (RedisUrl(_REDIS_URL),), most=MOST_PARTITIONS)
        partitions = _partitions(reader, redis_urls)
        return cls(
            redis_urls=redis_urls,
            redis_url_before=_before(reader, redis_urls, partitions),
            partitions=partitions,
            endpoints_file=Path(reader.text("ENDPOINTS_FILE", "endpoints.toml")),
            reference_file=Path(reference_file) if reference_file else None,
            log_level=reader.choice("LOG_LEVEL", get_args(LogLevel), "info"),
            log_format=reader.choice("LOG_FORMAT", get_args(LogFormat), log_format),
            tracing=reader.choice("TRACING", get_args(TracingMode), "off"),
            # One rule, since both programs are often given one environment.
            drain_seconds=reader.duration("DRAIN_SECONDS", "25s", minimum="1s", maximum="1h"),
        )


def _before(reader: Reader, redis_urls: tuple[RedisUrl, ...], partitions: int) -> RedisUrl | None:
    found = read_urls(reader, "REDIS_URL_BEFORE", (), most=1)
    if not found:
        return None
    if partitions == 1:
        expected = "PARTITIONS over 1, into which its organizations move"
        reader.refuse(SettingsError("REDIS_URL_BEFORE", expected, "PARTITIONS=1"))
    if found[0] in redis_urls:
        expected = "another Redis than REDIS_URL"
        reader.refuse(SettingsError("REDIS_URL_BEFORE", expected, str(found[0])))
    return found[0]


def _partitions(reader: Reader, urls: tuple[RedisUrl, ...]) -> int:
    """How many there are: a single one has today's names, so one Redis stays as it is."""
    primaries = len(urls)
    is_single = primaries == 1 and urls[0].nodes is None
    default = 1 if is_single else max(_PARTITIONS_OF_SEVERAL, primaries)
    # One that has none would never be asked, and nobody would notice that it is gone.
    return reader.integer("PARTITIONS", default, minimum=primaries, maximum=MOST_PARTITIONS)
