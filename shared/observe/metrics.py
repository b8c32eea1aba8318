"""Every metric of both programs, under names that start with ``sellfern_``."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    generate_latest,
)

from shared.observe.tally import Counter, Histogram

REGISTRY: Final = CollectorRegistry()
"""What /metrics shows; apart from the library's own registry, so that tests see only ours."""

ProcessCollector(namespace="sellfern", registry=REGISTRY)

# Bounds by what they are of: a round trip, a handler, a wait, a batch (256 at the most, but those
# of workers may be larger).
_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HANDLING: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_WAITING: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 21600, 86400)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

BUILD: Final = Gauge(
    "sellfern_build_info", "1, with what runs as labels", ["version", "python"], registry=REGISTRY
)

INGRESS_REQUESTS: Final = Counter(
    "sellfern_ingress_requests",
    "Deliveries answered; outcome is accepted, known or the code of the error",
    ["outcome"],
    registry=REGISTRY,
)
INGRESS_DURATION: Final = Histogram(
    "sellfern_ingress_request_duration_seconds",
    "From a delivery's headers to its answer",
    buckets=_FAST,
    registry=REGISTRY,
)
INGRESS_BATCH: Final = Histogram(
    "sellfern_ingress_batch_events",
    "Deliveries in one group commit",
    buckets=_BATCH,
    registry=REGISTRY,
)
# Apart from the whole: it tells a slow disk from a slow ingress.
INGRESS_DURABLE: Final = Histogram(
    "sellfern_ingress_durable_seconds",
    "From a group commit's sending to Redis's word that it is durable",
    buckets=_FAST,
    registry=REGISTRY,
)
INGRESS_BYTES_IN_FLIGHT: Final = Gauge(
    "sellfern_ingress_bytes_in_flight",
    "Bytes that have come and are not answered yet",
    registry=REGISTRY,
)
ENDPOINTS_RELOADS: Final = Counter(
    "sellfern_endpoints_reloads",
    "Changes of the endpoints file; outcome is applied or refused",
    ["outcome"],
    registry=REGISTRY,
)

SECRETS_MISSING: Final = Gauge(
    "sellfern_secrets_missing",
    "Secrets that can't be had, by cause: unreadable, hangs or unusable",
    ["cause"],
    registry=REGISTRY,
)
FILES_HANGING: Final = Gauge(
    "sellfern_files_hanging",
    "Endpoints or secret files that the file system doesn't answer about",
    registry=REGISTRY,
)

EVENTS: Final = Counter(
    "sellfern_events",
    "Attempts at an event by how they ended: handled, duplicate, conflicting, retried, dead, "
    "lost, released, in_line, superseded",
    ["outcome"],
    registry=REGISTRY,
)
DEAD_LETTERS: Final = Counter(
    "sellfern_dead_letters", "Events given up, by reason", ["reason"], registry=REGISTRY
)
DEAD_LETTERS_EXPIRED: Final = Counter(
    "sellfern_dead_letters_expired",
    "Dead letters removed since nobody acted on them in time",
    registry=REGISTRY,
)
PLACES_RESTORED: Final = Counter(
    "sellfern_places_restored",
    "Accepted events put back that had lost their place in the queue",
    registry=REGISTRY,
)
# Nothing of this is by organization: anybody's ids would become series. `gauges` names a few.
ORGANIZATION_MISMATCHES: Final = Counter(
    "sellfern_organization_mismatches",
    "Signed events whose body names another organization than their endpoint's",
    registry=REGISTRY,
)
MENDED: Final = Counter(
    "sellfern_events_mended",
    "Events with half a surrogate pair or bytes that are no UTF-8 in them, read all the same; "
    "part is what couldn't be decoded at first: envelope or data",
    ["part"],
    registry=REGISTRY,
)
# By type, which has a handler: what a body may say would make series without end.
HANDLER_DURATION: Final = Histogram(
    "sellfern_handler_duration_seconds",
    "Time in a handler, by event type and outcome",
    ["type", "outcome"],
    buckets=_HANDLING,
    registry=REGISTRY,
)
ACCEPTED_TO_HANDLED: Final = Histogram(
    "sellfern_accepted_to_handled_seconds",
    "From an event's acceptance to the commit of what its handler did",
    buckets=_WAITING,
    registry=REGISTRY,
)
STATE_CONFLICTS: Final = Counter(
    "sellfern_state_conflicts",
    "Commits refused, and handlers run again, since another had changed what they read, or will",
    registry=REGISTRY,
)
KEYS_UNREAD: Final = Counter(
    "sellfern_keys_unread",
    "Events handled out of turn, since the key that their handler asks for can't be read",
    registry=REGISTRY,
)

HANDLERS_STUCK: Final = Gauge(
    "sellfern_stuck_handlers",
    "Handlers that go on though they were cancelled and their events settled",
    registry=REGISTRY,
)
HANDLERS_STUCK_TOTAL: Final = Counter(
    "sellfern_handlers_stuck",
    "Handlers that did not end when they were cancelled, by event type",
    ["type"],
    registry=REGISTRY,
)
LOOP_BLOCKED: Final = Counter(
    "sellfern_loop_blocked_seconds",
    "Seconds that a worker's loop stood still, by the type of the event whose handler kept it",
    ["type"],
    registry=REGISTRY,
)

DECODED_BYTES: Final = Gauge(
    "sellfern_decoded_bytes",
    "Estimated memory of the decoded bodies that handlers have, without the small ones",
    registry=REGISTRY,
)
DECODED_WAITING: Final = Gauge(
    "sellfern_decoded_waiting",
    "Events that wait for memory to be decoded in",
    registry=REGISTRY,
)

LEASES_RENEWED: Final = Counter(
    "sellfern_leases_renewed",
    "Leases renewed: one for each event held, each time",
    registry=REGISTRY,
)
LEASES_LOST: Final = Counter(
    "sellfern_leases_lost",
    "Leases that somebody else had when they were to be renewed",
    registry=REGISTRY,
)
WORKER_BATCH: Final = Histogram(
    "sellfern_worker_batch_events",
    "Events in one call of Redis, by call: claim, mark, settle or read",
    ["call"],
    buckets=_BATCH,
    registry=REGISTRY,
)
ROUND_TRIP: Final = Histogram(
    "sellfern_redis_round_trip_seconds",
    "From sending a script to its reply, by script",
    ["script"],
    buckets=_FAST,
    registry=REGISTRY,
)

LOG_LINES_LOST: Final = Counter(
    "sellfern_log_lines_lost",
    "Log lines that nobody will read, since the log's reader is too slow or stands still",
    registry=REGISTRY,
)

REDIS_ERRORS: Final = Counter(
    "sellfern_redis_errors",
    "Failed calls of Redis, by program and kind of failure",
    ["program", "kind"],
    registry=REGISTRY,
)


def render() -> tuple[bytes, str]:
    """Give the body and the content type of an answer to a scrape."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


def installed_version() -> str:
    """The version of this project; ``unknown`` where it isn't installed."""
    try:
        # Of the installed package, since a source tree has none of its own.
        return version("sellfern-webhooks")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


BUILD.labels(version=installed_version(), python=platform.python_version()).set(1)
