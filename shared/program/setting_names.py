"""The names of all settings, whichever program reads them, and what nearly is one."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from shared.program.findings import Finding

NAMES: Final = frozenset(
    {
        # both
        "DRAIN_SECONDS",
        "ENDPOINTS_FILE",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "PARTITIONS",
        "REDIS_URL",
        "REDIS_URL_BEFORE",
        "REDIS_URL_BEFORE_FILE",
        "REDIS_URL_FILE",
        "REFERENCE_FILE",
        "TRACING",
        # ingress
        "BODY_TIMEOUT",
        "DRAIN_DELAY",
        "DURABILITY",
        "DURABILITY_ASSERTED",
        "DURABILITY_TIMEOUT",
        "HEADER_TIMEOUT",
        "INGRESS_ADMIN_HOST",
        "INGRESS_ADMIN_PORT",
        "INGRESS_HOST",
        "INGRESS_PORT",
        "KEEPALIVE_TIMEOUT",
        "MAX_BACKLOG",
        "MAX_BODY_BYTES",
        "MAX_BYTES_IN_FLIGHT",
        "MAX_CONNECTIONS",
        "MAX_HEADER_BYTES",
        "MAX_ORGANIZATION_BACKLOG",
        "MAX_ORGANIZATION_BYTES",
        "METRICS_ORGANIZATIONS",
        "TRUSTED_PROXIES",
        "WAIT_REPLICAS",
        # management
        "INGRESS_PUBLIC_URL",
        "SELLFERN_API_KEY",
        "SELLFERN_API_KEY_FILE",
        "SELLFERN_API_URL",
        "SELLFERN_DEADLINE",
        "SELLFERN_ORGANIZATION",
        "SELLFERN_STATE_DIR",
        "SELLFERN_TIMEOUT",
        # worker
        "BACKOFF_BASE",
        "BACKOFF_CAP",
        "BLOCKED_AFTER",
        "BREAKER_COOL_OFF",
        "BREAKER_FAILURES",
        "BREAKER_SAMPLE",
        "BREAKER_SHARE",
        "CLOCK_SKEW",
        "DEAD_LETTER_RETENTION",
        "DEDUPE_RETENTION",
        "HANDLER_TIMEOUT",
        "LEASE_SECONDS",
        "MAX_ATTEMPTS",
        "MAX_CRASHES",
        "MAX_DECODED_BYTES",
        "MAX_EVENT_AGE",
        "NO_HANDLER_PATIENCE",
        "ORGANIZATION_CONCURRENCY",
        "STUCK_AFTER",
        "WORKER_ADMIN_HOST",
        "WORKER_ADMIN_PORT",
        "WORKER_CONCURRENCY",
        "WORKER_HANDLERS",
        # console
        "CONSOLE_HOST",
        "CONSOLE_PORT",
        "CONSOLE_READ_TOKEN",
        "CONSOLE_READ_TOKEN_FILE",
        "CONSOLE_SHOW_PAYLOADS",
        "CONSOLE_TOKEN",
        "CONSOLE_TOKEN_FILE",
    }
)
"""All of them; one environment is often given to several programs."""

# A letter too many or too few, two of them changed, one wrong in a name as short as REDIS_URL; but
# not CONSUL_HOST for CONSOLE_HOST.
_ALIKE: Final = 0.88
# What Kubernetes sets for each Service: SELLFERN_INGRESS_PORT, for one called sellfern-ingress.
_LINKS: Final = ("tcp://", "udp://", "sctp://")
_PREFIXES: Final = ("SELLFERN_", "INGRESS_", "WORKER_", "CONSOLE_")


def near_misses(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Warn of each variable that nobody reads and that nearly is a setting; never of its value."""
    for name in sorted(environ):
        if name in NAMES or environ[name].startswith(_LINKS):
            continue
        if meant := _meant(name):
            message = f"{name} is no setting, so it does nothing; did you mean {meant}?"
            yield Finding("warning", "settings", "setting_unknown", message)


def _meant(name: str) -> str | None:
    """The setting that somebody may have had in mind."""
    upper = name.upper()
    for prefix in _PREFIXES:  # WORKER_DRAIN_SECONDS, for one that several programs read
        if upper.removeprefix(prefix) in NAMES:
            return upper.removeprefix(prefix)
    close = get_close_matches(upper, NAMES, n=1, cutoff=_ALIKE)
    return close[0] if close else None
