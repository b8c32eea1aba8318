"""Facts about what an operator is told to look at."""

from typing import Any

from shared.queue.held_bytes import RedisMemory
from shared.queue.marker import Incident
from shared.queue.reach import Missing
from worker.operate.console.attention import Finding, findings
from worker.operate.history import History
from worker.operate.overview import OrganizationOverview, Overview
from worker.operate.workers import WorkerOverview


def worker(version: str = "1", slots: int = 10) -> WorkerOverview:
    return WorkerOverview("w", "h", 1, version, slots, 0, 0, None, {}, 10)


def organization(name: str, **changes: Any) -> OrganizationOverview:
    fields: dict[str, Any] = {
        "waiting": 0, "running": 0, "dead": 0, "paused": None, "breaker": None,
        "breaker_seconds": None, "failures": 0, "cap": None, "weight": 1.0,
    }  # fmt: skip
    return OrganizationOverview(organization=name, **{**fields, **changes})


def overview(**changes: Any) -> Overview:
    fields: dict[str, Any] = {
        "at": 100.0, "waiting": 0, "ready": 0, "running": 0, "deferred": 0, "parked": 0, "dead": 0,
        "oldest_seconds": None, "counters": {}, "dead_by_reason": {}, "organizations": [],
        "workers": [worker()],
    }  # fmt: skip
    return Overview(**{**fields, **changes})


def found(history: History | None = None, **changes: Any) -> list[Finding]:
    return findings(overview(**changes), history or History())


def test_nothing_is_told_when_all_is_well() -> None:
    assert found() == []
    assert found(workers=[]) == []
    assert found(waiting=5, ready=5, running=0) == []


def test_events_without_a_worker_are_the_worst() -> None:
    told = found(workers=[], waiting=1, organizations=[organization("a", paused="x")])
    assert [finding.level for finding in told] == ["bad", "info"]
    assert told[0].what == "No worker is alive, and 1 event waits."


def test_full_slots_with_a_line_ask_for_workers() -> None:
    (told,) = found(waiting=500, ready=490, running=10)
    assert told.what == "All 10 slots are busy, and 490 events are in line."
    assert found(waiting=15, ready=5, running=10) == []


def test_stuck_handlers_and_events_that_nobody_can_handle_are_told() -> None:
    stuck = WorkerOverview("w", "h", 1, "1", 10, 0, 0, None, {}, 10, stuck=2)
    (told,) = found(workers=[stuck])
    assert told.what.startswith("2 handlers go on")
    (told,) = found(unhandled=3)
    assert told.what == "3 events wait for a worker that has a handler."


def test_one_of_anything_is_told_as_one() -> None:
    (told,) = found(unhandled=1)
    assert told.what == "1 event waits for a worker that has a handler."
    (told,) = found(undivided=1)
    assert told.what.startswith("1 event waits undivided")
    one = WorkerOverview("w", "h", 1, "1", 1, 0, 0, None, {}, 10)
    (told,) = found(workers=[one], waiting=3, ready=2, running=1)
    assert told.what == "The only slot is busy, and 2 events are in line."
    many = [organization(f"o{number}", failures=9, waiting=1) for number in range(6)]
    assert "1 more organization is held or failing." in [
        each.what for each in found(organizations=many)
    ]


def test_two_versions_are_told() -> None:
    (told,) = found(workers=[worker("2"), worker("1")])
    assert "1, 2" in told.what


def test_what_holds_an_organization_leads_to_its_end() -> None:
    told = found(
        organizations=[
            organization("a", waiting=3, breaker="trying"),
            organization("b", waiting=2, paused="by ada"),
            organization("c", waiting=1, failures=5),
            organization("d", failures=4),
        ]
    )
    assert [finding.link for finding in told] == [
        "/organizations/a/resume",
        "/organizations/c/pause",
        "/organizations/b/resume",
    ]


def test_while_a_breaker_is_open_a_pause_is_offered() -> None:
    (told,) = found(organizations=[organization("a", breaker="open")])
    assert (told.verb, told.other_verb) == ("Resume", "Pause")
    assert (told.other_link, told.about) == ("/organizations/a/pause", "a")
    (told,) = found(organizations=[organization("a", breaker="open", paused="by ada")])
    assert told.what == "a is paused (by ada), and its breaker is open. 0 events wait."
    assert not told.other_link


def test_those_that_somebody_has_paused_hide_none_that_fails() -> None:
    paused = [organization(f"p{n}", waiting=100, paused="by ada") for n in range(8)]
    told = found(organizations=[*paused, organization("o", waiting=1, failures=5)])
    assert [finding.link for finding in told] == [
        "/organizations/o/pause",
        "/organizations?show=paused",
    ]
    assert told[1].what == "8 organizations are paused. 800 events wait."


def test_an_organizations_name_does_not_leave_its_link() -> None:
    (told,) = found(organizations=[organization("../x?y", paused="")])
    assert told.link == "/organizations/..%2Fx%3Fy/resume"


def test_of_many_organizations_the_largest_are_told() -> None:
    told = found(
        organizations=[organization(f"o{n}", waiting=n, breaker="open") for n in range(12)]
    )
    assert len(told) == 6
    assert told[0].what.startswith("o11:")
    assert told[-1].what == "7 more organizations are held or failing."


def test_an_old_event_is_told_while_workers_live() -> None:
    (told,) = found(waiting=1, oldest_seconds=700.0)
    assert "11m 40s ago" in told.what
    assert found(waiting=1, oldest_seconds=200.0) == []


def test_deaths_of_late_are_told() -> None:
    history = History()
    for at, dead in ((100.0, 50), (102.0, 50), (104.0, 53)):
        history.add(overview(at=at, counters={"dead": dead}))
    (told,) = findings(overview(at=104.0), history)
    assert told.what.startswith("3 events became dead letters")


def test_a_redis_that_fills_names_who_holds_most() -> None:
    holding = [
        organization("org_small", held={"dead": 5}),
        organization("org_large", held={"dead": 5 << 20, "marks": 1 << 20}),
    ]
    (told,) = found(organizations=holding, memory=RedisMemory(80 << 20, 100 << 20))
    assert told.level == "warn"
    assert told.what == "Redis is 80% full, 80.0 MiB of 100.0 MiB. org_large holds 6.0 MiB."
    (told,) = found(memory=RedisMemory(100 << 20, 100 << 20))
    assert (told.level, told.what) == ("bad", "Redis is 100% full, 100.0 MiB of 100.0 MiB.")
    assert found(organizations=holding, memory=RedisMemory(60 << 20, 100 << 20)) == []
    assert found(organizations=holding, memory=RedisMemory(60 << 20, 0)) == []


def test_a_partition_that_cannot_be_read_is_told_first() -> None:
    missing = [Missing(each, 4, "redis_timeout", "Redis did not answer in time") for each in (1, 3)]
    told = found(missing=missing, workers=[], waiting=1)
    assert [finding.level for finding in told] == ["bad", "bad"]
    assert told[0].what == "Partitions 1, 3 of 4 can't be read: Redis did not answer in time."


def test_what_has_happened_to_redis_is_told_first() -> None:
    restored = Incident("restored", "ab", 100.0, 95.0, 1200, back_to=40.0)
    (first, second) = found(incidents=[restored], waiting=1, workers=[])
    assert first.what == (
        "Redis is back at its state of 1970-01-01 00:00:40 UTC: 1,200 events that were accepted "
        "from then until 1970-01-01 00:01:35 UTC are gone, and what was handled since runs again."
    )
    assert (first.level, second.level) == ("bad", "bad")


def test_events_that_wait_beside_the_partitions_are_bad() -> None:
    (told,) = found(undivided=1200)
    assert (told.level, told.what[:28]) == ("bad", "1,200 events wait undivided,")
    assert found(undivided=0) == []


def test_of_several_servers_the_fullest_is_looked_at() -> None:
    full = RedisMemory(95, 100)
    (told,) = found(memory=RedisMemory(100, 1000), fullest=full)
    assert told.what.startswith("Redis is 95% full")
