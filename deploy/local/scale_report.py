"""What the scale demo tells: its rule, how far it is, its decisions, its account, its plot."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from deploy.local.account import Name, listed, under
from deploy.local.autoscaling import Rule
from deploy.local.display import indented, now_and_then, right, table, unbalanced
from deploy.local.regulation import TIMES, Course, Decision, Show
from deploy.local.system import System
from deploy.sellfern import Sellfern
from shared.svg import WIDTH, document, element, path, text

_LINE_SECONDS: Final = 2.0
_WORKER: Final = "▪"
# A look every quarter of a second sees few events: a rate from one to the next would be a saw.
_SMOOTHED: Final = 4

_COLOURS: Final = ("s0", "s2", "s1", "s3")
_LEFT: Final = 64
_RIGHT: Final = 24
_TOP: Final = 44
_PANEL: Final = 110
"""The height in which a curve is drawn; its title stands above."""
_TITLE: Final = 30
_BOTTOM: Final = 34
_MOST_TICKS: Final = 10
_PRECISE_BELOW: Final = 10
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)


def opening(
    rule: Rule, peak: float, seconds: float, speed: float, slots: int
) -> Iterator[RenderableType]:
    """What is going to happen, and by which rule."""
    yield Text(
        f"{peak / TIMES:g} events/s, up to {peak:g}, and back, in {seconds:g} s", style="bold"
    )
    yield indented(
        f"The rule is the ScaledObject's, {speed:.3g} times as fast, for workers of {slots} slots: "
        f"one for each {rule.depth:g} events that are due, more when one has waited for "
        f"{rule.oldest:.2g} s, {rule.fewest} to {rule.most} workers, fewer only after "
        f"{rule.down.window:.2g} s."
    )
    yield ""


def decisions(course: Course) -> RenderableType:
    """Each reading and what was done."""
    names = ("time", "events/s", "due", "longest", "asked for", "workers")
    rows = table(*map(right, names), "")
    for each in course.decisions:
        rows.add_row(
            f"{each.at:.0f} s",
            f"{each.rate:.0f}",
            f"{each.reading.due or 0:,.0f}",
            f"{each.reading.seconds or 0:.1f} s",
            str(each.wanted),
            str(each.after),
            _change(each),
        )
    return rows


def _change(decision: Decision) -> Text:
    by = decision.after - decision.before
    return Text(f"{by:+}", style="green" if by > 0 else "yellow") if by else Text()


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Show the course while a block runs: a live line on a terminal, plain ones elsewhere."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            # One line that replaces itself; what is longer than the terminal would break and stay.
            yield lambda course: live.update(
                Text(f"  {_line(course)}", no_wrap=True, overflow="ellipsis"), refresh=True
            )
    else:
        with now_and_then(console, _LINE_SECONDS) as tell:
            yield lambda course: tell(_line(course))


def _line(course: Course) -> str:
    """Where it is."""
    now = course.samples[-1]
    reading = course.decisions[-1].reading if course.decisions else None
    waits = f"{reading.due or 0:,.0f} due, for {reading.seconds or 0:.1f} s" if reading else ""
    return (
        f"{now.at:3.0f} s, {now.rate:4.0f} events/s, {waits}, "
        f"{now.workers:2} workers {_WORKER * now.workers}"
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known in the end.

    Attributes:
        sent: Sellfern's: the events that happened.
        accepted: Sellfern's: those of them that were answered with a 2xx.
        applied: the state: how often each event was applied.
        counters: Redis's: what the transitions counted.
        waiting: Redis's: accepted events that are not finished.
    """

    sent: int
    accepted: frozenset[Name]
    applied: Mapping[Name, int]
    counters: Mapping[str, int]
    waiting: int


def evidence(sellfern: Sellfern, system: System, organizations: Sequence[str]) -> Evidence:
    """Ask Sellfern and the worker's commands.

    Raises:
        ProgramError: a command failed.
    """
    questions = [("state", organization) for organization in organizations]
    (status,), *states = system.ask_worker(("status",), *questions)
    accepted = frozenset(
        (each.event.organization, each.event.id)
        for each in sellfern.deliveries
        if each.status == "delivered"
    )
    return Evidence(
        sent=sellfern.events,
        accepted=accepted,
        applied=under("applied/", dict(zip(organizations, states, strict=True))),
        counters=status["counters"],
        waiting=status["waiting"],
    )


def complaints(evidence: Evidence) -> Iterator[str]:
    """What is not as it has to be: each accepted event handled once, and no other."""
    if evidence.sent != len(evidence.accepted):
        yield f"{evidence.sent - len(evidence.accepted):,} of {evidence.sent:,} weren't accepted"
    handled = evidence.counters.get("handled", 0)
    if handled != len(evidence.accepted):
        yield f"accepted {len(evidence.accepted):,}, but handled {handled:,}"
    if evidence.waiting:
        yield f"{evidence.waiting:,} wait still"
    if missing := sorted(evidence.accepted - evidence.applied.keys()):
        yield f"accepted, but never applied: {listed(missing)}"
    if surplus := sorted(evidence.applied.keys() - evidence.accepted):
        yield f"applied, but never accepted: {listed(surplus)}"
    times = Counter(times for times in evidence.applied.values() if times != 1)
    for number, events in sorted(times.items()):
        yield f"{events:,} applied {number} times"


def verdict(evidence: Evidence, wrong: Sequence[str], course: Course) -> Iterator[RenderableType]:
    """Whether everything that was accepted was handled, and if not, what wasn't."""
    if wrong:
        yield from unbalanced(wrong)
        return
    accepted, handled = len(evidence.accepted), evidence.counters.get("handled", 0)
    yield Text.assemble(
        ("✓ ", "green"), (f"{accepted:,} accepted = {handled:,} handled, each once", "bold")
    )
    changes = [each.after - each.before for each in course.decisions]
    begun, dismissed = (sum(max(0, sign * by) for by in changes) for sign in (1, -1))
    given_back = evidence.counters.get("released", 0)
    yield indented(
        f"{begun} workers were begun and {dismissed} dismissed; those gave back {given_back:,} "
        "events that they had not ended."
    )


def plot(course: Course, rule: Rule) -> str:
    """The course as SVG."""
    read = course.decisions
    return draw(
        "Workers follow the load",
        [
            Curve("load, events/s", _rates(course)),
            Curve("workers", [(each.at, each.workers) for each in course.samples], is_stepped=True),
            Curve(
                "longest wait for a worker, s",
                [(each.at, each.reading.seconds or 0) for each in read],
                limit=(rule.oldest, "more workers above"),
            ),
            Curve("events that are due", [(each.at, each.reading.due or 0) for each in read]),
        ],
    )


def _rates(course: Course) -> list[tuple[float, float]]:
    """Events a second as they happened, over a second or so."""
    spaced = course.samples[::_SMOOTHED]
    return [
        (after.at, (after.events - before.events) / (after.at - before.at))
        for before, after in pairwise(spaced)
    ]


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time, in a panel of their own.

    Attributes:
        title: what is shown, with its unit.
        points: seconds and value, by time.
        is_stepped: whether a value holds until the next one.
        limit: a value worth a line of its own, if there is one, and what it is.
    """

    title: str
    points: Sequence[tuple[float, float]]
    is_stepped: bool = False
    limit: tuple[float, str] | None = None

    @property
    def top(self) -> float:
        """The largest value that has to fit."""
        # The limit may lie above all of them, and has to be seen.
        largest = max((value for _, value in self.points), default=0.0)
        return max(largest, self.limit[0] if self.limit else 0.0) or 1.0


def draw(title: str, curves: Sequence[Curve]) -> str:
    """The curves, one below the other over the same seconds, as an SVG document."""
    end = max((at for curve in curves for at, _ in curve.points), default=0.0) or 1.0
    floor = _TOP + len(curves) * (_PANEL + _TITLE)
    panels = [
        part
        for index, curve in enumerate(curves)
        for part in _panel(curve, index, end, _TOP + index * (_PANEL + _TITLE))
    ]
    return document(title, floor + _BOTTOM, *panels, *_seconds(end, floor))


def _panel(curve: Curve, index: int, end: float, top: float) -> Iterator[str]:
    floor = top + _TITLE + _PANEL
    scale = (_PANEL - 6) / curve.top
    colour = _COLOURS[index % len(_COLOURS)]
    yield text(_LEFT, top + 20, curve.title)
    for value, name in ((0.0, "0"), (curve.top, _number(curve.top))):
        yield _level(floor - value * scale, "axis")
        yield text(_LEFT - 8, floor - value * scale + 4, name, "quiet", "end")
    if curve.limit is not None:
        value, name = curve.limit
        yield _level(floor - value * scale, f"limit {colour}")
        yield text(WIDTH - _RIGHT, floor - value * scale - 5, name, "quiet", "end")
    points = _stepped(curve.points, end) if curve.is_stepped else curve.points
    drawn = path((_x(at, end), floor - value * scale) for at, value in points)
    yield element("path", f"line {colour}", d=drawn)


def _stepped(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """The corners of the steps, up to the end."""
    corners: list[tuple[float, float]] = []
    for at, value in points:
        # The value before holds until now: a second corner at the same moment.
        if corners:
            corners.append((at, corners[-1][1]))
        corners.append((at, value))
    return [*corners, (end, corners[-1][1])] if corners else []


def _seconds(end: float, y: float) -> Iterator[str]:
    """The times below the last panel."""
    # More would run into each other.
    step = next((each for each in _STEPS if end / each <= _MOST_TICKS), _STEPS[-1])
    for tick in range(0, int(end) + 1, step):
        yield text(_x(tick, end), y + 20, f"{tick} s", "quiet", "middle")


def _x(at: float, end: float) -> float:
    return _LEFT + at / end * (WIDTH - _LEFT - _RIGHT)


def _level(y: float, kind: str) -> str:
    return element("line", kind, x1=_LEFT, y1=y, x2=WIDTH - _RIGHT, y2=y)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= _PRECISE_BELOW or value == int(value) else f"{value:.1f}"
