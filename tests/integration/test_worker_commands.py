"""Facts about the worker's commands, on a real Redis."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization
from worker.at_work import AtWork, Doing
from worker.cli import main
from worker.operate.asking import has_footprint

EVIL = "\x1b[2Jevt[bold]\u202e"


def run(server: EmbeddedRedis, *arguments: str, **environ: str) -> Result:
    """Run a command against the server, as wide as a large terminal."""
    env = {"REDIS_URL": server.url, "COLUMNS": "250", **environ}
    return CliRunner().invoke(main, arguments, env=env)


def seeded(server: EmbeddedRedis, seed: Callable[[Workplace], Awaitable[None]]) -> None:
    """Empty Redis, then put something into it."""

    async def go() -> None:
        handlers = Handlers()

        @handlers.on("order.updated")
        async def store(event: Event[Any], organization: Organization) -> None:
            await organization.state.put_if_newer("orders/1", event.data, event.created_at)
            await organization.state.put("other", [1])

        async with Redis.from_url(server.url) as redis:
            await redis.flushall()
            await seed(Workplace(redis, handlers))

    asyncio.run(go())


async def some_of_everything(place: Workplace) -> None:
    await place.handle(body("evt_1"))
    await place.handle(body(EVIL, type="order.[red]exploded\n"))
    await place.handle(b"rubbish", organization="org_b")
    await place.accept(body("evt_2"), body("evt_3"))
    await place.claim()


async def nothing(_: Workplace) -> None: ...


def lines(result: Result) -> list[dict[str, Any]]:
    """The JSON lines of a command's output."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_status_shows_what_waits_runs_and_died(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, some_of_everything)
    (status,) = lines(run(redis_server, "status", "--json"))
    assert status["waiting"] == 2
    assert status["ready"] == 1
    assert status["running"] == 1
    assert status["deferred"] == 0
    assert status["dead"] == 2
    assert status["oldest_seconds"] >= 0
    assert status["counters"]["handled"] == 1
    assert status["dead_by_reason"] == {"malformed": 1, "unavailable_event": 1}
    assert [each["organization"] for each in status["organizations"]] == ["org_a", "org_b"]

    shown = run(redis_server, "status").stdout
    for text in ("Events now", "dead: malformed", "org_b"):
        assert text in shown


def test_a_status_is_as_long_as_a_screen_unless_all_are_asked_for(
    redis_server: EmbeddedRedis,
) -> None:
    async def many(place: Workplace) -> None:
        numbers: Any = {f"org_{n}": n + 1 for n in range(300)}
        await place.redis.hset(keys.WAITING, mapping=numbers)

    seeded(redis_server, many)
    (status,) = lines(run(redis_server, "status", "--json"))
    assert [each["waiting"] for each in status["organizations"]] == list(range(300, 280, -1))
    assert status["more_organizations"] == 280
    (everything,) = lines(run(redis_server, "status", "--json", "--all"))
    assert len(everything["organizations"]) == 300
    assert everything["more_organizations"] == 0
    short, long = (run(redis_server, "status", *words).stdout for words in ([], ["--all"]))
    assert "… and 280 more organizations (--all)\n" in short
    assert len(short.splitlines()) < 50
    assert long.count("org_") == 300
    assert "more organizations" not in long


def test_an_empty_system_has_a_status_too(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, nothing)
    (status,) = lines(run(redis_server, "status", "--json"))
    assert status["waiting"] == 0
    assert status["oldest_seconds"] is None
    assert run(redis_server, "status").exit_code == 0


def test_what_runs_is_shown_and_what_is_stuck_or_lost_is_told_by_status(
    redis_server: EmbeddedRedis,
) -> None:
    async def seed(place: Workplace) -> None:
        show, began = place.transitions.show, time.time() - 65
        told = b'{"host": "node-7", "loop_delay": 0.25, "started": 1, "running": 2}'
        for name in ("w1", "w2"):
            await place.transitions.renew(name, [], description=told, slots=5, lease=30)
        stack = "/srv/run.py:1 in main > /srv/shop.py:12 in act\x1b[2J"
        doing = [
            Doing("org_a:1", began, "shop.act", "org_a", EVIL, "order.paid", "stuck", stack),
            Doing("org_a:2", began + 60, "shop.other", "org_a", "evt_2", "order.paid"),
        ]
        await show("w1", msgspec.json.encode(AtWork(time.time(), doing, 3)))
        await place.transitions.renew("w2", [], description=told, slots=5, lease=0.001)

    seeded(redis_server, seed)
    shown = run(redis_server, "running").stdout
    for text in (
        "1m",
        "stuck",
        "shop.act",
        "shop.other",
        "w1",
        "4 for longer than a second, 1 stuck",
    ):
        assert text in shown
    assert "  w1: /srv/run.py:1 in main\n  /srv/shop.py:12 in act\\x1b[2J\n" in shown
    assert "went without a word" in shown
    listed = lines(run(redis_server, "running", "--json"))
    assert [(each["job"], each["state"]) for each in listed] == [
        ("org_a:1", "stuck"),
        ("org_a:2", "running"),
    ]
    assert 60 < listed[0]["seconds"] < 300
    told = run(redis_server, "status")
    assert "handler shop.act goes on in w1 for 1m" in told.stderr
    assert "worker w2 on node-7 went without a word; its 2 events are others'" in told.stderr
    assert "250 ms" in told.stdout
    assert EVIL not in told.output + shown
    (status,) = lines(run(redis_server, "status", "--json"))
    assert [each["worker"] for each in status["lost"]] == ["w2"]
    assert status["workers"][0]["more_doing"] == 3


def test_state_lists_an_organizations_values_by_key(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, some_of_everything)
    found = lines(run(redis_server, "state", "org_a"))
    assert [each["key"] for each in found] == ["orders/1", "other"]
    assert found[0]["value"] == {"order_id": "1"}
    assert found[0]["version"] > 1e15
    assert found[1] == {"key": "other", "value": [1], "version": None}
    assert lines(run(redis_server, "state", "org_a", "orders/", "--json")) == found[:1]
    assert lines(run(redis_server, "state", "org_b")) == []


@pytest.mark.parametrize("prefix", ["*", "?rders", "[o]", "\\"])
def test_a_key_prefix_is_taken_literally(redis_server: EmbeddedRedis, prefix: str) -> None:
    seeded(redis_server, some_of_everything)
    assert lines(run(redis_server, "state", "org_a", prefix)) == []


@pytest.mark.parametrize("organization", ["org_a:x", "*", "", "o" * 65])
def test_an_organization_that_cannot_be_is_one_line(
    redis_server: EmbeddedRedis, organization: str
) -> None:
    result = run(redis_server, "state", organization)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ORGANIZATION: expected 1 to 64 letters")


ENDPOINTS = """
[[endpoint]]
id = "acme"
organization_id = "org_a"
secrets = [{ env = "NOT_HERE" }]

[[endpoint]]
id = "seven"
organization_id = 123
secrets = ["whsec_b"]
"""
ABOUT_ONE: tuple[tuple[str, ...], ...] = (
    ("pause", "{}"),
    ("resume", "{}"),
    ("state", "{}"),
    ("dead-letters", "list", "--organization", "{}"),
    ("dead-letters", "export", "--organization", "{}"),
    ("dead-letters", "replay", "--dry-run", "--organization", "{}"),
    ("dead-letters", "discard", "--dry-run", "--organization", "{}"),
)
"""The commands that take an organization."""


def about(words: tuple[str, ...], organization: str) -> tuple[str, ...]:
    return tuple(word.format(organization) for word in words)


@pytest.mark.parametrize("words", ABOUT_ONE, ids=" ".join)
def test_an_endpoint_stands_for_its_organization(
    redis_server: EmbeddedRedis, endpoints_file: Callable[[str], Path], words: tuple[str, ...]
) -> None:
    """The secrets need not be readable for that."""
    file = str(endpoints_file(ENDPOINTS))
    outputs = []
    for name in ("org_a", "acme"):
        seeded(redis_server, some_of_everything)
        outputs.append(run(redis_server, *about(words, name), ENDPOINTS_FILE=file))
    itself, by_endpoint = outputs
    assert (by_endpoint.exit_code, itself.exit_code) == (0, 0), by_endpoint.output
    assert by_endpoint.stderr.startswith("acme is an endpoint of org_a\n")
    if "export" not in words:  # which holds the moment of the death
        assert by_endpoint.stdout.splitlines()[-1:] == itself.stdout.splitlines()[-1:]


@pytest.mark.parametrize("words", ABOUT_ONE, ids=" ".join)
def test_an_organization_that_nobody_knows_is_an_error_that_says_who_may_be_meant(
    redis_server: EmbeddedRedis, endpoints_file: Callable[[str], Path], words: tuple[str, ...]
) -> None:
    seeded(redis_server, nothing)
    file = str(endpoints_file(ENDPOINTS))
    result = run(redis_server, *about(words, "acmee"), ENDPOINTS_FILE=file)
    assert (result.exit_code, result.stdout) == (2, "")
    name = "--organization" if "--organization" in words else "ORGANIZATION"
    assert result.stderr == (
        f"error: {name}: expected an organization or an endpoint of {file}, "
        "or one that Redis knows (or --yes), got 'acmee'; did you mean 'acme'?\n"
    )
    if "--dry-run" not in words:
        taken = run(redis_server, *about(words, "acmee"), "--yes", ENDPOINTS_FILE=file)
        said = re.sub(r"\{.*\n", "", taken.stderr)  # but for the log line of what it has done
        assert (taken.exit_code, said) in {(0, ""), (0, EXPORTED_NOTHING)}


EXPORTED_NOTHING = "nothing to export: no dead letter matches\n"


@pytest.mark.parametrize("words", [("pause", "{}"), ("state", "{}")], ids=" ".join)
def test_an_organization_of_the_file_or_in_redis_is_known(
    redis_server: EmbeddedRedis, endpoints_file: Callable[[str], Path], words: tuple[str, ...]
) -> None:
    file = str(endpoints_file(ENDPOINTS))
    seeded(redis_server, some_of_everything)
    for known in ("org_a", "org_b", "123", "seven"):  # org_b has a dead letter, and no endpoint
        assert run(redis_server, *about(words, known), ENDPOINTS_FILE=file).exit_code == 0
    without = run(redis_server, *about(words, "org_b"), ENDPOINTS_FILE="none.toml")
    assert without.exit_code == 0


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (keys.state("org_x", "a"), "string"),
        (keys.event("org_x", "evt_1"), "string"),
        (keys.dead("org_x"), "zset"),
        (keys.parked("org_x"), "zset"),
        (keys.WAITING, "org_x"),
        (keys.FLOWS, "org_x"),
        (keys.BYTES, "org_x:marks"),
        (keys.ORGANIZATIONS, "pause:org_x"),
        (keys.ORGANIZATIONS, "breaker:org_x"),
    ],
)
def test_whatever_redis_holds_of_an_organization_makes_it_known(
    redis_server: EmbeddedRedis, key: str, kind: str
) -> None:
    async def one_trace(place: Workplace) -> None:
        if kind == "string":
            await place.redis.set(key, b"")
        elif kind == "zset":
            await place.redis.zadd(key, {"org_x:1": 1})
        else:
            await place.redis.hset(key, kind, "1")

    async def known(name: str) -> bool:
        async with Redis.from_url(redis_server.url) as redis:
            return await has_footprint(Partition.only(redis), name)

    seeded(redis_server, one_trace)
    assert asyncio.run(known("org_x"))
    assert not asyncio.run(known("org_"))


def test_dead_letters_are_listed_with_their_reasons(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, some_of_everything)
    found = lines(run(redis_server, "dead-letters", "list", "--json"))
    assert {each["reason"] for each in found} == {"malformed", "unavailable_event"}
    mine = lines(run(redis_server, "dead-letters", "list", "--organization", "org_b", "--json"))
    assert [each["organization"] for each in mine] == ["org_b"]
    assert len(lines(run(redis_server, "dead-letters", "list", "--limit", "1", "--json"))) == 1
    assert "malformed" in run(redis_server, "dead-letters", "list").stdout


def test_no_dead_letters_is_said(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, nothing)
    assert "none" in run(redis_server, "dead-letters", "list").stdout


def test_a_dead_letter_is_shown_with_its_body(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, some_of_everything)
    (job,) = [
        each["job"]
        for each in lines(run(redis_server, "dead-letters", "list", "--json"))
        if each["organization"] == "org_b"
    ]
    (shown,) = lines(run(redis_server, "dead-letters", "show", job, "--json"))
    assert shown["body"] == "rubbish"
    assert shown["endpoint"] == "acme"
    assert shown["received"] is not None
    text = run(redis_server, "dead-letters", "show", job).stdout
    assert "rubbish" in text
    assert "malformed" in text


def test_a_dead_letter_that_is_not_there_is_one_line(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, nothing)
    result = run(redis_server, "dead-letters", "show", "org_a:\x1bnothing")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: JOB: expected the job of a dead letter (see: dead-letters list), "
        "got org_a:\\x1bnothing\n"
    )


def test_an_undecodable_payload_is_shown_as_it_is(redis_server: EmbeddedRedis) -> None:
    async def undecodable(place: Workplace) -> None:
        (job,) = await place.accept(body())
        await place.redis.set(keys.payload(job), b"\xffraw")
        await place.handle_next()

    seeded(redis_server, undecodable)
    (letter,) = lines(run(redis_server, "dead-letters", "list", "--json"))
    assert letter["received"] is not None  # the books know it
    (shown,) = lines(run(redis_server, "dead-letters", "show", letter["job"], "--json"))
    assert shown["body"] == "\\xffraw"


@pytest.mark.parametrize(
    "arguments", [("dead-letters", "list"), ("status",), ("dead-letters", "list", "--json")]
)
def test_text_from_outside_is_shown_as_text(
    redis_server: EmbeddedRedis, arguments: tuple[str, ...]
) -> None:
    seeded(redis_server, some_of_everything)
    shown = run(redis_server, *arguments).stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    if "list" in arguments:
        assert "[bold]" in shown


@pytest.mark.parametrize(
    ("why", "who"),
    [("", "ada"), ("  ", "ada"), ("\udcff", "\udcff"), ("x" * 9000, "ada"), ("a\nb\x1b[2J", "ada")],
)
def test_a_pause_is_told_with_who_and_why_whatever_was_typed(
    redis_server: EmbeddedRedis, why: str, who: str
) -> None:
    seeded(redis_server, some_of_everything)
    paused = run(redis_server, "pause", "org_a", "--why", why, LOGNAME=who)
    assert (paused.exit_code, paused.stdout) == (0, "org_a is paused; its events wait\n")
    shown = run(redis_server, "status").stdout
    (told,) = re.findall(r" paused: (.*?), \d+s ago ", shown)
    assert len(told) < 280
    assert told.startswith(why.strip()[:1].replace("\udcff", "\\udcff") or "by ")
    assert who.replace("\udcff", "\\udcff") in told
    again = run(redis_server, "pause", "org_a", "--why", "other")
    assert again.exit_code == 0
    assert f"was paused already ({told}, " in again.stdout
    assert run(redis_server, "actions").exit_code == 0


@pytest.mark.parametrize("typed", ["ORG_A", "Org_a", "org_A", "orga"])
def test_a_mistyped_name_is_refused_with_the_one_that_was_meant(
    redis_server: EmbeddedRedis, typed: str, endpoints_file: Callable[[str], Path]
) -> None:
    seeded(redis_server, nothing)
    file = endpoints_file('[[endpoint]]\nid = "acme"\norganization_id = "org_a"\nsecrets = []\n')
    refused = run(redis_server, "pause", typed, ENDPOINTS_FILE=str(file))
    assert refused.exit_code == 2
    assert refused.stderr.endswith("did you mean 'org_a'?\n")


def test_bytes_that_are_no_text_find_no_value_and_no_failure(redis_server: EmbeddedRedis) -> None:
    seeded(redis_server, some_of_everything)
    assert lines(run(redis_server, "state", "org_a", "\udcff")) == []


def test_a_redis_that_is_not_there_is_one_line(redis_server: EmbeddedRedis) -> None:
    result = run(redis_server, "status", REDIS_URL="redis://:secret@127.0.0.1:1")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: REDIS_URL: expected a Redis that answers, got")
    assert "secret" not in result.output


def test_a_wrong_url_is_one_line(redis_server: EmbeddedRedis) -> None:
    result = run(redis_server, "status", REDIS_URL="http://x")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: REDIS_URL: expected redis://")


def test_a_module_that_fails_to_import_is_one_line_and_its_traceback(
    redis_server: EmbeddedRedis, tmp_path: Path, endpoints_file: Callable[[str], Path]
) -> None:
    (tmp_path / "broken_handlers.py").write_text(
        "from worker import Handlers\nhandlers = Handlers()\n"
        "@handlers.on('order.updated')\ndef plain(event, organization): ...\n"
    )
    (tmp_path / "empty_handlers.py").write_text("from worker import Handlers\nh = Handlers()\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    path = endpoints_file('[[endpoint]]\nid="a"\norganization_id="org_a"\nsecrets=["whsec_a"]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for handlers, message in (
            ("broken_handlers:handlers", "plain: expected an async def function, got function"),
            ("empty_handlers:h", "expected at least one handler, got an empty registry"),
            ("empty_handlers:h.x", "no 'x' in it"),
            ("script:handlers", "a module to import in 'script:handlers', got SystemExit: 0"),
        ):
            result = run(redis_server, ENDPOINTS_FILE=str(path), WORKER_HANDLERS=handlers)
            assert result.exit_code == 2
            assert message in result.stderr
            line, *below = result.stderr.splitlines()
            assert message in line
            # Where a line of theirs has run, that is shown; no line of ours.
            assert all(each.startswith("  ") for each in below)
            assert (
                ("sys.exit(0)" in result.stderr) == bool(below) == (handlers == "script:handlers")
            )
