"""Does a misdeed beside fifty events of another organization, and holds what becomes of them."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from shared.queue import keys
from tests.acceptance.hostile.crew import PATIENCE, SLOTS, Crew
from tests.acceptance.hostile.notes import notes
from tests.acceptance.hostile.row import ANY_NUMBER, Ending, Row
from tests.acceptance.process import Program, get, run
from tests.integration.jobs import counters, mark_of, nothing_is_left, record_of
from tests.integration.workplace import Workplace, body

CULPRIT: Final = "org_a"
NEIGHBOUR: Final = "org_b"
_BESIDE: Final = 34
_AFTERWARDS: Final = 16
"""Fifty in all; those who meet are among the latter."""

_LONGEST_ERROR: Final = 2100
_STUCK_NOW: Final = "sellfern_stuck_handlers"
_UNCOUNTED: Final = ("released", "conflicting")
_OUTCOMES: Final = frozenset(
    f"event_{name}"
    for name in (
        "handled",
        "retried",
        "dead",
        "duplicate",
        "held",
        "released",
        "abandoned",
        "waiting",
        "lost",
        "left_to_its_lease",
    )
)
"""The lines that tell of an attempt's end; others may tell more of it."""

_SOON: Final = 10.0
_NEVER_SAID: Final = ("event_left_to_its_lease", "redis_lost", "redis_timeout", "log_line_failed")
_numbers = count(int(time.time()))


@dataclass(frozen=True, slots=True)
class Before:
    """How everything stood before a misdeed."""

    worker: Program
    codes: int
    lines: int
    counted: Mapping[str, int]
    metrics: Mapping[str, float]


class Case:
    """One misdeed, once.

    Args:
        crew: that has to bear it.
        row: what it is.
    """

    def __init__(self, crew: Crew, row: Row) -> None:
        self.crew = crew
        self.row = row
        self.redis = crew.redis
        self.event_id = f"evt_{row.name}_{next(_numbers)}"
        self.neighbours: list[str] = []
        self.others: list[str] = []
        self.job = ""

    async def hold(self, meanwhile: Callable[["Case"], Awaitable[None]] | None = None) -> None:
        """Do it, and hold all that must hold.

        Args:
            meanwhile: done once the handler has begun.
        """
        before = await self._look()
        await self._accept_beside()
        if meanwhile is not None:
            await self._begun()
            await meanwhile(self)
        await self._told()
        await self._all_handled()
        await self._accept_afterwards()
        await self._all_handled()
        await self._until(self._is_noted, f"it has not noted {self.row.notes}")
        await self._hold_outcome(before)
        await self._hold_neighbours()
        await self._logged(before)
        self._hold_log(before)
        await self._hold_codes(before)

    # What happens

    async def _look(self) -> Before:
        worker = await self.crew.at_work()
        return Before(
            worker,
            len(self.crew.codes),
            len(self.crew.lines),
            await counters(self.redis),
            await metrics(worker),
        )

    async def _accept_beside(self) -> None:
        await self._accept_neighbours(_BESIDE // 2)
        signed = body(self.event_id, CULPRIT, data={"do": self.row.name})
        (self.job,) = await Workplace(self.redis).accept(signed, organization=CULPRIT)
        await self._accept_neighbours(_BESIDE - _BESIDE // 2)

    async def _accept_afterwards(self) -> None:
        """As many as there are slots have to be in their handlers at the same time."""
        party = SLOTS - self.row.stuck
        await self._accept_neighbours(_AFTERWARDS - party)
        await self._accept_neighbours(party, do="meet", party=party)
        if self.row.then:
            self.others = [f"evt_then_{next(_numbers)}"]
            signed = body(self.others[0], CULPRIT, data={"do": self.row.then})
            await Workplace(self.redis).accept(signed, organization=CULPRIT)

    async def _accept_neighbours(self, number: int, **data: Any) -> None:
        turn = next(_numbers)
        names = [f"evt_{turn}_{n}" for n in range(number)]
        signed = [body(name, NEIGHBOUR, data=data) for name in names]
        await Workplace(self.redis).accept(*signed, organization=NEIGHBOUR)
        self.neighbours += names

    async def _begun(self) -> None:
        await self._until(self._has_begun, "its handler has not begun")

    async def _has_begun(self) -> bool:
        return bool(self.starts(self.event_id))

    async def _told(self) -> None:
        await self._until(self._has_ended, "it has not ended so")

    async def _has_ended(self) -> bool:
        said = self.said()
        ends = self.row.ends
        if not self.row.mute and not any(end.fits(said) for end in ends):
            raise AssertionError(self._story("it ended otherwise"))
        settled = await self._settled_as()
        told = self.row.mute or any(end.is_told_by(said) for end in ends)
        return told and any(self._is_settled(end, settled) for end in ends)

    def _is_settled(self, end: Ending, settled: str) -> bool:
        if not end.finished:
            return settled == "later"
        return settled == ("done" if end.reason is None else f"dead {end.reason}")

    async def _settled_as(self) -> str:
        """``done``, ``dead`` with its reason, ``later``, or nothing yet."""
        mark = await mark_of(self.redis, self.event_id, CULPRIT) or ""
        if mark.startswith("done:"):
            return "done"
        record = await record_of(self.redis, self.job)
        if record:
            return f"dead {record['reason']}"
        due = await self.redis.zscore(keys.QUEUE, self.job)
        return "later" if due is not None and due / 1000 > time.time() + _SOON else ""

    async def _is_noted(self) -> bool:
        return all(self.noted(what, self.event_id) for what in self.row.notes)

    async def _all_handled(self) -> None:
        await self._until(self._are_handled, "the neighbours' events have not all been handled")

    async def _are_handled(self) -> bool:
        return not await self._unhandled()

    async def _unhandled(self) -> list[str]:
        names = [
            *((NEIGHBOUR, name) for name in self.neighbours),
            *((CULPRIT, name) for name in self.others),
        ]
        marks = await self.redis.mget([keys.event(*name) for name in names])
        pairs = zip(names, marks, strict=True)
        return [name for (_, name), mark in pairs if not (mark or b"").startswith(b"done:")]

    async def _until(self, fact: Callable[[], Awaitable[bool]], problem: str) -> None:
        patience = self.row.patience * PATIENCE
        try:
            async with asyncio.timeout(patience):
                while not await fact():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            missing = await self._unhandled()
            raise AssertionError(
                self._story(f"{problem} after {patience:g} s; {len(missing)} neighbours wait")
            ) from None

    # What must hold

    async def _hold_outcome(self, before: Before) -> None:
        """One counted outcome an attempt, with a true reason."""
        said = self.said()
        fitting = [end for end in self.row.ends if self.row.mute or end.is_told_by(said)]
        settled = await self._settled_as()
        fitting = [end for end in fitting if self._is_settled(end, settled)]
        assert fitting, self._story("it ended otherwise")
        starts = len(self.starts(self.event_id))
        wanted = {len(end.lines) if end.starts is None else end.starts for end in fitting}
        assert starts in wanted or ANY_NUMBER in wanted, self._story(
            f"expected {wanted} starts, got {starts}"
        )
        end = fitting[0]
        await self._hold_record(end)
        await self._hold_counters(before, end)
        await self._hold_metrics(before, end)
        await self._hold_state(end)

    async def _hold_record(self, end: Ending) -> None:
        record = await record_of(self.redis, self.job)
        if end.reason is None:
            assert record == {}, self._story(f"it has a dead letter: {record}")
            return
        assert record["reason"] == end.reason, self._story(f"dead letter: {record}")
        assert record["attempts"] == str(end.attempts), self._story(f"dead letter: {record}")
        assert len(record["error"]) <= _LONGEST_ERROR, self._story("its error is too long")
        assert end.fits([*self.said()[:-1], f"event_dead {end.reason} {record['error']}"])

    async def _hold_counters(self, before: Before, end: Ending) -> None:
        """What the scripts have counted, over all processes."""
        counted = Counter(await counters(self.redis))
        counted.subtract(before.counted)
        handled = len(self.neighbours) + len(self.others) + end.is_handled
        retried = sum("event_retried" in line for line in end.lines)
        dead = {"dead": 1, f"dead:{end.reason}": 1} if end.reason else {}
        wanted = {"handled": handled, "retried": retried, **dead}
        got = {
            name: number
            for name, number in counted.items()
            if number and (name in wanted or name.startswith(("dead", "duplicate", "held")))
        }
        assert got == {name: n for name, n in wanted.items() if n}, self._story(f"counted {got}")
        if not self.row.twice and not self.row.leaves:
            assert not counted["lease_expired"], self._story("leases have expired")

    async def _hold_metrics(self, before: Before, end: Ending) -> None:
        """What the worker has counted, where it is the one that bore it all, and each once."""
        if self.crew.workers[-1] is not before.worker or self.row.twice:
            return
        wanted = len(self.neighbours) + len(self.others) + len(end.lines)
        after: dict[str, float] = {}
        rise: dict[str, float] = {}

        async def all_counted() -> bool:
            """The worker counts once it has read what Redis did, and a stuck handler may end."""
            after.clear()
            after.update(await metrics(before.worker))
            rise.update({name: n - before.metrics.get(name, 0) for name, n in after.items()})
            return _outcomes(rise) >= wanted and after[_STUCK_NOW] <= self.row.stuck

        await self._until(all_counted, f"expected {wanted} outcomes to be counted")
        got = _outcomes(rise)
        assert got == wanted, self._story(f"expected {wanted} outcomes, got {got}")
        if "handler_stuck" in self.row.logs:
            stuck = sum(n for name, n in rise.items() if "handlers_stuck_total" in name)
            assert stuck == len(end.lines), self._story(f"{stuck} stuck handlers counted")
            now = after[_STUCK_NOW]
            assert now == self.row.stuck, self._story(f"{now} handlers are stuck")
        if "loop_blocked" in self.row.logs:
            blocked = sum(n for name, n in rise.items() if "loop_blocked_seconds" in name)
            assert blocked > 0, self._story("no blocked seconds counted")

    async def _hold_state(self, end: Ending) -> None:
        """What it did to the state came with the mark, all of it, or not at all."""
        applied = await self._applied(CULPRIT, self.event_id)
        assert applied == int(end.is_handled), self._story(f"applied {applied} times")
        if not self.row.values or not end.is_handled:
            return
        shown = await run("worker", "state", CULPRIT, environ=self.crew.environ)
        stored = {line["key"]: line["value"] for line in shown.json}
        for key, value in self.row.values.items():
            assert stored.get(key) == value, self._story(f"{key}: {stored.get(key)!r}")

    async def _hold_neighbours(self) -> None:
        """The other organization's events were handled, exactly once, and nothing is left."""
        started = Counter(line["id"] for line in self.noted("start"))
        for name in self.neighbours:
            assert await self._applied(NEIGHBOUR, name) == 1, self._story(f"{name} isn't applied")
        again = {name: started[name] for name in self.neighbours if started[name] != 1}
        assert self.row.twice or not again, self._story(f"run again: {again}")
        if all(end.finished for end in self.row.ends):
            await self._until(self._nothing_is_left, "something is left in Redis")
        leaks = self.noted("leak")
        assert not leaks, self._story(f"events saw another's context: {leaks[:3]}")

    async def _nothing_is_left(self) -> bool:
        return await nothing_is_left(self.redis)

    async def _logged(self, before: Before) -> None:
        """What a handler has left may be heard of only after all events have ended."""

        async def all_said() -> bool:
            return wanted <= {line["event"] for line in self.crew.lines[before.lines :]}

        wanted = set() if self.row.mute else set(self.row.logs)
        await self._until(all_said, f"not all was logged of {sorted(wanted)}")

    def _hold_log(self, before: Before) -> None:
        lines = self.crew.lines[before.lines :]
        said = Counter(line["event"] for line in lines)
        if not self.row.mute:
            for name in self.row.logs:
                assert said[name], self._story(f"{name} was not logged: {said}")
        for line in lines:
            if line["event"] in {"loop_blocked", "handler_stuck"}:
                assert line.get("stack"), self._story(f"without its stack: {line}")
        told = {name: said[name] for name in _NEVER_SAID if said[name]}
        assert not told, self._story(f"said: {told}")

    async def _hold_codes(self, before: Before) -> None:
        """Only who may end has ended, and nobody runs a worker's work beside the workers."""

        async def one_has_ended() -> bool:
            return len(self.crew.codes) > before.codes

        allowed = {*self.row.leaves, *(self.row.drained if self.row.is_told_to_stop else ())}
        if self.row.leaves and not self.row.may_stay:
            await self._until(one_has_ended, "no worker has ended")
        codes = self.crew.codes[before.codes :]
        assert set(codes) <= allowed, self._story(f"workers ended with {codes}")
        processes = {worker.process.pid for worker in self.crew.workers}
        strangers = {line["pid"] for line in self.noted("start")} - processes
        assert not strangers, self._story(f"handlers ran in other processes: {strangers}")

    # Witnesses

    def starts(self, event_id: str) -> list[dict[str, Any]]:
        """The starts of its handler, in any process."""
        return self.noted("start", event_id)

    def noted(self, what: str, event_id: str | None = None) -> list[dict[str, Any]]:
        """What handlers have written down of this case's events."""
        mine = {self.event_id, *self.neighbours, *self.others} if event_id is None else {event_id}
        found = notes(self.crew.folder)
        return [line for line in found if line["what"] == what and line["id"] in mine]

    def said(self) -> list[str]:
        """The lines of the event: ``event reason error``."""
        return [
            " ".join((line["event"], *(line[x] for x in ("reason", "error") if x in line)))
            for line in self.crew.lines
            if line["event"] in _OUTCOMES
            and (line.get("event_id") == self.event_id or line.get("job") == self.job)
        ]

    async def _applied(self, organization: str, event_id: str) -> int:
        return int(await self.redis.get(keys.state(organization, f"applied/{event_id}")) or 0)

    def _story(self, problem: str) -> str:
        """What is wrong, and what is known."""
        wanted = " or ".join(" then ".join(end.lines) for end in self.row.ends)
        return (
            f"{self.row.name}: {problem}\n"
            f"expected: {wanted}\n"
            f"said: {json.dumps([text[:300] for text in self.said()], indent=1)}\n"
            f"starts: {len(self.starts(self.event_id))}, exit codes: {self.crew.codes}\n"
            f"log: {self.crew.tail()}"
        )


async def metrics(worker: Program) -> dict[str, float]:
    """What a worker has counted, by name and labels."""
    (line,) = worker.events("admin_listening")[:1]
    try:
        async with asyncio.timeout(10):
            reply = await get(line["port"], "/metrics")
    except TimeoutError:
        raise AssertionError(f"/metrics doesn't answer: {worker.text[-3000:]}") from None
    samples = [
        text.rpartition(" ")
        for text in reply.body.decode().splitlines()
        if not text.startswith("#")
    ]
    return {name: float(number) for name, _, number in samples}


def _outcomes(rise: Mapping[str, float]) -> float:
    """How many ends of attempts a worker has counted."""
    return sum(
        number
        for name, number in rise.items()
        if name.startswith("sellfern_events_total")
        and not any(f'"{uncounted}"' in name for uncounted in _UNCOUNTED)
    )
