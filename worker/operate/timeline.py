"""The story of one event, in order: what happened to it, and what it waits for now."""

import textwrap
from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, Final, Literal

import msgspec
from msgspec import structs

from shared.display import counted, duration, escape_controls, moment
from shared.queue.told import MOST_ATTEMPTS
from worker.operate.lookup import FoundEvent, Mark
from worker.operate.past import Happening, Past
from worker.operate.whereabouts import Place

_MOST_COLUMNS: Final = 10_000  # of what is no terminal
_FEWEST_COLUMNS: Final = 20
"""Of a text on a terminal, however narrow that is."""

Level = Literal["", "good", "info", "warn", "bad"]


class Moment(msgspec.Struct, frozen=True):
    """One thing that happened, or goes on.

    Attributes:
        at: when it began, seconds since the epoch; ``None`` where it is now, or nobody knows.
        happened: what, a word that stays.
        text: the same, for people.
        level: how good that is.
        said: the error, or the reason.
        by: handler and worker, or who it was, as far as that is known.
        seconds: that a handler took; ``None`` where none was at work, or nobody knows.
        attempt: which one, from 1; ``None`` where it is none.
    """

    at: float | None
    happened: str
    text: str
    level: Level = ""
    said: str = ""
    by: str = ""
    seconds: float | None = None
    attempt: int | None = None

    @property
    def is_now(self) -> bool:
        """Whether it goes on, rather than happened when nobody knows."""
        return self.happened in {"running", "waits", "goes_on"}

    def lines(self) -> list[str]:
        """What there is to say of it, for people."""
        said = self.said if self.said not in self.text else ""
        by = self.by if self.by not in self.text else ""
        return [self.text, *([said] if said else []), *([f"by {by}"] if by else [])]

    def row(self) -> dict[str, Any]:
        """The same by names that stay; what isn't known is null."""
        return {
            "at": moment(self.at),
            "happened": self.happened,
            "attempt": self.attempt,
            "seconds": self.seconds,
            "by": self.by or None,
            "said": self.said or None,
            "text": self.text,
        }


def timeline(event: FoundEvent) -> list[Moment]:
    """What is known of it, the first first; what isn't known isn't said."""
    done = list(_done(event))
    if done and event.payload is None:
        return [*done, *_now(event)]
    through = f" through endpoint {event.endpoint}" if event.endpoint else ""
    story = _story(event.past, _accepted_at(event), through, again=bool(done))
    return [*done, *story, *_dead(event), *_now(event)]


def _story(
    past: Past, accepted_at: float | None, how: str, *, again: bool = False
) -> Iterator[Moment]:
    """What has happened, with the acceptance in its place: a redelivery's is no more the first.

    Args:
        past: what is known of it.
        accepted_at: seconds since the epoch; ``None`` where that isn't known.
        how: it was accepted, behind that.
        again: whether it has come to an end before all that.
    """
    before, since = past.lives
    yield from map(_happened, before)
    if accepted_at:
        text = f"accepted{' again' * (again or bool(before))}{how}"
        yield Moment(accepted_at, "accepted", text)
    yield from map(_happened, since)


def written(moments: Iterable[Moment], width: int) -> Iterator[str]:
    """The same as lines of text, none wider than so many columns: each with what it says below."""
    day = ""
    for each in moments:
        date, _, clock = (moment(each.at) or "").partition("T")
        if date and date != day:
            yield f"  {date} UTC"
            day = date
        when = clock.removesuffix("+00:00") or ("now" if each.is_now else "")
        for number, text in enumerate(each.lines()):
            label = f"  {'' if number else when:>12}  {'  ' * bool(number)}"
            room = max(_FEWEST_COLUMNS, width - len(label))
            rows = textwrap.wrap(escape_controls(text), min(room, _MOST_COLUMNS)) or [""]
            yield from (
                label + row if not i else " " * len(label) + row for i, row in enumerate(rows)
            )


def _accepted_at(event: FoundEvent) -> float | None:
    letter = event.letter
    if letter is not None and not letter.by_hand:  # a redelivery of it is told behind its death
        return letter.received_at / 1000
    return event.received_at


_TEXTS: dict[str, tuple[str, Level]] = {
    "f": ("failed", "bad"),
    "a": ("asked for another", "warn"),
    "b": ("failed, and blocked its worker's loop", "bad"),
    "x": ("rejected the event", "bad"),
}


def _happened(each: Happening) -> Moment:
    """One of its past."""
    if each.kind in _TEXTS:
        return _attempt(each)
    texts: dict[str, tuple[str, Level]] = {
        "l": (f"attempt {each.number} was lost: its worker was not heard of any more", "bad"),
        "d": (f"became a dead letter{_after(each.number)}: {each.said}", "bad"),
        "r": (f"replayed{' by ' * bool(each.worker)}{each.worker}", "info"),
        "s": ("redelivered, which gave it another life", "info"),
        "e": (f"delivered again{_times(each)}", ""),
        "c": (f"other bytes under its id came{_times(each)}, and were left alone", "warn"),
    }
    text, level = texts.get(each.kind, ("something that this version doesn't know", ""))
    is_lost = each.kind == "l"
    attempt = each.number if is_lost else None
    said = each.said if each.kind == "d" else ""
    return Moment(each.at, each.outcome, text, level, said, each.worker, attempt=attempt)


def _attempt(each: Happening) -> Moment:
    what, level = _TEXTS[each.kind]
    text = f"attempt {each.number} {what}{_took(each.seconds) if each.handler else ''}"
    by = _by(each.handler, each.worker)
    seconds = each.seconds if each.handler else None
    return Moment(each.began, each.outcome, text, level, each.said, by, seconds, each.number)


def _dead(event: FoundEvent) -> Iterator[Moment]:
    letter = event.letter
    if letter is None:
        return
    text = f"became a dead letter{_after(letter.attempts)}: {letter.reason}"
    # Mostly the last attempt has said it already, a line above.
    last = event.past.last
    is_told = last is not None and letter.error.startswith(last.said.removesuffix("…"))
    yield Moment(letter.died_at / 1000, "died", text, "bad", "" if is_told else letter.error)
    if letter.held:
        times = "once" if letter.held == 1 else f"{letter.held:,} times"
        text = f"redelivered {times} since, too often or too soon to live again"
        yield Moment(letter.held_at / 1000, "held", text, "warn")
    if letter.by_hand:
        who = f" by {letter.replayed_by}" if letter.replayed_by else ""
        at = letter.replayed_at / 1000 or None
        yield Moment(at, "replayed", f"replayed{who}", "info", by=letter.replayed_by)
    elif event.payload is not None:
        text = "redelivered, and to be judged"
        yield Moment(event.received_at, "redelivered", text, "info")


def _now(event: FoundEvent) -> Iterator[Moment]:
    """What it waits for, or who has it."""
    if event.payload is None and event.state != "harmed":
        yield from _goes_on(event.place)
        return
    if event.throttled:
        times = "once" if event.throttled == 1 else f"{event.throttled:,} times"
        yield Moment(None, "throttled", f"throttled {times} by its organization's own system")
    if event.state == "running":
        yield Moment(None, "running", event.place.text, "info", by=event.claim.holder)
    else:
        yield Moment(None, "waits", event.place.text, "warn" if event.due_at else "")


def _goes_on(place: Place) -> Iterator[Moment]:
    """That its handler does, though it is over for the event."""
    if place.goes_on:
        yield Moment(None, "goes_on", place.goes_on.removeprefix("; "), "warn")


def _done(event: FoundEvent) -> Iterator[Moment]:
    """All that its mark tells of it, where it is done."""
    mark = event.mark
    # While it waits, or lies dead, another job may have finished the same event.
    if mark is None or mark.state != "done" or mark.job != event.job or event.letter:
        return
    roughly = ", to the minute" * bool(mark.told and mark.told.received_within > 1)
    # What came again may have done so before the end, or since.
    told_of, end = mark.past.happenings, _end(mark, event.place)
    later = [each for each in told_of if each.is_delivery and each.at > (end.at or inf)]
    happened = tuple(each for each in told_of if each not in later)
    past = structs.replace(mark.past, happenings=happened)
    yield from _story(past, mark.received_at, roughly)
    yield end
    yield from map(_happened, later)


def _end(mark: Mark, place: Place) -> Moment:
    told = mark.told
    if told is None:
        return Moment(None, "finished", place._replace(state="finished").text)
    # It is known to the second, and what came before it better.
    before = (each.at for each in mark.past.happenings if not each.is_delivery)
    last = max(before, default=0.0)
    if told.end != "handled":
        level: Level = "warn" if told.end == "discarded" else ""
        return Moment(max(told.at, last), told.end, _ENDS[told.end], level, by=mark.worker)
    later = " or a later one" * (told.attempts == MOST_ATTEMPTS)
    text = f"handled by attempt {told.attempts}{later}{_took(told.seconds)}"
    by = _by(mark.handler, mark.worker) or _codes(mark)
    began = max(told.at - told.seconds, last)
    return Moment(began, "handled", text, "good", "", by, told.seconds, told.attempts)


_ENDS: Final = {
    "discarded": "discarded: given up for good by hand",
    "ignored": "ignored: no handler is to have its type",
    "superseded": "superseded: a newer event of its kind stands for it",
}


def _codes(mark: Mark) -> str:
    """Whoever has names elsewhere, in a log say, can tell whose they are."""
    return f"code {mark.told.handler} on worker {mark.told.worker}" if mark.told else ""


def _by(handler: str, worker: str) -> str:
    return f"{handler}{' on ' if handler and worker else ''}{worker}"


def _took(seconds: float) -> str:
    return f" after {duration(seconds)}"


def _times(each: Happening) -> str:
    if each.number <= 1:
        return ""
    return f" {each.number:,} times, the last time here, the first {duration(each.seconds)} before"


def _after(attempts: int) -> str:
    return f" after {counted(attempts, 'attempt')}" if attempts else ""
