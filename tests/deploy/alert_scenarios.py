"""When which alert fires, and when it doesn't, where Prometheus scrapes every 15 s."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SCRAPED: Final = 15
"""Seconds between two samples."""

HOUR: Final = 60
"""Minutes."""


@dataclass(frozen=True)
class Expected:
    """What is known of an alert at a moment.

    Attributes:
        at: seconds.
        alert: its name, without ours in front.
        found: the summary of each that fires, with its labels beside the severity.
    """

    at: float
    alert: str
    found: Sequence[tuple[str, Mapping[str, str]]] = ()


@dataclass(frozen=True)
class Scenario:
    """A scenario.

    Attributes:
        name: what it shows.
        series: the samples of each.
        expected: what comes of it.
    """

    name: str
    series: Mapping[str, str]
    expected: Sequence[Expected]


def fires(minutes: float, alert: str, summary: str, **labels: str) -> Expected:
    """One, and no other of its kind, fires after so many minutes."""
    return Expected(minutes * 60, alert, [(summary, labels)])


def silent(minutes: float, *alerts: str) -> list[Expected]:
    """None of these does then."""
    return [Expected(minutes * 60, alert) for alert in alerts]


def flat(value: float, minutes: float) -> str:
    """The same value for so long."""
    return f"{value}x{_samples(minutes) - 1}"


def flats(*several: tuple[float, float]) -> str:
    """One after the other."""
    return " ".join(flat(*each) for each in several)


def rising(minutes: float, *, by: float, start: float = 0) -> str:
    """A counter that rises by so much a minute."""
    return f"{start}+{by * SCRAPED / 60}x{_samples(minutes) - 1}"


def missing(minutes: float) -> str:
    """Nobody has scraped it."""
    return f"_x{_samples(minutes)}"


def gone(minutes: float) -> str:
    """Its target doesn't answer any more."""
    return f"stale _x{_samples(minutes) - 1}"


def _samples(minutes: float) -> int:
    return round(minutes * 60 / SCRAPED)


def of(program: str, instance: str, job: str = "kubernetes-pods") -> str:
    """The labels of a target, with the program that it is."""
    return f'program="{program}", job="{job}", instance="{instance}"'


def target(instance: str, job: str = "kubernetes-pods") -> str:
    """The labels of whatever it tells."""
    return f'job="{job}", instance="{instance}"'


def s(metric: str, labels: str, **others: str) -> str:
    """The name of a series."""
    more = "".join(f', {name}="{value}"' for name, value in others.items())
    return f"{'' if metric == 'up' else 'sellfern_'}{metric}{{{labels}{more}}}"


A, B, C, D = (target(each) for each in "abcd")
EVENTS: Final = "events_total"
LETTERS: Final = "dead_letters_total"
REFUSED: Final = "ingress_requests_total"
OUTAGES: Final = (
    "NoIngress",
    "IngressRefuses",
    "RedisAway",
    "PartitionDown",
    "NoWorker",
    "WorkersDown",
)
OLD: Final = -1_000_000
"""When a program began that has run for long."""


def refusals(of_each: Sequence[float]) -> dict[str, str]:
    """An ingress with 10 deliveries a second, and what of each 15 seconds' was answered 503."""
    refused = accepted = 0.0
    series: dict[str, list[str]] = {"refused": [], "accepted": []}
    for share in of_each:
        refused, accepted = refused + 150 * share, accepted + 150 * (1 - share)
        series["refused"].append(f"{refused:g}")
        series["accepted"].append(f"{accepted:g}")
    unavailable, taken = (" ".join(each) for each in series.values())
    return {
        s("ingress_unavailable_total", A): unavailable,
        s(REFUSED, A, outcome="redis_unreachable"): unavailable,
        s(REFUSED, A, outcome="accepted"): taken,
    }


# An outage from 4:46 on is seen at 5:00.
OUTAGES_TOLD: Final = [
    Scenario(
        "Redis is away for two minutes: both are told within one, and over within one",
        {
            s("redis_up", A): flats((1, 5), (0, 2), (1, 5)),
            **refusals([0] * 20 + [14 / 15] + [1] * 7 + [1 / 15] + [0] * 19),
        },
        [
            *silent(5, *OUTAGES[1:3]),
            fires((286 + 60) / 60, "RedisAway", "An ingress can't read Redis"),
            fires(
                (286 + 60) / 60,
                "IngressRefuses",
                "Most deliveries are answered 503: redis_unreachable",
            ),
            *silent((406 + 60) / 60, *OUTAGES[1:3], "RedisErrors", "IngressRefusesSome"),
        ],
    ),
    Scenario(
        "the same where it begins in the middle between two scrapes",
        refusals([0] * 20 + [7 / 15] + [1] * 7 + [8 / 15] + [0] * 19),
        [
            fires(
                (293 + 60) / 60,
                "IngressRefuses",
                "Most deliveries are answered 503: redis_unreachable",
            ),
            *silent((413 + 60) / 60, "IngressRefuses"),
        ],
    ),
    Scenario(
        "20 seconds are no outage, wherever they begin",
        {
            s("redis_up", A): flats((1, 5), (0, 0.5), (1, 5)),
            s("partition_up", A, partition="1"): flats((1, 5), (0, 0.5), (1, 5)),
            s("build_info", of("ingress", "a")): f"{flat(1, 5)} {gone(0.5)} {flat(1, 5)}",
            s("build_info", of("worker", "b")): f"{flat(1, 5)} {gone(0.5)} {flat(1, 5)}",
            s("up", B): flats((1, 5), (0, 0.5), (1, 5)),
            **refusals([0] * 20 + [10 / 15] * 2 + [0] * 20),
        },
        [each for second in (325, 330, 335, 345, 360) for each in silent(second / 60, *OUTAGES)],
    ),
    Scenario(
        "a few refusals in all that is refused by halves are none either",
        refusals([0] * 20 + [2.5 / 15, 1, 2.5 / 15] + [0] * 20),
        [each for second in (330, 345, 360) for each in silent(second / 60, "IngressRefuses")],
    ),
    Scenario(
        "the last ingress goes, and the last worker, and come back",
        {
            s("build_info", of("ingress", "a")): f"{flat(1, 5)} {gone(2)} {flat(1, 5)}",
            s("build_info", of("worker", "b")): f"{flat(1, 5)} {gone(2)} {flat(1, 5)}",
        },
        [
            *silent(5, "NoIngress", "NoWorker"),
            fires(346 / 60, "NoIngress", "No ingress answers"),
            fires(346 / 60, "NoWorker", "No worker is at work"),
            *silent((406 + 60) / 60, "NoIngress", "NoWorker"),
        ],
    ),
    Scenario(
        "three of four workers are down, and then one",
        {
            **{
                s("build_info", of("worker", each)): f"{flat(1, 5)} {gone(10)} {flat(1, 15)}"
                for each in "bc"
            },
            s("build_info", of("worker", "d")): f"{flat(1, 5)} {gone(25)}",
            s("build_info", of("worker", "e")): flat(1, 30),
            **{s("up", target(each)): flats((1, 5), (0, 10), (1, 15)) for each in "bc"},
            s("up", D): flats((1, 5), (0, 25)),
            s("up", target("e")): flat(1, 30),
            s("up", target("another")): flat(0, 30),
        },
        [
            *silent(5, "WorkersDown"),
            fires(346 / 60, "WorkersDown", "75% of the workers don't answer"),
            *silent(10, "NoWorker"),
            *silent(18, "WorkersDown"),
        ],
    ),
    Scenario(
        "whom the autoscaler has dismissed isn't down",
        {
            **{
                f"{name}{{{labels}}}": f"{flat(1, 5)} {gone(15)}"
                for each in "bcd"
                for name, labels in (
                    ("sellfern_build_info", of("worker", each)),
                    ("up", target(each)),
                )
            },
            s("build_info", of("worker", "e")): flat(1, 20),
            s("up", target("e")): flat(1, 20),
        },
        [each for at in (7, 15) for each in silent(at, "WorkersDown", "NoWorker")],
    ),
    Scenario(
        "workers that answer Prometheus and not Redis are none",
        {
            s("build_info", of("worker", "b")): flat(1, 12),
            s("workers", A): flats((2, 5), (0, 2), (2, 5)),
        },
        [
            fires(346 / 60, "NoWorker", "No worker is at work"),
            *silent((406 + 60) / 60, "NoWorker"),
        ],
    ),
    Scenario(
        "a partition that one ingress can't read is told, and no other",
        {
            s("partition_up", A, partition="0"): flat(1, 12),
            s("partition_up", A, partition="1"): flats((1, 5), (0, 2), (1, 5)),
            s("partition_up", B, partition="1"): flat(1, 12),
        },
        [
            fires(346 / 60, "PartitionDown", "Partition 1 doesn't answer", partition="1"),
            *silent((406 + 60) / 60, "PartitionDown"),
        ],
    ),
]


def _told_once(alert: str, metric: str, summary: str, *, window: float) -> Scenario:
    """What is told at once, until it is so long ago, and not if it was before."""
    return Scenario(
        f"{alert}: once is enough, for a while",
        {
            s(metric, B): flats((0, 10), (3, window + 20)),
            s(metric, C): flat(7, window + 30),
        },
        [
            *silent(9, alert),
            fires(11, alert, summary),
            *silent(10 + window + 1, alert),
        ],
    )


def _above(
    alert: str, series: str, low: float, high: float, summary: str, **labels: str
) -> Scenario:
    """A gauge that is too high for long enough, and isn't any more."""
    return Scenario(
        f"{alert}: only while it lasts",
        {series: flats((low, 20), (high, 20), (low, 5))},
        [*silent(19, alert), fires(35, alert, summary, **labels), *silent(42, alert)],
    )


_SERVED: Final = s("build_info", of("ingress", "a"))
_WORKING: Final = s("build_info", of("worker", "b"))
_BEGAN: Final = s("process_start_time_seconds", B)

OTHERS_TOLD: Final = [
    Scenario(
        "four refused deliveries a minute are told within the hour, by their code",
        {
            s("ingress_unavailable_total", A): f"{flat(0, 10)} {rising(30, by=4)}",
            s(REFUSED, A, outcome="backlog_full"): f"{flat(0, 10)} {rising(30, by=4)}",
            s(REFUSED, A, outcome="signature_invalid"): rising(40, by=6),
            s(REFUSED, A, outcome="accepted"): rising(40, by=600),
        },
        [
            *silent(15, "IngressRefusesSome"),
            fires(
                25,
                "IngressRefusesSome",
                "Some deliveries are answered 503, for minutes now: backlog_full",
            ),
            *silent(25, "IngressRefuses"),
        ],
    ),
    Scenario(
        "many refused in a minute or two are no lasting trouble, nor is a stranger's part in it",
        {
            s(
                "ingress_unavailable_total", A
            ): f"{flat(0, 10)} {rising(2, by=900)} {flat(1800, 10)}",
            s(REFUSED, A, outcome="signature_missing"): rising(22, by=900),
        },
        [each for at in (11, 13, 20) for each in silent(at, "IngressRefusesSome")],
    ),
    Scenario(
        "one of a hundred endpoints gets nothing but wrong signatures",
        {
            s(REFUSED, A, outcome="signature_invalid"): rising(30, by=1),
            s(REFUSED, A, outcome="accepted"): rising(30, by=99),
            s("endpoints_unverified", A): flats((0, 5), (1, 15), (0, 10)),
            s("endpoint_wrong_signatures", A, endpoint="acme", organization="org_a"): (
                f"{missing(5)} {rising(15, by=1, start=5)} {gone(10)}"
            ),
            s("endpoints_unverified", C): flat(0, 30),
        },
        [
            *silent(5, "EndpointUnverified"),
            fires(
                8,
                "EndpointUnverified",
                "Nothing but wrong signatures comes for an endpoint: acme of org_a above all",
            ),
            *silent(15, "SignaturesWrong"),
            *silent(21, "EndpointUnverified"),
        ],
    ),
    Scenario(
        "a tenth of all signatures is wrong",
        {
            s(REFUSED, A, outcome="signature_invalid"): rising(20, by=10),
            s(REFUSED, A, outcome="accepted"): rising(20, by=90),
        },
        [fires(10, "SignaturesWrong", "10% of the deliveries bear a wrong signature")],
    ),
    Scenario(
        "Redis's disk is slow",
        {
            s("ingress_durable_seconds_bucket", A, le="0.5"): (
                f"{rising(10, by=100)} {flat(975, 20)}"
            ),
            s("ingress_durable_seconds_bucket", A, le="1"): rising(30, by=100),
            s("ingress_durable_seconds_bucket", A, le="+Inf"): rising(30, by=100),
        },
        [
            *silent(9, "DurabilitySlow"),
            fires(25, "DurabilitySlow", "It takes 995ms until an event is durable (p99)"),
        ],
    ),
    _above(
        "UndividedEvents",
        s("undivided_events", A),
        0,
        3,
        "3 accepted events wait where no partition has them",
    ),
    _above(
        "BytesInFlight",
        s("ingress_bytes_in_flight", A),
        40 * 2**20,
        50 * 2**20,
        "An ingress holds 50MiB of bodies",
    ),
    Scenario(
        "a change of the endpoints file is refused, and later ones aren't",
        {
            s("endpoints_reloads_total", B, outcome="refused"): flats((0, 10), (1, 30)),
            s("endpoints_reloads_total", B, outcome="applied"): rising(40, by=4),
        },
        [
            *silent(9, "EndpointsFileRefused"),
            fires(11, "EndpointsFileRefused", "A change of the endpoints file was refused"),
            *silent(26, "EndpointsFileRefused"),
        ],
    ),
    Scenario(
        "a secret is missing, a file hangs and log lines are lost: each says of which program",
        {
            _SERVED: flat(1, 30),
            _WORKING: flat(1, 30),
            s("secrets_missing", A, cause="hangs"): flats((0, 5), (2, 15), (0, 10)),
            s("secrets_missing", B, cause="hangs"): flat(0, 30),
            s("files_hanging", A): flats((0, 5), (2, 15), (0, 10)),
            s("files_hanging", B): flat(0, 30),
            s("log_lines_lost_total", B): flats((0, 10), (30, 20)),
        },
        [
            *silent(9, "SecretMissing", "FilesHang", "LogLinesLost"),
            fires(
                12,
                "SecretMissing",
                "The ingress lacks 2 secrets: hangs",
                program="ingress",
                cause="hangs",
            ),
            fires(
                12,
                "FilesHang",
                "2 files of the ingress are on a file system that doesn't answer",
                program="ingress",
            ),
            fires(12, "LogLinesLost", "30 log lines of the worker were lost", program="worker"),
            *silent(29, "SecretMissing", "FilesHang", "LogLinesLost"),
        ],
    ),
    Scenario(
        "Redis answers, and no gauges come of it",
        {
            _SERVED: flat(1, 30),
            s("redis_up", A): flat(1, 30),
            s("due_events", A): f"{flat(0, 5)} {gone(10)} {flat(0, 15)}",
        },
        [
            *silent(5, "GaugesUnread"),
            fires(8, "GaugesUnread", "No ingress tells what is in the queue"),
            *silent(16, "GaugesUnread"),
        ],
    ),
    Scenario(
        "without Redis, or without an ingress, that is told",
        {
            _SERVED: f"{flat(1, 10)} {gone(10)}",
            s("redis_up", A): f"{flat(0, 10)} {gone(10)}",
        },
        [each for at in (8, 18) for each in silent(at, "GaugesUnread")],
    ),
    Scenario(
        "an event waits for a worker: it is told whose it is, in each partition",
        {
            s("due_seconds", A, partition="1"): flat(600, 20),
            s("due_seconds", A, partition="2"): flat(900, 20),
            s("due_seconds", A, partition="3"): flat(20, 20),
            s("organization_due_seconds", A, partition="1", organization="org_a"): flat(600, 20),
            s("organization_due_seconds", A, partition="2", organization="org_b"): flat(900, 20),
        },
        [
            Expected(
                5 * 60,
                "OldestWaits",
                [
                    (
                        f"An event of partition {number} has waited for a worker for {wait}",
                        {"partition": number},
                    )
                    for number, wait in (
                        ("1", "10m 0s: one of org_a"),
                        ("2", "15m 0s: one of org_b"),
                    )
                ],
            )
        ],
    ),
    Scenario(
        "an event of a single queue waits for a worker",
        {
            s("due_seconds", A): flat(600, 20),
            s("organization_due_seconds", A, organization="org_a"): flat(600, 20),
        },
        [fires(5, "OldestWaits", "An event has waited for a worker for 10m 0s: one of org_a")],
    ),
    Scenario(
        "nobody is named where nobody may be; what is paused or deferred waits for no worker",
        {
            s("due_seconds", A): flats((0, 10), (400, 10)),
            s("oldest_waiting_seconds", A): flat(3 * 3600, 20),
            s("queue_depth", A, state="parked"): flat(800, 20),
            s("queue_depth", A, state="deferred"): flat(800, 20),
        },
        [
            *silent(9, "OldestWaits"),
            fires(15, "OldestWaits", "An event has waited for a worker for 6m 40s"),
        ],
    ),
    Scenario(
        "a queue that every ingress reads is counted once",
        {
            **{s("queue_depth", each, state="queued"): flat(400_000, 20) for each in (A, C)},
            s("queue_depth", A, state="parked"): flats((300_000, 10), (400_000, 10)),
            **{
                s("organization_events", each, organization="org_a", state="waiting"): (
                    flat(500_000, 20)
                )
                for each in (A, C)
            },
            s("organization_events", A, organization="org_b", state="running"): flat(10, 20),
        },
        [
            *silent(9, "BacklogFills"),
            fires(18, "BacklogFills", "800k events wait; org_a has most, 500k"),
        ],
    ),
    Scenario(
        "the worst organization is named before Redis is full, when it is, and at its own limit",
        {
            **{
                s("organization_bytes", each, organization="org_a", kind="dead"): (
                    flats((50, 5), (150, 25))
                )
                for each in (A, C)
            },
            s("organization_bytes", A, organization="org_a", kind="marks"): flat(60, 30),
            s("organization_bytes", A, organization="org_b", kind="waiting"): flat(100, 30),
            s("organization_bytes_limit", A, organization="org_a"): flat(250, 30),
            s("organization_bytes_limit", A, organization="org_b"): flat(250, 30),
            s("redis_memory_bytes", A): flats((500, 15), (720, 5), (1000, 10)),
            s("redis_memory_limit_bytes", A): flat(1000, 30),
        },
        [
            *silent(5, "OrganizationFills"),
            fires(
                12,
                "OrganizationFills",
                "Organization org_a holds 84% of what it may in Redis",
                organization="org_a",
            ),
            *silent(14, "RedisFills"),
            fires(18, "RedisFills", "Redis is 72% full; org_a holds most, 210B"),
            fires(28, "RedisFills", "Redis is 100% full; org_a holds most, 210B"),
        ],
    ),
    Scenario(
        "a Redis without a limit doesn't fill",
        {
            s("organization_bytes", A, organization="org_a", kind="dead"): flat(50, 20),
            s("redis_memory_bytes", A): flat(500, 20),
            s("redis_memory_limit_bytes", A): flat(0, 20),
        },
        silent(15, "RedisFills", "OrganizationFills"),
    ),
    Scenario(
        "a system that hangs is told, though one event is tried for two of three half minutes",
        {
            s("breakers_open", A): flats((0, 20), *[(2, 0.5), (0, 1)] * 15, (0, 10)),
            s("queue_depth", A, state="parked"): flats((0, 20), (50, 22.5), (0, 10)),
        },
        [
            *silent(24, "BreakersOpen"),
            *(
                fires(
                    minute,
                    "BreakersOpen",
                    "Events of 2 organizations wait since their handlers kept failing",
                )
                for minute in (27, 33, 40)
            ),
            *silent(43, "BreakersOpen"),
        ],
    ),
    Scenario(
        "a breaker that opens once is no alert",
        {s("breakers_open", A): flats((0, 20), (1, 0.5), (0, 20))},
        silent(26, "BreakersOpen"),
    ),
    Scenario(
        "nor is one that is closed after four minutes, though others' events wait",
        {
            s("breakers_open", A): flats((0, 20), (1, 4), (0, 20)),
            s("queue_depth", A, state="parked"): flat(50, 44),
        },
        [*silent(24, "BreakersOpen"), *silent(25.5, "BreakersOpen"), *silent(27, "BreakersOpen")],
    ),
    Scenario(
        "a breaker that stays open is told after five minutes, also where nothing waits",
        {s("breakers_open", A): flats((0, 20), (1, 10), (0, 10))},
        [
            *silent(24, "BreakersOpen"),
            fires(
                26,
                "BreakersOpen",
                "Events of one organization wait since their handlers kept failing",
            ),
            *silent(31, "BreakersOpen"),
        ],
    ),
    Scenario(
        "a Prometheus that has just begun knows of no five minutes",
        {s("breakers_open", A): flat(1, 20)},
        [
            *silent(4, "BreakersOpen"),
            fires(
                8,
                "BreakersOpen",
                "Events of one organization wait since their handlers kept failing",
            ),
        ],
    ),
    Scenario(
        "all slots are taken and more waits; or nothing does",
        {
            s("queue_depth", A, state="leased"): flat(98, 40),
            s("worker_slots", A): flat(100, 40),
            s("queue_depth", A, state="queued"): flats((10, 20), (5000, 20)),
            s("organization_events", A, organization="org_a", state="waiting"): flat(4000, 40),
            s("organization_events", A, organization="org_a", state="running"): flat(18, 40),
            s("organization_events", A, organization="org_b", state="running"): flat(80, 40),
        },
        [
            *silent(19, "SlotsTaken"),
            fires(
                32,
                "SlotsTaken",
                "98% of all workers' slots are taken, and more waits; org_b has most, 80",
            ),
        ],
    ),
    Scenario(
        "a reason's first dead letters are told, though its series begins with them",
        {
            _WORKING: flat(1, 60),
            _BEGAN: flat(OLD, 60),
            s(LETTERS, B, reason="exhausted"): f"{missing(20)} {flat(5, 40)}",
            s(LETTERS, B, reason="payload_lost"): f"{missing(20)} {flat(2, 40)}",
            s(LETTERS, B, reason="rejected"): flat(9, 60),
        },
        [
            *silent(19, "DeadLetters", "PayloadsHarmed", "OrganizationMismatch"),
            Expected(
                21 * 60,
                "DeadLetters",
                [
                    ("5 events were given up: exhausted", {"reason": "exhausted"}),
                    ("2 events were given up: payload_lost", {"reason": "payload_lost"}),
                ],
            ),
            fires(
                21,
                "PayloadsHarmed",
                "2 accepted events were harmed in Redis: payload_lost",
                reason="payload_lost",
            ),
            *silent(40, "DeadLetters", "PayloadsHarmed"),
        ],
    ),
    Scenario(
        "so are those of a worker that has just begun, and those that come on top",
        {
            s("build_info", of("worker", "b")): f"{missing(30)} {flat(1, 40)}",
            _BEGAN: f"{missing(30)} {flat(1790, 40)}",
            s(LETTERS, B, reason="organization_mismatch"): f"{missing(30)} {flat(4, 40)}",
            s("build_info", of("worker", "c")): flat(1, 70),
            s("dead_letters_total", C, reason="stale"): flats((6, 50), (8, 20)),
        },
        [
            *silent(29, "DeadLetters"),
            fires(
                31,
                "DeadLetters",
                "4 events were given up: organization_mismatch",
                reason="organization_mismatch",
            ),
            fires(
                31,
                "OrganizationMismatch",
                "A signed event names another organization than its endpoint's",
                reason="organization_mismatch",
            ),
            *silent(48, "OrganizationMismatch"),
            fires(55, "DeadLetters", "2 events were given up: stale", reason="stale"),
        ],
    ),
    Scenario(
        "after a gap in Prometheus, or where it is new, last month's are none of today's",
        {
            _WORKING: f"{flat(1, 20)} {missing(60)} {flat(1, 40)}",
            _BEGAN: f"{flat(OLD, 20)} {missing(60)} {flat(OLD, 40)}",
            s(LETTERS, B, reason="exhausted"): f"{flat(5, 20)} {missing(60)} {flat(5, 40)}",
            s("handlers_stuck_total", B, type="order.updated"): f"{missing(80)} {flat(5, 40)}",
            s("redis_lost_total", B, what="emptied"): f"{flat(5, 20)} {missing(60)} {flat(5, 40)}",
        },
        [
            each
            for at in (1, 10, 19, 81, 90, 94, 95, 96, 110)
            for each in silent(at, "DeadLetters", "HandlersStuck", "RedisLost")
        ],
    ),
    _told_once(
        "PlacesRestored",
        "places_restored_total",
        "3 accepted events had lost their place in the queue",
        window=15,
    ),
    _told_once(
        "DeadLettersExpired",
        "dead_letters_expired_total",
        "3 dead letters were removed that nobody had acted on",
        window=60,
    ),
    _told_once(
        "LeasesLost",
        "leases_lost_total",
        "Workers lost 3 events that they held",
        window=15,
    ),
    Scenario(
        "a fifth of the attempts fail, and then a twentieth",
        {
            s(EVENTS, B, outcome="retried"): f"{rising(20, by=20)} {rising(20, by=5, start=400)}",
            s(EVENTS, B, outcome="handled"): rising(40, by=80),
        },
        [
            fires(18, "HandlersFail", "20% of the attempts fail"),
            *silent(38, "HandlersFail"),
        ],
    ),
    Scenario(
        "events are handled late",
        {
            s("accepted_to_handled_seconds_bucket", B, le="60"): (
                f"{rising(20, by=100)} {flat(1975, 20)}"
            ),
            s("accepted_to_handled_seconds_bucket", B, le="300"): rising(40, by=100),
            s("accepted_to_handled_seconds_bucket", B, le="+Inf"): rising(40, by=100),
        },
        [
            *silent(19, "HandledLate"),
            fires(38, "HandledLate", "From acceptance to commit it takes 4m 57s (p99)"),
        ],
    ),
    Scenario(
        "handlers don't end, or block the loop, for the first time",
        {
            _WORKING: flat(1, 60),
            _BEGAN: flat(OLD, 60),
            s("handlers_stuck_total", B, type="order.updated"): f"{missing(20)} {flat(2, 40)}",
            s(
                "loop_blocked_seconds_total", B, type="order.updated"
            ): f"{missing(20)} {flat(30, 40)}",
            s(
                "loop_blocked_seconds_total", B, type="order.created"
            ): f"{missing(20)} {flat(4, 40)}",
        },
        [
            *silent(19, "HandlersStuck", "LoopBlocked"),
            fires(
                21,
                "HandlersStuck",
                "2 handlers of order.updated did not end when they were cancelled",
                type="order.updated",
            ),
            fires(
                21,
                "LoopBlocked",
                "Handlers of order.updated blocked a worker for 30s",
                type="order.updated",
            ),
            *silent(40, "HandlersStuck", "LoopBlocked"),
        ],
    ),
    Scenario(
        "one event that came with other bytes, or is held, is told, whichever worker had it",
        {
            s(EVENTS, B, outcome="conflicting"): flats((0, 10), (5, 80)),
            s(EVENTS, B, outcome="held"): flats((0, 10), (5, 80)),
            s("events_total", C, outcome="held"): flat(0, 90),
        },
        [
            *silent(9, "ConflictingBodies", "RedeliveriesHeld"),
            fires(12, "ConflictingBodies", "5 event ids came with other bytes than before"),
            fires(12, "RedeliveriesHeld", "5 redeliveries of dead events were held"),
            *silent(85, "ConflictingBodies", "RedeliveriesHeld"),
        ],
    ),
    Scenario(
        "commits run again, and then few do",
        {
            s("state_conflicts_total", B): f"{rising(20, by=30)} {rising(20, by=5, start=600)}",
            s(EVENTS, B, outcome="handled"): rising(40, by=100),
        },
        [
            fires(18, "StateConflicts", "30% of the commits had to run again"),
            *silent(38, "StateConflicts"),
        ],
    ),
    Scenario(
        "a Redis that was emptied is told at once for a quarter of an hour, and nothing else",
        {
            s("redis_lost_total", A, what="emptied"): flats((0, 5), (1, 30)),
            s("redis_lost_total", B, what="emptied"): flats((2, 5), (3, 30)),
            s("redis_lost_total", B, what="restored"): flat(5, 35),
            _WORKING: flat(1, 35),
        },
        [
            *silent(4, "RedisLost"),
            fires(6, "RedisLost", "Redis doesn't have what it had: emptied", what="emptied"),
            fires(19, "RedisLost", "Redis doesn't have what it had: emptied", what="emptied"),
            *silent(22, "RedisLost"),
        ],
    ),
    Scenario(
        "calls of Redis that go on failing are told, and an outage of two minutes isn't",
        {
            s("redis_errors_total", B, program="worker", kind="redis_timeout"): (
                f"{flat(0, 6)} {rising(0.5, by=60)} {flat(30, 3.5)} {rising(2, by=60, start=30)} "
                f"{flat(150, 8)} {rising(10, by=4, start=150)} {flat(190, 5)}"
            )
        },
        [
            *silent(12, "RedisErrors"),
            *silent(15, "RedisErrors"),
            fires(
                28,
                "RedisErrors",
                "Calls of Redis go on failing in the worker: redis_timeout",
                program="worker",
                kind="redis_timeout",
            ),
            *silent(32, "RedisErrors"),
        ],
    ),
]
