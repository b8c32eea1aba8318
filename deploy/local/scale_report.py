"""What the scale demo shows: its rule, its decisions, its verdict, and the plot."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deploy.local.autoscaling import Rule
from deploy.local.plot import Curve, draw
from deploy.local.ramp import TIMES
from deploy.local.regulation import Course, Decision
from deploy.local.scale_account import Evidence
from shared.display import escape_controls

_SMOOTHED: Final = 4  # samples


def opening(
    rule: Rule, peak: float, seconds: float, speed: float, slots: int
) -> Iterator[RenderableType]:
    """What is going to happen, and by which rule."""
    yield Text(
        f"{peak / TIMES:g} events/s, up to {peak:g}, and back, in {seconds:g} s", style="bold"
    )
    yield _indented(
        f"The rule is the ScaledObject's, {speed:.3g} times as fast, for workers of {slots} slots: "
        f"one for each {rule.depth:g} events in line, more when the oldest has waited for "
        f"{rule.oldest:.2g} s, {rule.fewest} to {rule.most} workers, fewer only after "
        f"{rule.down.window:.2g} s."
    )
    yield ""


def decisions(course: Course) -> RenderableType:
    """Each reading and what was done."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="")
    for name in ("time", "events/s", "in line", "oldest", "asked for", "workers"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in course.decisions:
        table.add_row(
            f"{each.at:.0f} s",
            f"{each.rate:.0f}",
            f"{each.reading.queued:,.0f}",
            f"{each.reading.oldest_seconds:.1f} s",
            str(each.wanted),
            str(each.after),
            _change(each),
        )
    return table


def _change(decision: Decision) -> Text:
    by = decision.after - decision.before
    return Text(f"{by:+}", style="green" if by > 0 else "yellow") if by else Text()


def verdict(evidence: Evidence, wrong: Sequence[str], course: Course) -> Iterator[RenderableType]:
    """Whether everything that was accepted was handled, and if not, what wasn't."""
    accepted, handled = len(evidence.accepted), evidence.counters.get("handled", 0)
    if wrong:
        yield Text("✗ The account doesn't balance:", style="bold red")
        for each in wrong:
            yield _indented(f"- {escape_controls(each)}")
        return
    yield Text.assemble(
        ("✓ ", "green"), (f"{accepted:,} accepted = {handled:,} handled, each once", "bold")
    )
    changes = [each.after - each.before for each in course.decisions]
    begun, dismissed = (sum(max(0, sign * by) for by in changes) for sign in (1, -1))
    given_back = evidence.counters.get("released", 0)
    yield _indented(
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
                "oldest event's age, s",
                [(each.at, each.reading.oldest_seconds) for each in read],
                limit=(rule.oldest, "more workers above"),
            ),
            Curve("events in line", [(each.at, each.reading.queued) for each in read]),
        ],
    )


def _rates(course: Course) -> list[tuple[float, float]]:
    """Events a second as they happened, over a second or so."""
    spaced = course.samples[::_SMOOTHED]
    return [
        (after.at, (after.events - before.events) / (after.at - before.at))
        for before, after in pairwise(spaced)
    ]


def _indented(text: str) -> RenderableType:
    return Padding(Text(text), (0, 0, 0, 2), expand=False)
