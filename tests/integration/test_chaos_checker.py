"""Facts about the checker of the chaos suite: it holds an account that is right, and no other."""

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.chaos import cluster_faults, faults, single_faults
from tests.chaos.checker import Verdict, check
from tests.chaos.others import Bounds, Others, findings
from tests.chaos.run import Plan
from tests.chaos.verdict import BROKEN, HELD, NOT_EXERCISED

FAULTS = ("redis killed", "worker killed")
HAPPENED = 1_795_000_000_000

MISSING = "nothing accepted is missing"
TWICE = "nothing is applied twice"
STALE = "nothing stale is applied"
CROSSED = "nothing crosses organizations"
QUIET = "all has ended 6 s after the last fault"


@dataclass
class Account:
    """What every witness says; by default it balances."""

    redis: Redis
    folder: Path
    ledger: list[dict[str, Any]] = field(default_factory=list)
    handled: list[dict[str, Any]] = field(default_factory=list)
    _at: float = 0.0

    def write(self, what: str, **fields: Any) -> None:
        """Add a line to the ledger."""
        self._at += 0.1
        self.ledger.append({"what": what, "at": self._at, **fields})

    def event(self, name: str, kind: str, *answers: int, bodies: int = 1) -> None:
        """Add an event with its answers, the last ones to other bytes."""
        self.write("event", id=name, kind=kind, organization="org_a")
        for number, status in enumerate(answers):
            sha = f"{name}-{min(number, bodies - 1)}"
            self.write("answer", id=name, sha=sha, status=status, code="", kind=kind)

    def handles(self, name: str, organization: str = "org_a") -> None:
        """Let a handler write down that it had the event."""
        line = {"id": name, "organization": organization, "claimed": organization}
        self.handled.append({**line, "attempt": 1, "order": "order_1", "number": HAPPENED})

    async def applied(self, name: str, times: int = 1, organization: str = "org_a") -> None:
        """Let the state say how often."""
        await self.redis.set(f"sellfern:state:{organization}:applied/{name}", times)

    async def dead(self, name: str, reason: str) -> None:
        """Let there be a dead letter."""
        await self.redis.hset(f"sellfern:dead-letter:org_a:{name}-0", "reason", reason)

    async def order(self, happened: int, version: int | None = None) -> None:
        """Let the state hold an order's last event."""
        version = happened * 1000 if version is None else version
        raw = f"{happened}\n{version}\nevt_good"
        await self.redis.set("sellfern:state:org_a:orders/order_1", raw)

    async def verdict(self) -> Verdict:
        """What the checker makes of it."""
        for path, lines in (("ledger", self.ledger), ("handled-1", self.handled)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (self.folder / f"{path}.jsonl").write_text(text)
        return await check(self.folder, [self.redis], FAULTS, 6.0)


@pytest.fixture
async def account(redis: Redis, tmp_path: Path) -> Account:
    """Give an account in which everything has happened once, as it should."""
    account = Account(redis, tmp_path)
    account.write("fault began", fault="redis killed")
    account.event("evt_good", "good", 503, 202, 202, bodies=1)
    account.event("evt_other", "good", 202, 202, bodies=2)
    account.event("evt_flaky", "flaky", 202)
    account.event("evt_hostile", "hostile", 202)
    account.write("fault ended", fault="redis killed")
    account.write("fault began", fault="worker killed")
    account.event("evt_reject", "reject", 202)
    account.event("evt_mismatch", "mismatch", 202)
    account.event("evt_stale", "stale", 202)
    account.event("evt_rubbish", "rubbish", 202)
    account.event("evt_unsigned", "unsigned", 401)
    account.write("fault ended", fault="worker killed")
    account.write("all ended", in_time=True)
    for name in ("evt_good", "evt_other", "evt_flaky", "evt_hostile"):
        account.handles(name)
        await account.applied(name)
    account.handles("evt_reject")
    for name, reason in (
        ("evt_reject", "rejected"),
        ("evt_mismatch", "organization_mismatch"),
        ("evt_stale", "stale"),
        ("evt_rubbish", "malformed"),
    ):
        await account.dead(name, reason)
    await account.order(HAPPENED)
    return account


def found(verdict: Verdict, kind: str) -> set[str]:
    """The invariants with this verdict."""
    return {finding.invariant for finding in verdict.findings if finding.verdict == kind}


async def test_an_account_that_balances_holds(account: Account) -> None:
    verdict = await account.verdict()
    assert verdict.holds
    assert not verdict.is_broken
    totals = verdict.totals
    assert (totals["accepted"], totals["faults"], totals["answer 503"]) == (8, 2, 1)
    assert [totals[name] for name in ("missing", "applied twice", "applied stale", "crossed")] == [
        0
    ] * 4


async def missing(account: Account) -> None:
    await account.redis.delete("sellfern:state:org_a:applied/evt_good")


async def misbehaved_for_good(account: Account) -> None:
    await account.redis.delete("sellfern:state:org_a:applied/evt_hostile")


async def saw_the_context_of_another(account: Account) -> None:
    account.handled[0]["context"] = "evt_other"


async def missing_dead_letter(account: Account) -> None:
    await account.redis.delete("sellfern:dead-letter:org_a:evt_stale-0")


async def twice(account: Account) -> None:
    await account.applied("evt_other", 2)


async def twice_after_a_redelivery(account: Account) -> None:
    await account.applied("evt_good", 2)


async def stale_applied(account: Account) -> None:
    await account.applied("evt_stale")


async def stale_seen_by_a_handler(account: Account) -> None:
    account.handles("evt_stale")


async def crossed_in_the_state(account: Account) -> None:
    await account.redis.delete("sellfern:state:org_a:applied/evt_flaky")
    await account.applied("evt_flaky", organization="org_b")


async def crossed_in_a_handler(account: Account) -> None:
    account.handles("evt_good", "org_b")


async def handled_for_another(account: Account) -> None:
    await account.dead("evt_mismatch", "rejected")


async def unsigned_accepted(account: Account) -> None:
    account.write("answer", id="evt_unsigned", sha="x", status=202, code="", kind="unsigned")


async def answered_otherwise(account: Account) -> None:
    account.write("answer", id="evt_good", sha="x", status=500, code="", kind="good")


async def older_order(account: Account) -> None:
    await account.order(HAPPENED - 1)


async def order_of_another_version(account: Account) -> None:
    await account.order(HAPPENED, version=HAPPENED * 1000 + 1)


async def left_queued(account: Account) -> None:
    await account.redis.zadd("sellfern:queue", {"org_a:x": 1})


async def left_pending(account: Account) -> None:
    await account.redis.set("sellfern:event:org_a:evt_good", "pending:org_a:x")


async def too_late(account: Account) -> None:
    account.ledger[-1]["at"] += 7


async def never_ended(account: Account) -> None:
    account.ledger[-1]["in_time"] = False


async def program_that_did_not_stop(account: Account) -> None:
    account.write("problem", text="worker-1 ended with code 1 on SIGTERM")


async def handled_unsent(account: Account) -> None:
    account.handles("evt_nobody_sent")


@pytest.mark.parametrize(
    ("tamper", "invariants"),
    [
        (missing, {MISSING, "redelivered bytes change nothing"}),
        (missing_dead_letter, {MISSING}),
        (misbehaved_for_good, {MISSING, "what misbehaves and then works is applied"}),
        (saw_the_context_of_another, {"no event sees another's context"}),
        (
            twice,
            {TWICE, "other bytes of an event change nothing", "redelivered bytes change nothing"},
        ),
        (twice_after_a_redelivery, {TWICE, "redelivered bytes change nothing"}),
        (stale_applied, {STALE}),
        (stale_seen_by_a_handler, {STALE}),
        (crossed_in_the_state, {CROSSED}),
        (crossed_in_a_handler, {CROSSED}),
        (handled_for_another, {"what is signed for another organization is buried"}),
        (
            unsigned_accepted,
            {
                "what is not signed is refused",
                "the sender sees 202, 503 and broken connections, nothing else",
            },
        ),
        (answered_otherwise, {"the sender sees 202, 503 and broken connections, nothing else"}),
        (older_order, {"an older event never replaces a newer one"}),
        (order_of_another_version, {"an older event never replaces a newer one"}),
        (left_queued, {"in the end nothing is left half done"}),
        (left_pending, {"in the end nothing is left half done"}),
        (too_late, {QUIET}),
        (never_ended, {QUIET}),
        (program_that_did_not_stop, {"programs stop as they are told"}),
        (handled_unsent, {"handlers see only what was sent"}),
    ],
)
async def test_what_was_tampered_with_is_broken_and_nothing_else_is(
    account: Account, tamper: Callable[[Account], Awaitable[None]], invariants: set[str]
) -> None:
    await tamper(account)
    verdict = await account.verdict()
    assert found(verdict, BROKEN) == invariants
    assert verdict.is_broken
    assert not verdict.holds


async def test_what_did_not_happen_is_not_exercised_and_does_not_hold(account: Account) -> None:
    account.ledger = [line for line in account.ledger if line.get("fault") != "worker killed"]
    account.ledger = [line for line in account.ledger if line.get("id") != "evt_stale"]
    await account.redis.delete("sellfern:dead-letter:org_a:evt_stale-0")
    verdict = await account.verdict()
    assert found(verdict, NOT_EXERCISED) == {STALE, "every kind of fault"}
    assert not verdict.is_broken
    assert not verdict.holds


async def test_a_fault_during_which_nothing_was_accepted_is_not_exercised(
    account: Account,
) -> None:
    account.write("fault began", fault="redis frozen")
    account.write("fault ended", fault="redis frozen")
    account.write("all ended", in_time=True)
    verdict = await check_with(account, *FAULTS, "redis frozen")
    (finding,) = [each for each in verdict.findings if each.verdict != HELD]
    assert finding.invariant == "every kind of fault"
    assert finding.detail == "without events: redis frozen"


async def check_with(account: Account, *required: str) -> Verdict:
    await account.verdict()
    return await check(account.folder, [account.redis], required, 6.0)


async def test_a_line_that_a_killed_worker_cut_is_passed_over(account: Account) -> None:
    await account.verdict()
    with (account.folder / "handled-2.jsonl").open("w") as file:
        file.write('{"id": "evt_good", "organi')
    assert (await check(account.folder, [account.redis], FAULTS, 6.0)).holds


WHOLE = "each organization is in one partition"
FAST = "others' p99 is twice what it was and 10 ms, at most"
REFUSED = "others are refused nothing"


class Divided:
    """The account of a cluster, in which one organization's primary fails.

    Args:
        account: of one queue; its events are those of the others.
        others: how many answers they get before and meanwhile, and what each takes then, seconds.
    """

    def __init__(self, account: Account, others: tuple[float, float], status: int = 202) -> None:
        self.account = account
        account.write("fault began", fault="primary killed")
        account.write("fault ended", fault="primary killed")
        before, meanwhile = others
        self._answers(before)
        account.write("fault began", fault="primary killed")
        account.write("harms", organizations=["org_harmed"])
        self._answers(meanwhile, status)
        self._answers(60.0, 503, "org_harmed")
        account.write("fault ended", fault="primary killed")
        account.write("all ended", in_time=True)

    def _answers(self, took: float, status: int = 202, organization: str = "org_other") -> None:
        for _ in range(10):
            name = f"evt_{len(self.account.ledger)}"
            self.account.write("event", id=name, kind="unsigned", organization=organization)
            answer = {"status": status, "took": took, "code": "", "sha": name}
            self.account.write("answer", id=name, kind="unsigned", **answer)

    async def verdict(self) -> Verdict:
        """What the checker makes of it, of what concerns a cluster."""
        account = self.account
        await account.verdict()
        return await check(account.folder, [account.redis], FAULTS, 60.0, Bounds())


def of_a_cluster(verdict: Verdict) -> dict[str, str]:
    """How its own invariants fared."""
    return {
        each.invariant: each.verdict
        for each in verdict.findings
        if each.invariant in {WHOLE, FAST, REFUSED}
    }


@pytest.mark.parametrize(
    ("meanwhile", "status", "broken"),
    [(0.029, 202, set()), (0.031, 202, {FAST}), (0.010, 503, {REFUSED})],
)
async def test_others_may_be_answered_a_little_later_and_refused_nothing(
    account: Account, meanwhile: float, status: int, broken: set[str]
) -> None:
    verdict = await Divided(account, (0.010, meanwhile), status).verdict()
    found = of_a_cluster(verdict)
    assert {name for name, kind in found.items() if kind == BROKEN} == broken
    assert set(found) == {WHOLE, FAST, REFUSED}


def test_whom_an_earlier_fault_harms_it_does_until_that_ingress_accepts_again() -> None:
    others, clock = Others(), count()

    def take(what: str, **fields: Any) -> None:
        others.take({"what": what, "at": next(clock), **fields})

    def answer(status: int, port: int) -> None:
        take("answer", id="evt", status=status, port=port, code="redis_cluster_down")

    take("event", id="evt", organization="org_other")
    answer(503, 1)
    take("fault began", fault="primary killed")
    take("harms", organizations=["org_harmed"])
    for status, port in ((503, 1), (503, 2), (202, 1), (503, 1)):
        answer(status, port)
    take("fault ended", fault="primary killed")
    (harm,) = others.harms
    found = [(each.status, each.port) for each in others.meanwhile(harm)]
    assert found == [(503, 2), (202, 1), (503, 1)]
    *_, refused = findings(others, Bounds())
    shown = "primary killed 2 (redis_cluster_down org_other 2) of 3 answers"
    assert (refused.invariant, refused.detail) == (REFUSED, shown)


async def test_whoever_is_left_in_two_partitions_is_found(account: Account) -> None:
    divided = Divided(account, (0.010, 0.010))
    await account.redis.set("sellfern:{021}:state:org_a:applied/evt_good", 1)
    await account.redis.set("sellfern:{357}:event:org_b:evt_other", "pending:org_b:x")
    await account.redis.hset("sellfern:{461}:dead-letter:{461}org_c:evt_x-0", "reason", "stale")
    verdict = await divided.verdict()
    assert of_a_cluster(verdict)[WHOLE] == BROKEN
    broken = {each.invariant: each.detail for each in verdict.findings if each.verdict == BROKEN}
    assert broken[WHOLE] == "org_a in , 021"
    assert TWICE in broken
    left = broken["in the end nothing is left half done"]
    assert left == "sellfern:{357}:event:org_b:evt_other"


async def test_nobody_is_told_of_others_where_no_fault_has_spared_any(account: Account) -> None:
    await account.verdict()
    verdict = await check(account.folder, [account.redis], FAULTS, 60.0, Bounds())
    assert of_a_cluster(verdict) == {WHOLE: HELD, FAST: NOT_EXERCISED, REFUSED: NOT_EXERCISED}


@pytest.mark.parametrize("required", [*single_faults.REQUIRED.values(), cluster_faults.REQUIRED])
def test_a_whole_run_has_each_kind_of_fault_and_a_part_of_one_as_many_as_asked(
    required: tuple[faults.Fault, ...],
) -> None:
    kinds = set(required)
    whole = faults.schedule(kinds, 3, random.Random(1))
    assert set(whole) == kinds
    assert len(whole) == len(kinds)
    assert len(faults.schedule(kinds, 3, random.Random(1), partial=True)) == 3
    twice_each = faults.schedule(kinds, 2 * len(kinds), random.Random(1))
    assert all(twice_each.count(kind) == 2 for kind in kinds)


def test_a_run_may_have_some_kinds_only() -> None:
    plan = Plan("fsync", 1, 1, 1.0, 1.0, 1, in_cluster=True, only=("primary cut off",))
    assert [faults.name(kind) for kind in plan.required] == ["primary cut off"]
    assert Plan("fsync", 1, 1, 1.0, 1.0, 1).required == single_faults.REQUIRED["fsync"]
