"""Facts about the status that a terminal shows."""

import time

import pytest
from msgspec import structs
from rich.console import Console

from shared.display import roughly
from shared.queue.held_bytes import RedisMemory
from shared.queue.marker import Incident
from shared.queue.reach import Missing
from worker.at_work import Doing
from worker.operate.history import History
from worker.operate.organizations import Trouble
from worker.operate.overview import OrganizationOverview, Overview
from worker.operate.status_command import print_tables, screen, sparkline
from worker.operate.workers import LostWorker, WorkerOverview


def organization(name: str, waiting: int = 0, **changes: object) -> OrganizationOverview:
    fields: dict[str, object] = {
        "organization": name,
        "waiting": waiting,
        "running": 0,
        "dead": 0,
        "paused": None,
        "breaker": None,
        "breaker_seconds": None,
        "failures": 0,
        "cap": None,
        "weight": 1.0,
    }
    return OrganizationOverview(**{**fields, **changes})  # type: ignore[arg-type]  # by name


def overview(at: float, organizations: list[OrganizationOverview], workers: int = 1) -> Overview:
    worker = WorkerOverview("w", "h", 1, "1.0\x1b[2J", 10, 2, 5, None, {}, 10)
    counters = {"accepted": int(at), "handled": 0}
    return Overview(at, 9, 1, 2, 3, 4, 5, 70.0, counters, {}, organizations, [worker] * workers)


def shown(history: History, problem: str = "", height: int = 40, width: int = 100) -> str:
    console = Console(width=width, height=height, emoji=False, highlight=False)
    with console.capture() as capture:
        console.print(screen(history, problem, height, width))
    return capture.get()


def test_a_screen_shows_figures_rates_workers_and_organizations() -> None:
    history = History()
    history.add(
        overview(
            100,
            [
                organization("org_a", 3, paused="by ada"),
                organization("org_b", 2, breaker="open", breaker_seconds=12.0),
                organization("org_c", 1, failures=7),
                organization("org_d", throttled="429\x1b[2J", throttled_seconds=25.0),
            ],
        )
    )
    history.add(overview(102, list(history.latest.organizations) if history.latest else []))
    text = shown(history)
    for part in (
        "1m 10s",
        "1.0/s",
        "1 alive, 2 of 10 slots busy",
        "paused: by ada",
        "breaker open, tries one in 12s",
        "7 failures in a row",
        "throttled: 429\\x1b[2J, for 25s still",
    ):
        assert part in text
    assert text.index("org_a") < text.index("org_b") < text.index("org_c")


@pytest.mark.parametrize("width", [100, 80, 60, 40])
def test_no_number_is_squeezed_out_by_whatever_is_long(width: int) -> None:
    """Numbers of seven digits, reasons and ids as long as they may be."""
    history = History()
    each = {"running": 1_234_001, "dead": 1_234_002, "held": {"dead": 123 << 20}}
    crowded = [
        organization("org_" + "x" * 60, 1_234_000, paused="why " * 50, **each),
        organization("org_b", 5, throttled="429 " * 50, throttled_seconds=250.0, **each),
        organization("org_c", 4, breaker="open", breaker_seconds=250.0, **each),
    ]
    figures = {
        name: 9_876_000 + number
        for number, name in enumerate(("waiting", "ready", "running", "deferred", "parked"))
    }
    memory = RedisMemory(1023 << 20, 1023 << 30)
    for at in (100, 2_000_000):
        look = overview(at, crowded)
        history.add(structs.replace(look, **figures, dead=9_876_009, in_turn=7, memory=memory))
    text = shown(history, width=width, height=45)
    for number in (*figures.values(), 9_876_009, 1_234_000):
        assert f"{number:,}" in text, text
    assert text.count("1,234,002") == 3
    # Whose the numbers are is told before all of them.
    assert text.count("1,234,001") == text.count("123.0 MiB") == (3 if width > 40 else 0)
    assert "org_b" in text
    conditions = ("paused: ", "throttled: ", "breaker open")
    for whole in ("1023.0 MiB of 1023.0 GiB", "1m 10s", "1.0/s", *conditions):
        assert whole in text, text
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) <= 45


def test_what_came_from_outside_does_not_move_the_cursor() -> None:
    history = History()
    history.add(overview(100, [organization("org\x1b[2J", paused="\x1b[1A[bold]x")]))
    text = shown(history)
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_only_as_many_organizations_are_shown_as_there_is_room_for() -> None:
    history = History()
    history.add(overview(100, [organization(f"org_{number}", number) for number in range(30)]))
    text = shown(history, "Redis does not answer", height=25)
    assert "… and 26 more" in text
    assert len(text.splitlines()) <= 25
    assert "org_29" in text
    assert "org_9 " not in text


def many(number: int) -> list[OrganizationOverview]:
    """The later ones have more waiting, and each tenth is paused, or has its breaker open."""
    return [
        organization(
            f"org_{n}",
            n,
            paused="why" if n % 10 == 0 else None,
            breaker="open" if n % 10 == 1 else None,
        )
        for n in range(number)
    ]


def test_of_ten_thousand_the_worst_are_printed_and_the_others_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_tables(overview(100, many(10_000)), 20)
    text = capsys.readouterr().out
    assert text.count("org_") == 20
    assert text.index("org_9999 ") < text.index("org_9980 ")
    assert (
        "… and 9,980 more organizations, of these 998 paused, "
        "998 held by a breaker (--all)\n" in text
    )
    assert len(text.splitlines()) < 60
    print_tables(overview(100, many(20)), 20)
    assert "more organizations" not in capsys.readouterr().out


def test_what_has_happened_to_redis_stands_before_all_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost = Incident("emptied", "ab", 100.0, 95.0, 7)
    now = structs.replace(overview(100, []), incidents=[lost])
    history = History()
    history.add(now)
    print_tables(now, 20)
    for told in (shown(history), capsys.readouterr().err):
        first, *_ = told.splitlines()
        assert first.startswith("nothing is left of what Redis had at 1970-01-01 00:01:35 UTC: 7 ")


def test_a_screen_says_what_is_held_of_those_that_it_has_no_room_for() -> None:
    history = History()
    history.add(overview(100, many(10_000)))
    text = shown(history)
    said = "… and 9,981 more organizations, of these 999 paused, 998 held by a breaker\n"
    assert said in text
    assert "9,981 " in text  # nothing is squeezed for it


def test_those_with_nothing_waiting_go_by_what_is_dead_and_what_they_hold() -> None:
    few = [
        organization("org_a"),
        organization("org_b", held={"dead": 5}),
        organization("org_c", dead=1),
        organization("org_d", 1),
    ]
    worst = overview(100, few).of_the_worst(3)
    assert [each.organization for each in worst.organizations] == ["org_d", "org_c", "org_b"]
    assert worst.more_organizations == 1
    assert worst.of_the_worst(1).more_organizations == 3


def test_a_screen_says_what_is_wrong() -> None:
    history = History()
    assert "Nothing is known yet" in shown(history)
    history.add(overview(100, [], workers=0))
    text = shown(history, "Redis does not answer")
    assert "Redis does not answer; what follows was known at 00:01:40 UTC" in text
    assert "No worker is alive" in text


def test_times_are_rough() -> None:
    assert [roughly(each) for each in (0, 7, 250, 90_000)] == ["0s", "7s", "4m 10s", "1d 1h"]


def test_a_sparkline_is_as_high_as_its_greatest_value() -> None:
    assert sparkline([]) == ""
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([0, 5, 10]) == "▁▄█"


def test_a_screen_names_the_partitions_that_are_left_out() -> None:
    missing = [Missing(each, 4, "redis_timeout", "Redis did not answer in time") for each in (1, 3)]
    history = History()
    history.add(structs.replace(overview(100, []), missing=missing))
    assert "partitions 1, 3 of 4 can't be read: Redis did not answer in time" in shown(history)


@pytest.mark.parametrize("width", [60, 100])
def test_a_screen_says_what_is_stuck_or_lost_and_keeps_what_it_has_no_room_for_told(
    width: int,
) -> None:
    doing = [
        Doing(
            f"org_a:{n}", 40.0, f"shop.{'x' * 50}", "org_a", f"evt_{n}", state="stuck", worker="w"
        )
        for n in range(5)
    ]
    worker = WorkerOverview(worker="w", slots=5, doing=doing)
    lost = LostWorker("gone", "node-7", 9, "1", 5, 0, 90.0)
    now = structs.replace(overview(100, many(200)), workers=[worker], lost=[lost])
    history = History()
    history.add(now)
    text = shown(history, width=width)
    assert text.replace("\n", " ").count("on in w for 1m 0s though") == 3
    assert "… and 3 more (running, status --json)" in text
    assert "more organizations, of these" in text
    assert "Ctrl-C ends" in text
    assert len(text.splitlines()) <= 40


def test_a_table_says_who_fails_and_who_is_held_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trouble = Trouble(1.0, 2.0, 12, "f", "shop.act", "KeyError: 'sku'")
    held = [
        organization("org_a", trouble=trouble, failures=3),
        organization("org_b", paused="ERP down", paused_by="Ada", paused_since=1.0, breaker="open"),
        organization("org_c", throttled="429", throttled_seconds=25.0),
        organization("org_d", rate=2.5),
    ]
    print_tables(overview(100, held), 20)
    text = capsys.readouterr().out
    for told in (
        "3 failures in a row: 12 attempts since ",
        "KeyError: 'sku'",
        "paused, breaker open: ERP down, by Ada, ",
        "throttled: 429, for 25s still",
        "at most 2.5/s",
    ):
        assert told in text, text


@pytest.mark.parametrize(("seconds", "told"), [("0.2", "198 ms"), ("2000", "33m")])
def test_a_percentile_is_told_as_anywhere_else(seconds: str, told: str) -> None:
    history = History()
    for at, number in ((100, 0), (102, 50)):
        now = overview(at, [])
        worker = structs.replace(now.workers[0], latency={seconds: number}, started=99.0)
        history.add(structs.replace(now, workers=[worker]))
    assert f" {told} " in shown(history)


def test_who_keeps_the_only_slot_until_its_next_attempt_is_told_so() -> None:
    now = time.time()
    fails = Trouble(now, now, 1, "f", "act", "KeyError", next_at=now + 60)
    one = organization("org_a", 1, running=1, cap=1, trouble=fails)
    assert one.failing(now).endswith("next try in 1m 0s, and keeps the only slot until then")
    for other in (
        structs.replace(one, cap=None),
        structs.replace(one, running=0),
        structs.replace(one, paused="by ada"),
        structs.replace(one, trouble=structs.replace(fails, kind="w")),  # which keeps none
        structs.replace(one, trouble=structs.replace(fails, next_at=now - 1)),
    ):
        assert "slot" not in other.failing(now)
