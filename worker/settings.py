"""The worker's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from shared.errors import SettingsError
from shared.program.listening import Address, read_address
from shared.settings.config import CommonSettings
from shared.settings.durations import format_duration
from shared.settings.reader import Reader
from worker.pipeline.memory import DEFAULT
from worker.pipeline.policy import Backoff, Breaker, Limits, Policy

_HORIZON: Final = (
    "MAX_ATTEMPTS",
    "HANDLER_TIMEOUT",
    "BACKOFF_BASE",
    "BACKOFF_CAP",
    "MAX_EVENT_AGE",
    "DEDUPE_RETENTION",
    "CLOCK_SKEW",
)
"""What says how long an event may be tried."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the worker needs to be told; times are seconds.

    Attributes:
        common: what both programs need.
        handlers: ``package.module:name`` of the registry.
        concurrency: how many events this worker handles at once.
        organization_concurrency: how many events of one organization are handled at once, by all
            workers together; ``None`` is four of five of all slots.
        admin: where ``/livez``, ``/readyz`` and ``/metrics`` listen.
        lease: how long a job may go without a sign of life from its worker.
        drain: how long handlers may finish after SIGTERM.
        blocked_after: how long the worker's loop may stand still until that is told.
        decoded_bytes: what the decoded bodies of the events in hand may take, by an estimate.
        dead_letter_retention: how long dead letters are kept.
        policy: the rules of handling.
    """

    common: CommonSettings
    handlers: str
    concurrency: int
    organization_concurrency: int | None
    admin: Address
    lease: float
    drain: float
    blocked_after: float
    decoded_bytes: int
    dead_letter_retention: float
    policy: Policy

    @classmethod
    def from_mapping(cls, environ: Mapping[str, str]) -> Self:
        """Read them from an environment.

        Raises:
            SettingsError: some are wrong, or don't fit each other.
        """
        with Reader(environ) as reader:
            return cls.from_reader(reader)

    @classmethod
    def from_reader(cls, reader: Reader) -> Self:
        """Read them in its block."""
        common = CommonSettings.from_reader(reader)
        return cls(
            common=common,
            handlers=read_handlers(reader),
            concurrency=reader.integer("WORKER_CONCURRENCY", 100, minimum=1, maximum=10_000),
            organization_concurrency=reader.integer(
                "ORGANIZATION_CONCURRENCY", 0, minimum=0, maximum=100_000
            )
            # 0 stands for the default: to let an organization's events wait there is `pause`.
            or None,
            # The console's port comes after these; a host with more workers than that names them.
            admin=read_address(reader, "WORKER_ADMIN", 9102, last_port=9199),
            lease=reader.duration("LEASE_SECONDS", "30s", minimum="1s", maximum="1h"),
            drain=common.drain_seconds,
            blocked_after=reader.duration("BLOCKED_AFTER", "1s", minimum="100ms", maximum="1h"),
            decoded_bytes=reader.integer("MAX_DECODED_BYTES", DEFAULT, minimum=1024 * 1024),
            dead_letter_retention=reader.duration(
                "DEAD_LETTER_RETENTION", "90d", minimum="1m", maximum="3650d"
            ),
            policy=_policy(reader),
        )


def read_handlers(reader: Reader) -> str:
    """Where the registry is: ``package.module:name``."""
    return reader.text(
        "WORKER_HANDLERS",
        "worker.handlers:handlers",
        pattern=r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*",
        expected="package.module:name",
    )


def _policy(reader: Reader) -> Policy:
    policy = Policy(
        limits=_limits(reader),
        handler_timeout=reader.duration("HANDLER_TIMEOUT", "60s", minimum="10ms", maximum="1d"),
        max_attempts=reader.integer("MAX_ATTEMPTS", 12, minimum=1, maximum=1000),
        max_claims=reader.integer("MAX_CRASHES", 3, minimum=1, maximum=1000),
        backoff=_backoff(reader),
        breaker=Breaker(
            failures=reader.integer("BREAKER_FAILURES", 50, minimum=0, maximum=1_000_000),
            share=reader.number("BREAKER_SHARE", 0.0, minimum=0.0, maximum=1.0),
            sample=reader.integer("BREAKER_SAMPLE", 20, minimum=1, maximum=1_000_000),
            cool_off=reader.duration("BREAKER_COOL_OFF", "30s", minimum="10ms", maximum="1d"),
        ),
        stuck_after=reader.duration("STUCK_AFTER", "5s", minimum="10ms", maximum="1h"),
        no_handler_patience=reader.duration(
            "NO_HANDLER_PATIENCE", "10m", minimum="0", maximum="30d"
        ),
    )
    if reader.are_good(*_HORIZON):
        _check_horizon(reader, policy)
    return policy


def _check_horizon(reader: Reader, policy: Policy) -> None:
    """An event that is retried for longer than deleted versions stay known would revive them."""
    limits = policy.limits
    horizon = policy.backoff.horizon(policy.max_attempts)
    horizon += policy.max_attempts * policy.handler_timeout
    most = limits.dedupe_retention - limits.clock_skew - limits.max_event_age
    if horizon > most:
        expected = (
            "attempts (with HANDLER_TIMEOUT each, and the delays up to BACKOFF_CAP between them) "
            "that take at most DEDUPE_RETENTION minus CLOCK_SKEW minus MAX_EVENT_AGE "
            f"({format_duration(most)}) together"
        )
        got = f"{policy.max_attempts}, which may take {format_duration(horizon)}"
        reader.refuse(SettingsError("MAX_ATTEMPTS", expected, got))


def _limits(reader: Reader) -> Limits:
    limits = Limits(
        max_event_age=reader.duration("MAX_EVENT_AGE", "6d", minimum="1m", maximum="3650d"),
        dedupe_retention=reader.duration("DEDUPE_RETENTION", "7d", minimum="2m", maximum="3650d"),
        clock_skew=reader.duration("CLOCK_SKEW", "5m", minimum="0", maximum="1d"),
    )
    good = reader.are_good("MAX_EVENT_AGE", "DEDUPE_RETENTION", "CLOCK_SKEW")
    if good and limits.max_event_age >= limits.dedupe_retention - limits.clock_skew:
        expected = (
            "less than DEDUPE_RETENTION minus CLOCK_SKEW "
            f"({format_duration(limits.dedupe_retention)} - {format_duration(limits.clock_skew)}), "
            "so that a late redelivery still finds its mark"
        )
        got = format_duration(limits.max_event_age)
        reader.refuse(SettingsError("MAX_EVENT_AGE", expected, got))
    return limits


def _backoff(reader: Reader) -> Backoff:
    backoff = Backoff(
        base=reader.duration("BACKOFF_BASE", "1s", minimum="1ms", maximum="1d"),
        cap=reader.duration("BACKOFF_CAP", "1h", minimum="1ms", maximum="7d"),
    )
    if reader.are_good("BACKOFF_BASE", "BACKOFF_CAP") and backoff.base > backoff.cap:
        expected = f"at most BACKOFF_CAP ({format_duration(backoff.cap)})"
        reader.refuse(SettingsError("BACKOFF_BASE", expected, format_duration(backoff.base)))
    return backoff
