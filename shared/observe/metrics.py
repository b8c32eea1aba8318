"""Every metric of both programs, under names that start with ``sellfern_``."""

import platform
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

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

_counter: Final = partial(Counter, registry=REGISTRY)
_gauge: Final = partial(Gauge, registry=REGISTRY)
_histogram: Final = partial(Histogram, registry=REGISTRY)

BUILD: Final = _gauge(
    "sellfern_build_info", "1, with what runs as labels", ["program", "version", "python"]
)

INGRESS_REQUESTS: Final = _counter(
    "sellfern_ingress_requests",
    "Deliveries answered; outcome is accepted, known or the code of the error",
    ["outcome"],
)
# Without a label it is there from the start: a rate misses what begins with its first value.
INGRESS_UNAVAILABLE: Final = _counter(
    "sellfern_ingress_unavailable", "Deliveries answered 503, whatever the code"
)
INGRESS_DURATION: Final = _histogram(
    "sellfern_ingress_request_duration_seconds",
    "From a delivery's headers to its answer",
    buckets=_FAST,
)
INGRESS_BATCH: Final = _histogram(
    "sellfern_ingress_batch_events", "Deliveries in one group commit", buckets=_BATCH
)
# Apart from the whole: it tells a slow disk from a slow ingress.
INGRESS_DURABLE: Final = _histogram(
    "sellfern_ingress_durable_seconds",
    "From a group commit's sending to Redis's word that it is durable",
    buckets=_FAST,
)
INGRESS_BYTES_IN_FLIGHT: Final = _gauge(
    "sellfern_ingress_bytes_in_flight", "Bytes that have come and are not answered yet"
)
ENDPOINTS_RELOADS: Final = _counter(
    "sellfern_endpoints_reloads",
    "Changes of the endpoints file; outcome is applied or refused",
    ["outcome"],
)
for _outcome in ("applied", "refused"):
    ENDPOINTS_RELOADS.labels(_outcome)

SECRETS_MISSING: Final = _gauge(
    "sellfern_secrets_missing",
    "Secrets that can't be had, by cause: unreadable, hangs or unusable",
    ["cause"],
)
FILES_HANGING: Final = _gauge(
    "sellfern_files_hanging", "Endpoints or secret files that the file system doesn't answer about"
)

EVENTS: Final = _counter(
    "sellfern_events",
    "Attempts at an event by how they ended: handled, duplicate, conflicting, retried, dead, "
    "lost, released, in_line, superseded",
    ["outcome"],
)
DEAD_LETTERS: Final = _counter("sellfern_dead_letters", "Events given up, by reason", ["reason"])
DEAD_LETTERS_EXPIRED: Final = _counter(
    "sellfern_dead_letters_expired", "Dead letters removed since nobody acted on them in time"
)
PLACES_RESTORED: Final = _counter(
    "sellfern_places_restored", "Accepted events put back that had lost their place in the queue"
)
# Nothing of this is by organization: anybody's ids would become series. `gauges` names a few.
ORGANIZATION_MISMATCHES: Final = _counter(
    "sellfern_organization_mismatches",
    "Signed events whose body names another organization than their endpoint's",
)
MENDED: Final = _counter(
    "sellfern_events_mended",
    "Events with half a surrogate pair or bytes that are no UTF-8 in them, read all the same; "
    "part is what couldn't be decoded at first: envelope or data",
    ["part"],
)
# By type, which has a handler: what a body may say would make series without end.
HANDLER_DURATION: Final = _histogram(
    "sellfern_handler_duration_seconds",
    "Time in a handler, by event type and outcome",
    ["type", "outcome"],
    buckets=_HANDLING,
)
ACCEPTED_TO_HANDLED: Final = _histogram(
    "sellfern_accepted_to_handled_seconds",
    "From an event's acceptance to the commit of what its handler did",
    buckets=_WAITING,
)
STATE_CONFLICTS: Final = _counter(
    "sellfern_state_conflicts",
    "Commits refused, and handlers run again, since another had changed what they read, or will",
)
KEYS_UNREAD: Final = _counter(
    "sellfern_keys_unread",
    "Events handled out of turn, since the key that their handler asks for can't be read",
)

HANDLERS_STUCK: Final = _gauge(
    "sellfern_stuck_handlers",
    "Handlers that go on though they were cancelled and their events settled",
)
HANDLERS_STUCK_TOTAL: Final = _counter(
    "sellfern_handlers_stuck",
    "Handlers that did not end when they were cancelled, by event type",
    ["type"],
)
FAILURE_HOOKS: Final = _counter(
    "sellfern_failure_hooks",
    "Failures told to the handlers' author, by hook (on_error, on_dead) and outcome: done, failed, "
    "overdue, or lost since too many waited",
    ["hook", "outcome"],
)
LOOP_BLOCKED: Final = _counter(
    "sellfern_loop_blocked_seconds",
    "Seconds that a worker's loop stood still, by the type of the event whose handler kept it",
    ["type"],
)

DECODED_BYTES: Final = _gauge(
    "sellfern_decoded_bytes",
    "Estimated memory of the decoded bodies that handlers have, without the small ones",
)
DECODED_WAITING: Final = _gauge(
    "sellfern_decoded_waiting", "Events that wait for memory to be decoded in"
)

LEASES_RENEWED: Final = _counter(
    "sellfern_leases_renewed", "Leases renewed: one for each event held, each time"
)
LEASES_LOST: Final = _counter(
    "sellfern_leases_lost", "Leases that somebody else had when they were to be renewed"
)
WORKER_BATCH: Final = _histogram(
    "sellfern_worker_batch_events",
    "Events in one call of Redis, by call: claim, mark, settle or read",
    ["call"],
    buckets=_BATCH,
)
ROUND_TRIP: Final = _histogram(
    "sellfern_redis_round_trip_seconds",
    "From sending a script to its reply, by script",
    ["script"],
    buckets=_FAST,
)

LOG_LINES_LOST: Final = _counter(
    "sellfern_log_lines_lost",
    "Log lines that nobody will read, since the log's reader is too slow or stands still",
)

REDIS_LOST: Final = _counter(
    "sellfern_redis_lost",
    "Times that this program found Redis without what it had, by what: emptied, or restored",
    ["what"],
)
REDIS_ERRORS: Final = _counter(
    "sellfern_redis_errors",
    "Failed calls of Redis, by program and kind of failure",
    ["program", "kind"],
)


class _PartitionsUp(Collector):
    def __init__(self, number: int, missing: Callable[[], Collection[int]]) -> None:
        self._number = number
        self._missing = missing

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield family_of_partitions(self._number, self._missing())


def family_of_partitions(number: int, missing: Collection[int]) -> GaugeMetricFamily:
    """Which of several partitions answer."""
    family = GaugeMetricFamily(
        "sellfern_partition_up",
        "1 where the partition answers: an ingress can read it, or it has heard of the worker",
        labels=["partition"],
    )
    for each in range(number):
        family.add_metric([str(each)], each not in missing)
    return family


@contextmanager
def partitions_up(number: int, missing: Callable[[], Collection[int]]) -> Iterator[None]:
    """Show which of several partitions answer while the block runs; of a single queue nothing.

    Args:
        number: of all.
        missing: those that don't; asked by each scrape, in its thread.
    """
    if number == 1:
        yield
        return
    with registered(_PartitionsUp(number, missing)):
        yield


@contextmanager
def registered(collector: Collector) -> Iterator[None]:
    """Have it be part of every scrape while the block runs."""
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


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


def tell_program(program: str) -> None:
    """Say which program this process is: ``ingress`` or ``worker``.

    Alerts tell by it which targets are whose, since their jobs may be called anything.
    """
    BUILD.labels(program, installed_version(), platform.python_version()).set(1)
