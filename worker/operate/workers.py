"""The workers: those alive, with what they are at, and those that went without a word."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import structs

from shared.display import counted, roughly
from worker.at_work import AtWork, Doing

_LOST_SECONDS: Final = 3600.0
"""For how long operators are told of a worker that was lost."""


class WorkerOverview(msgspec.Struct, frozen=True):
    """One live worker, as it has described itself with its last sign of life.

    An older one says less of itself.

    Attributes:
        worker: its name, unique among those alive.
        host: where it runs.
        pid: its process.
        version: of this project.
        slots: how many events it handles at once.
        running: how many it held then; ``None`` where it doesn't say.
        handled: events that it has handled since it began.
        started: seconds since the epoch; ``None`` where it doesn't say.
        latency: what it has handled by the time from acceptance: upper bound in seconds, events.
        stuck: handlers that go on in it though their events are settled.
        silent_after: seconds until it counts as gone unless it gives another sign.
        loop_delay: for how many seconds its loop has stood still lately at the worst; ``None``
            where it doesn't say.
        doing: what takes long in it: what blocks it first, then what is stuck, the longest first.
        more_doing: how many others take long.
    """

    worker: str = "?"
    host: str = "?"
    pid: int | None = None
    version: str = "?"
    slots: int = 0
    running: int | None = None
    handled: int = 0
    started: float | None = None
    latency: dict[str, int] = {}
    silent_after: float = 0.0
    stuck: int = 0
    loop_delay: float | None = None
    doing: list[Doing] = []
    more_doing: int = 0


class LostWorker(msgspec.Struct, frozen=True):
    """A worker that went without a word: killed, cut off, or with its machine.

    Attributes:
        worker: its name.
        host: where it ran.
        pid: its process.
        version: of this project.
        slots: how many events it handled at once.
        running: how many it held when it was heard of last; ``None`` where it didn't say.
        at: when it counted as gone, seconds since the epoch.
        doing: what took long in it.
    """

    worker: str
    host: str
    pid: int | None
    version: str
    slots: int
    running: int | None
    at: float
    doing: list[Doing] = []

    @property
    def sentence(self) -> str:
        """That it is lost, and what it had."""
        had = ""
        if self.running == 1:
            had = "; its 1 event is another's once its lease is over"
        elif self.running != 0:
            number = "" if self.running is None else f"{self.running:,} "
            had = f"; its {number}events are others' once their leases are over"
        return f"worker {self.worker} on {self.host} went without a word{had}"


def alive(
    seen: Sequence[tuple[bytes, float]],
    told: Mapping[bytes, bytes],
    at_work: Mapping[bytes, bytes],
    now: float,
) -> list[WorkerOverview]:
    """Those whose last sign of life still counts.

    Args:
        seen: until when each counts, epoch milliseconds.
        told: what each says of itself, behind its slots.
        at_work: what takes long in each.
        now: seconds since the epoch.
    """
    found = []
    for name, until in sorted(seen):
        # Who was killed stands there still. They are read one after the other, so one may lack what
        # the others have.
        slots, _, text = told.get(name, b"").partition(b":")
        if until / 1000 < now or not slots.isdigit():
            continue
        worker, its = _text(name), what_runs_in(at_work.get(name, b""), name)
        found.append(
            structs.replace(
                _described(text),
                worker=worker,
                slots=int(slots),
                silent_after=until / 1000 - now,
                doing=its.doing,
                more_doing=its.more,
            )
        )
    return found


def lost(
    seen: Sequence[tuple[bytes, float]],
    told: Mapping[bytes, bytes],
    at_work: Mapping[bytes, bytes],
    noted: Mapping[bytes, bytes],
    now: float,
) -> list[LostWorker]:
    """Those that were lost within the last hour, the last first.

    Args:
        seen: until when each counts, epoch milliseconds; nobody notes who is lost where none lives.
        told: what each says of itself, behind its slots.
        at_work: what took long in each.
        noted: what ``renew.lua`` has noted of those that another worker has missed.
        now: seconds since the epoch.
    """
    found = [
        _lost(name, until, told.get(name, b""), at_work.get(name, b""))
        for name, until in seen
        if until / 1000 < now
    ]
    for name, raw in noted.items():
        try:
            until, text, doing = msgspec.msgpack.decode(raw, type=tuple[float, str, str])
        except (msgspec.MsgspecError, ValueError):  # a later version's, or somebody's hand's
            continue
        found.append(_lost(name, until, text.encode(), doing.encode()))
    recent = [each for each in found if each.at > now - _LOST_SECONDS]
    return sorted(recent, key=lambda each: -each.at)


def _lost(name: bytes, until: float, told: bytes, at_work: bytes) -> LostWorker:
    slots, _, text = told.partition(b":")
    its = _described(text)
    return LostWorker(
        worker=_text(name),
        host=its.host,
        pid=its.pid,
        version=its.version,
        slots=int(slots) if slots.isdigit() else 0,
        running=its.running,
        at=until / 1000,
        doing=what_runs_in(at_work, name).doing,
    )


def _described(text: bytes) -> WorkerOverview:
    try:
        return msgspec.json.decode(text, type=WorkerOverview)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return WorkerOverview()


def what_runs_in(text: bytes, worker: bytes) -> AtWork:
    """What a worker of this name has said that takes long in it."""
    try:
        its = msgspec.json.decode(text, type=AtWork) if text else AtWork()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return AtWork()
    # By how much its clock is behind ours; less than the way there takes is nothing.
    behind = its.seen - its.at if its.seen and abs(its.seen - its.at) >= 1 else 0.0
    doing = [
        structs.replace(each, worker=_text(worker), since=each.since + behind) for each in its.doing
    ]
    return structs.replace(its, doing=doing)


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


# What several partitions say, as one


def together(told: Iterable[WorkerOverview]) -> list[WorkerOverview]:
    """Each once, by its name, as it was when it had handled most: it tells every partition.

    What takes long in it is said in the partition of the event; what blocks it, in each.
    """
    last: dict[str, WorkerOverview] = {}
    doing: dict[str, dict[str, Doing]] = {}
    more: dict[str, int] = {}
    for each in told:
        before = last.get(each.worker, each)
        # Of two signs of life that say the same, the one that counts for longer is the later.
        last[each.worker] = max(before, each, key=lambda one: (one.handled, one.silent_after))
        doing.setdefault(each.worker, {}).update({its.job: its for its in each.doing})
        more[each.worker] = more.get(each.worker, 0) + each.more_doing
    return [
        structs.replace(
            last[name], doing=sorted(doing[name].values(), key=_worst), more_doing=more[name]
        )
        for name in sorted(last)
    ]


def lost_of_all(told: Iterable[LostWorker], workers: Iterable[WorkerOverview]) -> list[LostWorker]:
    """Each once; none that lives: a partition that it doesn't reach takes it for lost."""
    living = {each.worker for each in workers}
    found: dict[str, LostWorker] = {}
    for each in told:
        if each.worker in living:  # cut off from that partition alone
            continue
        before = found.get(each.worker, each)
        doing = {its.job: its for its in (*before.doing, *each.doing)}
        latest = max(before, each, key=lambda one: one.at)
        found[each.worker] = structs.replace(latest, doing=[*doing.values()])
    return sorted(found.values(), key=lambda each: -each.at)


# What runs now, as people read it

_WORST: Final = {"blocking": 0, "stuck": 1}


def running(workers: Iterable[WorkerOverview]) -> list[Doing]:
    """What takes long in any: what blocks a worker first, then what is stuck, the longest first."""
    return sorted((each for worker in workers for each in worker.doing), key=_worst)


def slots_told(workers: Sequence[WorkerOverview], leased: int) -> str:
    """How many of their slots are taken, by so many events."""
    if not workers:
        events = counted(leased, "event of a lost one waits", "of lost ones wait")
        return f"no worker is alive{', ' * bool(leased)}{events * bool(leased)}"
    return f"{leased:,} of {sum(each.slots for each in workers):,} slots busy"


def summary(workers: Sequence[WorkerOverview], leased: int) -> str:
    """How many handlers run in all, of which those that take long are told.

    Args:
        workers: those alive.
        leased: how many events they hold.
    """
    busy = slots_told(workers, leased)
    if not workers:
        return busy
    are_stuck = [sum(its.state == "stuck" for its in each.doing) for each in workers]
    long = sum(len(each.doing) + each.more_doing for each in workers) - sum(are_stuck)
    # Some of them may be among those that are only counted.
    stuck = sum(max(each.stuck, told) for each, told in zip(workers, are_stuck, strict=True))
    goes_on = f", {stuck:,} stuck and no longer waited for" if stuck else ""
    return f"{busy}, {long:,} for longer than a second{goes_on}"


def _worst(doing: Doing) -> tuple[Any, ...]:
    return _WORST.get(doing.state, 2), doing.since, doing.job


def troubles(workers: Iterable[WorkerOverview]) -> Iterator[Doing]:
    """What blocks a worker, or is stuck in one."""
    return (each for each in running(workers) if each.state in _WORST)


def sentence(doing: Doing, now: float) -> str:
    """What blocks a worker, or is stuck in it: which handler, with which event, for how long."""
    seconds = roughly(max(0.0, now - doing.since))
    whose = ", ".join(filter(None, (doing.event_id or doing.job, doing.type)))
    event = f"with {whose} of {doing.organization or 'nobody'}"
    if doing.state == "stuck":
        where = f"in {doing.worker} for {seconds}"
        return f"handler {doing.handler} goes on {where} though it was cancelled, {event}"
    if not doing.job:
        return (
            f"worker {doing.worker} has stood still for {seconds}; whose doing it is nobody knows"
        )
    handler = doing.handler or "an event that is decoded"
    return f"worker {doing.worker} has stood still for {seconds}: {handler} keeps its loop, {event}"
