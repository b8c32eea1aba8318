"""Facts about the commands that act on dead letters, on a real Redis."""

import asyncio
import base64
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from io import BytesIO, TextIOWrapper
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.actions import whoami
from shared.queue.job import job_id
from shared.queue.partition import Partition
from shared.queue.reach import Reach
from tests.integration.books import Books
from tests.integration.console import letters
from tests.integration.jobs import NOTHING, account, counters, mark_of, reach, record_of
from tests.integration.workplace import Lines, Workplace, body, now
from worker import Event, Handlers, Organization, Reject
from worker.cli import main
from worker.operate import upkeep
from worker.operate.asking import ask
from worker.operate.dead_letters import REASONS, Selection
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import MINUTES
from worker.operate.meant import Meant
from worker.operate.relisting import relist
from worker.pipeline.transitions import Settled

HOUR = 3_600_000
CREATED = now()
Answer = TypeVar("Answer")


class Desk:
    """An operator's place: dead letters, and the commands that act on them."""

    def __init__(self, server: EmbeddedRedis) -> None:
        self.server = server

    def do(self, work: Callable[[Redis], Awaitable[Answer]]) -> Answer:
        """Do something to Redis behind the operator's back."""

        async def go() -> Answer:
            async with Redis.from_url(self.server.url) as redis:
                return await work(redis)

        return asyncio.run(go())

    def run(self, *arguments: str, answers: str = "") -> Result:
        """Run one of the commands, and answer what it asks."""
        env = {"REDIS_URL": self.server.url, "COLUMNS": "250"}
        if arguments[0] == "replay" and "--wait" not in arguments:
            arguments += ("--wait", "0")  # mostly no worker is there that would handle them
        return CliRunner().invoke(main, ("dead-letters", *arguments), env=env, input=answers)

    def listed(self, *filters: str) -> list[str]:
        """The event ids that list shows, newest first."""
        return [each["event_id"] for each in lines(self.run("list", "--json", *filters))]

    def job(self, event_id: str) -> str:
        """The job of an event that is dead."""
        (job,) = [
            each["job"]
            for each in lines(self.run("list", "--json"))
            if each["event_id"] == event_id
        ]
        return str(job)

    def bury(self, *event_ids: str, **changes: Any) -> None:
        """Let events be rejected."""

        async def work(redis: Redis) -> None:
            place = Workplace(redis, rejecting())
            for event_id in event_ids:
                assert await place.handle(body(event_id, **changes)) is Settled.DEAD

        self.do(work)

    def handle_all(self, handlers: Handlers | None = None) -> list[Settled]:
        """Let a worker take all that waits, by default one whose handlers work."""

        async def work(redis: Redis) -> list[Settled]:
            place = Workplace(redis, handlers or working())
            return [await place.run(*each) for each in await place.claim(200)]

        return self.do(work)

    def books(self) -> Books:
        """Everything that Redis holds."""
        return self.do(Books.read)


def rejecting() -> Handlers:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def rejects(_event: Event[Any], _: Organization) -> Reject:
        return Reject("no such order")

    return handlers


def working() -> Handlers:
    handlers = Handlers()

    @handlers.on("*")
    async def counts(event: Event[Any], organization: Organization) -> None:
        await organization.state.increment(f"applied/{event.id}")

    return handlers


def lines(result: Result) -> list[dict[str, Any]]:
    """The JSON lines that a command printed."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def desk(redis_server: EmbeddedRedis) -> Desk:
    """Give a desk with nothing on it."""
    desk = Desk(redis_server)

    async def work(redis: Redis) -> None:
        await redis.flushall()

    desk.do(work)
    return desk


async def _six(redis: Redis) -> None:
    place = Workplace(redis, rejecting())
    await place.handle(body("evt_rejected"))
    await place.handle(body("evt_of_b", "org_b"), organization="org_b")
    await place.handle(body("evt_created", type="order.created"))
    await place.handle(body("evt_exploded", type="order.exploded"))
    await place.handle(body("evt_stale", created_at=now() - timedelta(days=30)))
    await place.handle(body("evt_old"))
    job = (await redis.zrange(keys.dead("org_a"), -1, -1))[0].decode()
    died_at = int(await redis.hget(keys.dead_letter(job), "died_at")) - 2 * HOUR
    await redis.hset(keys.dead_letter(job), "died_at", str(died_at))
    await redis.zadd(keys.dead("org_a"), {job: died_at})


@pytest.fixture
def six(desk: Desk) -> Desk:
    """Give a desk with six that are dead for all kinds of reasons, one for two hours."""
    desk.do(_six)
    return desk


@pytest.mark.parametrize(
    ("filters", "meant"),
    [
        (["--organization", "org_b"], {"evt_of_b"}),
        (["--organization", "org_nobody", "--yes"], set()),
        (["--reason", "no_handler"], {"evt_created"}),
        (["--reason", "rejected"], {"evt_rejected", "evt_of_b", "evt_old"}),
        (["--type", "order.exploded"], {"evt_exploded"}),
        (["--older-than", "1h"], {"evt_old"}),
        (["--older-than", "3h"], set()),
        (["--older-than", "999999999999d"], set()),
        (
            ["--younger-than", "1h", "--organization", "org_a", "--reason", "rejected"],
            {"evt_rejected"},
        ),
        (["--older-than", "1h", "--reason", "stale"], set()),
    ],
)
@pytest.mark.parametrize("is_listed", [False, True])
def test_filters_mean_what_they_say_alone_and_together(
    six: Desk,
    filters: list[str],
    meant: set[str],
    is_listed: bool,  # noqa: FBT001  # a case
) -> None:
    if is_listed:
        six.do(relisted)
    assert set(six.listed(*filters)) == meant
    exported = lines(six.run("export", *filters))
    assert {each["event_id"] for each in exported} == meant
    for verb in ("replay", "discard"):
        told = six.run(verb, "--dry-run", *filters)
        assert told.exit_code == (0 if meant else 2)
        assert (f"would {verb} {len(meant)}\n" in told.stdout) is bool(meant)
        assert all(event_id in told.stdout for event_id in meant)


def test_groups_tell_how_many_died_of_what_and_are_acted_on(desk: Desk) -> None:
    desk.bury("evt_1", "evt_2", "evt_3")
    desk.bury("evt_4", type="order.created")
    largest, other = lines(desk.run("groups", "--json"))
    assert (largest["letters"], largest["error"]) == (3, "no such order")
    assert (largest["organization"], largest["reason"]) == ("org_a", "rejected")
    assert largest["first"] <= largest["last"]
    assert (other["letters"], other["type"]) == (1, "order.created")
    table = desk.run("groups", "--limit", "1")
    assert largest["group"] in table.stdout
    assert other["group"] not in table.stdout
    assert "only the first 1 of 2; --limit shows more" in table.stderr
    assert "no group yet" not in table.stderr
    for filters, found in (
        (["--reason", "rejected"], [largest]),
        (["--organization", "org_a"], [largest, other]),
        (["--type", "order.created"], [other]),
        (["--organization", "org_b", "--yes"], []),
    ):
        assert lines(desk.run("groups", "--json", *filters)) == found
    group = ("--group", largest["group"])
    assert set(desk.listed(*group)) == {"evt_1", "evt_2", "evt_3"}
    assert desk.listed(*group, "--type", "order.created") == []
    assert desk.listed(*group, "--organization", "org_b", "--yes") == []
    assert {each["group"] for each in lines(desk.run("list", "--json", *group))} == {group[1]}
    # A sample first, and then all of them.
    sampled = desk.run("replay", *group, "--limit", "1", "--yes", "--wait", "0")
    assert sampled.stdout.endswith("1 replayed\n")
    desk.handle_all()
    assert [each["letters"] for each in lines(desk.run("groups", "--json"))] == [2, 1]
    assert desk.run("discard", *group, "--yes").stdout.endswith("2 discarded\n")
    assert lines(desk.run("groups", "--json")) == [other]
    assert desk.run("replay", *group).exit_code == 2


@pytest.mark.parametrize("verb", ["replay", "discard", "export", "list", "groups"])
def test_a_type_that_is_no_text_matches_nothing_and_is_no_failure(desk: Desk, verb: str) -> None:
    desk.bury("evt_1")
    result = desk.run(verb, "--type", "\udcff")
    assert result.exit_code == (2 if verb in {"replay", "discard"} else 0)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert desk.listed() == ["evt_1"]


class _Terminal(TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_no_number_is_cut_on_a_narrow_terminal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bury("evt_1", "evt_2")
    (group,) = lines(desk.run("groups", "--json"))
    letter, _ = lines(desk.run("list", "--json"))
    written = BytesIO()
    monkeypatch.setenv("REDIS_URL", desk.server.url)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys, "stdout", _Terminal(written, encoding="utf-8"))
    for command in ("groups", "list"):
        main(["dead-letters", command], standalone_mode=False)
    sys.stdout.flush()
    shown = written.getvalue().decode()
    monkeypatch.undo()
    for whole in (
        *(group["first"], group["last"], group["group"], letter["died"]),
        f"attempts: {letter['attempts']}",
    ):
        assert whole in shown, shown


def test_letters_of_an_earlier_version_are_told_of_until_they_are_in_groups(desk: Desk) -> None:
    desk.do(lambda redis: letters.bury(redis, "org_a", 3))
    told = desk.run("groups").stderr
    assert "3 dead letters of an earlier version are in no group yet; a worker" in told
    assert upkeep.EVERY.total_seconds() == 60 * MINUTES
    desk.do(relisted)
    assert desk.run("groups").stderr == ""
    crashed, exhausted = sorted(lines(desk.run("groups", "--json")), key=itemgetter("letters"))
    assert (exhausted["letters"], exhausted["error"]) == (2, "KeyError: *")
    assert (crashed["letters"], crashed["reason"]) == (1, "crashed")


async def relisted(redis: Redis) -> None:
    await relist(Partition.only(redis), log=Lines().log)


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [
        (["--reason", "exausted"], "is not one of 'malformed'"),
        (["--older-than", "soon"], "got 'soon'"),
        (["--organization", "org:*"], "--organization: expected 1 to 64 letters"),
        (["--group", "org_a"], "expected what dead-letters groups shows"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "replay", "discard", "export"])
def test_a_filter_that_cannot_be_is_refused(
    six: Desk, verb: str, filters: list[str], complaint: str
) -> None:
    done = six.run(verb, *filters)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_what_matches_nothing_says_so_and_changes_nothing(six: Desk) -> None:
    before = six.books()
    nothing = ("--reason", "crashed")
    assert "Dead letters: none" in six.run("list", *nothing).stdout
    assert "no dead letter matches" in six.run("export", *nothing).stderr
    for verb in ("replay", "discard"):
        for arguments in (nothing, ("org_a:nothing",)):
            done = six.run(verb, "--yes", *arguments)
            assert done.exit_code == 2
            assert f"error: nothing to {verb}: expected at least one dead letter" in done.stderr
    assert six.books() == before


@pytest.mark.parametrize("verb", ["replay", "discard"])
@pytest.mark.parametrize(
    "arguments",
    [(), ("--all", "--reason", "stale"), ("org_a:x", "--all"), ("org_a:x", "--type", "order.x")],
)
def test_nothing_is_meant_by_accident(six: Desk, verb: str, arguments: tuple[str, ...]) -> None:
    before = six.books()
    done = six.run(verb, "--yes", *arguments)
    assert done.exit_code == 2
    assert "expected jobs, or filters such as --organization, or --all; one of" in done.stderr
    assert six.books() == before


@pytest.mark.parametrize("verb", ["replay", "discard"])
def test_a_dry_run_and_a_no_change_nothing(six: Desk, verb: str) -> None:
    before = six.books()
    assert f"would {verb} 6\n" in six.run(verb, "--all", "--dry-run", "--yes").stdout
    refused = six.run(verb, "--all", answers="n\n")
    assert f"{verb} 6? [y/N]: n\nnothing was changed\n" in refused.stdout
    assert six.run(verb, "--all").exit_code == 1  # nobody is there to answer
    assert six.books() == before


def test_more_than_ten_are_counted_rather_than_shown(desk: Desk) -> None:
    desk.bury(*(f"evt_{number}" for number in range(13)))
    told = desk.run("discard", "--all", "--dry-run").stdout.splitlines()
    assert told[10:] == ["  … and 3 more", "would discard 13"]


def test_list_tells_that_there_are_more(six: Desk) -> None:
    done = six.run("list", "--limit", "2", "--json")
    assert len(lines(done)) == 2
    assert done.stderr == "only the first 2; --limit shows more\n"
    assert six.run("list", "--limit", "6").stderr == ""


def test_as_many_as_died_in_one_millisecond_are_each_listed_once(desk: Desk) -> None:
    """More of them than are read at once, between others."""

    async def work(redis: Redis) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for number in range(700):
                job = f"org_a:{number:032}"
                died_at = {0: 1, 699: 9}.get(number, 5)
                record = {"event_id": f"evt_{number}", "died_at": str(died_at)}
                pipe.hset(keys.dead_letter(job), mapping=record)
                pipe.zadd(keys.dead("org_a"), {job: died_at})
            pipe.hset(keys.BURIED, "org_a", "700")
            await pipe.execute()

    desk.do(work)
    newest_first = desk.listed("--limit", "1000")
    assert len(newest_first) == len(set(newest_first)) == 700
    assert (newest_first[0], newest_first[-1]) == ("evt_699", "evt_0")
    oldest_first = [each["event_id"] for each in lines(desk.run("export"))]
    assert sorted(oldest_first) == sorted(newest_first)
    assert (oldest_first[0], oldest_first[-1]) == ("evt_0", "evt_699")


def test_export_holds_all_that_a_dead_letter_is(six: Desk) -> None:
    (exported,) = lines(six.run("export", "--organization", "org_b"))
    delivery = jobs.decode(base64.b64decode(exported.pop("payload")))
    assert json.loads(delivery.body)["id"] == "evt_of_b"
    assert delivery.organization == "org_b"
    (shown,) = lines(six.run("show", six.job("evt_of_b"), "--json"))
    assert json.loads(shown.pop("body"))["id"] == "evt_of_b"
    assert shown == exported
    assert exported["attempts"] == 1
    assert exported["error"] == "no such order"
    assert exported["received"] <= exported["died"]


def test_what_a_dead_letter_does_not_have_is_shown_as_a_dash(desk: Desk) -> None:
    async def work(redis: Redis) -> None:
        await Workplace(redis).handle(b"rubbish")

    desk.do(work)
    (dead,) = lines(desk.run("list", "--json"))
    shown = desk.run("show", dead["job"]).stdout
    assert "    event id  -\n        type  -\n" in shown
    assert "None" not in shown


def test_the_traceback_is_shown_and_exported(desk: Desk) -> None:
    handlers = Handlers()

    @handlers.on("*")
    async def fails(event: Event[Any], organization: Organization) -> None:
        raise KeyError("as told")

    async def work(redis: Redis) -> None:
        place = Workplace(redis, handlers)
        await place.accept(body("evt_1"))
        while await place.handle_next() is not Settled.DEAD:
            pass

    desk.do(work)
    job = desk.job("evt_1")
    shown = desk.run("show", job).stdout
    assert "   traceback  Traceback (most recent call last):\n                File " in shown
    assert shown.endswith(
        "                  raise KeyError(\"as told\")\n              KeyError: 'as told'\n"
    )
    (exported,) = lines(desk.run("export"))
    assert lines(desk.run("show", job, "--json"))[0]["traceback"] == exported["traceback"]
    assert exported["traceback"].endswith("KeyError: 'as told'")


def test_discard_asks_and_a_late_redelivery_does_not_bring_it_back(desk: Desk) -> None:
    desk.bury("evt_1", "evt_2")
    done = desk.run("discard", desk.job("evt_1"), answers="y\n")
    assert "discard 1? [y/N]: y\n1 discarded\n" in done.stdout
    assert desk.listed() == ["evt_2"]

    async def redelivered(redis: Redis) -> Settled:
        return await Workplace(redis, working()).handle(body("evt_1", note="other bytes"))

    assert desk.do(redelivered) is Settled.DUPLICATE
    assert desk.do(account) == NOTHING


def test_discard_does_not_ask_who_says_yes_and_may_be_repeated(six: Desk) -> None:
    done = six.run("discard", "--all", "--yes")
    assert "?" not in done.stdout
    assert done.stdout.endswith("6 discarded\n")
    assert six.listed() == []
    assert six.do(counters)["discarded"] == 6
    assert six.run("discard", "--all", "--yes").exit_code == 2


def test_those_that_are_named_and_are_not_there_are_told(desk: Desk) -> None:
    desk.bury("evt_1")
    done = desk.run("discard", desk.job("evt_1"), "org_a:\x1bx", "--yes")
    assert done.stderr.startswith("no dead letter: org_a:\\x1bx\n")
    assert done.stdout.endswith("1 discarded\n")


def test_a_job_that_is_named_twice_counts_once(desk: Desk) -> None:
    desk.bury("evt_1")
    job = desk.job("evt_1")
    assert "would replay 1\n" in desk.run("replay", job, job, "--dry-run").stdout


def test_the_reasons_that_can_be_asked_for_are_those_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "worker" / "README.md").read_text()
    table = readme.partition("## Dead letters")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(REASONS)


def test_a_ctrl_c_that_gets_lost_once_ends_a_command_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py loses one under Python 3.11, when it comes as a command has just been sent."""
    steps: list[str] = []

    async def long_work(_: Reach) -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("lost")
        await asyncio.sleep(5)
        steps.append("done")

    monkeypatch.setenv("REDIS_URL", desk.server.url)
    with pytest.raises(KeyboardInterrupt):
        ask(long_work)
    assert steps == ["lost"]


async def test_what_dies_after_it_was_counted_is_not_meant(redis: Redis) -> None:
    place = Workplace(redis, rejecting())
    (first,) = await place.accept(body("evt_1"))
    await place.handle_next()
    meant = Meant(Selection(filter=Filter(organization="org_a")))
    await meant.count(reach(redis))
    seconds, microseconds = await redis.time()
    while await redis.time() < (seconds, microseconds + 2000):
        await asyncio.sleep(0.001)
    await place.handle(body("evt_2"))
    assert [letter.job async for letter in meant.selection.letters(reach(redis))] == [first]
    assert meant.number == 1


def test_a_replayed_event_is_handled_under_its_old_job_and_time(desk: Desk) -> None:
    desk.bury("evt_1", "evt_2")
    job = desk.job("evt_1")
    received_at = desk.do(lambda redis: record_of(redis, job))["received_at"]
    done = desk.run("replay", job, "--yes")
    assert done.stdout.endswith("\n1 replayed\n")
    assert float(desk.do(lambda redis: redis.zscore(keys.ACCEPTED, job))) == float(received_at)
    assert desk.handle_all() == [Settled.DONE]
    assert desk.listed() == ["evt_2"]
    assert desk.do(lambda redis: mark_of(redis, "evt_1")) == f"done:{job}"


def test_a_replayed_event_passes_judgement_anew(six: Desk) -> None:
    """Who was unhandled is handled; what isn't in the reference data, or is stale, dies again."""
    done = six.run("replay", "--all", "--yes", "--rate", "1000")
    assert done.stdout.endswith("6 replayed\n")
    assert Counter(six.handle_all()) == {Settled.DONE: 4, Settled.DEAD: 2}
    assert set(six.listed()) == {"evt_exploded", "evt_stale"}
    assert six.do(account) == NOTHING


def test_replay_may_be_repeated_while_they_wait(desk: Desk) -> None:
    desk.bury("evt_1", "evt_2")
    replay = ("replay", "--all", "--yes", "--rate", "1000")
    assert desk.run(*replay).stdout.endswith("2 replayed\n")
    told = lines(desk.run("list", "--json"))
    assert [(each["replayed_by"], each["replayed"] > each["died"]) for each in told] == [
        (whoami()[0], True)
    ] * 2
    before = desk.books()
    assert desk.run(*replay).stdout.endswith("0 replayed, 2 waiting already\n")
    assert desk.books() == before
    assert desk.handle_all() == [Settled.DONE] * 2
    assert desk.run(*replay).exit_code == 2


def test_the_unprovable_are_replayed_by_force_only(desk: Desk) -> None:
    async def unprovable(redis: Redis) -> None:
        created_at = now() - timedelta(days=8)
        received_at = round((created_at + timedelta(hours=1)).timestamp() * 1000)
        signed = body("evt_old", created_at=created_at)
        place = Workplace(redis, working())
        assert await place.handle(signed, received_at=received_at) is Settled.DEAD

    desk.do(unprovable)
    assert desk.listed("--reason", "unprovable") == ["evt_old"]
    done = desk.run("replay", "--all", "--yes")
    assert "1 of them unprovable, left alone without --force\n" in done.stdout
    assert done.stdout.endswith("0 replayed, 1 unprovable left alone\n")
    assert desk.handle_all() == []
    forced = desk.run("replay", "--all", "--force", "--yes")
    assert forced.stdout.endswith("1 replayed\n")
    assert "unprovable," not in forced.stdout
    assert desk.handle_all() == [Settled.DONE]
    assert desk.listed() == []


async def _harm(redis: Redis) -> None:
    """Let three dead letters be of events whose payload was harmed, one of which kept its own."""
    lost, changed, kept = (job_id("org_a", body(f"evt_{n}", created_at=CREATED)) for n in range(3))
    other = jobs.encode(jobs.Delivery("acme", "org_a", 1, {}, b"{}"))
    harms: list[tuple[str, dict[str, str | bytes]]] = [
        (lost, {"reason": "payload_lost", "payload": ""}),
        (changed, {"reason": "payload_changed", "payload": other}),
        (kept, {"reason": "payload_changed"}),
    ]
    for job, fields in harms:
        await redis.hset(keys.dead_letter(job), mapping=fields)


def test_what_was_lost_or_changed_is_not_replayed_and_said(desk: Desk) -> None:
    desk.bury(*(f"evt_{n}" for n in range(4)), created_at=CREATED)
    desk.do(_harm)
    result = desk.run("replay", "--all", "--yes")
    assert "2 of them without the payload that came, left alone\n" in result.stdout
    assert result.stdout.endswith("2 replayed, 2 without the payload that came\n")
    assert desk.handle_all() == [Settled.DONE] * 2
    assert sorted(desk.listed()) == ["evt_0", "evt_1"]


@pytest.mark.parametrize("rate", ["0", "-1", "fast"])
def test_a_rate_that_cannot_be_is_refused(six: Desk, rate: str) -> None:
    done = six.run("replay", "--all", "--yes", "--rate", rate)
    assert done.exit_code == 2
    assert "--rate" in done.stderr


def test_a_redis_that_is_not_there_is_one_line(desk: Desk) -> None:
    env = {"REDIS_URL": "redis://127.0.0.1:1"}
    done = CliRunner().invoke(main, ("dead-letters", "replay", "--all", "--yes"), env=env)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: REDIS_URL: expected a Redis that answers, got")
    assert len(done.stderr.splitlines()) == 1
