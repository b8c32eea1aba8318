"""What a worker is at, looked at from the thread of its watchdog: an event pays nothing for it."""

import time
from collections.abc import Iterable
from time import perf_counter
from typing import Any, Final

from worker.at_work import AtWork, Doing
from worker.outcomes import Cause
from worker.pipeline.attempts import Attempt, Attempts
from worker.pipeline.work import Work
from worker.tracebacks import stack_of

LONG: Final = 1.0
"""Seconds from which on a handler is told of: most are over long before anybody could read it."""

_MOST: Final = 50
_LOOKED_INTO: Final = 10
"""Of those that take longest, so many stacks are looked at."""

_LONG_ENOUGH: Final = 5.0
"""Seconds from which on one is: it costs some fifty microseconds each time."""

_LONGEST: Final = 2_000
"""Characters of a stack."""


def at_work(works: Iterable[Work], attempts: Attempts, blocking: Doing | None) -> AtWork:
    """What takes long now; may be asked in any thread.

    Args:
        works: the events that the worker holds.
        attempts: its handlers, among which are some that are stuck.
        blocking: what keeps the loop from turning, if anything does.
    """
    began = [each for work in works if (each := _long(work)) is not None]
    # The loop goes on meanwhile; Python copies a set, as `works` a dictionary, in one step.
    stuck = sorted(attempts.stuck, key=lambda attempt: attempt.began)
    others = [each for each in began if each not in stuck]
    others.sort(key=lambda attempt: attempt.began)
    # What blocks runs long as well, and would be told twice.
    told = "" if blocking is None else blocking.job
    long = [each for each in (*stuck, *others) if each.work.claim.job != told]
    doing = [_doing(attempt, attempts, n < _LOOKED_INTO) for n, attempt in enumerate(long[:_MOST])]
    if blocking is not None:
        doing.insert(0, blocking)
    return AtWork(round(time.time(), 3), doing, max(0, len(long) - _MOST))


def blocking(work: Work | None, task: str, seconds: float, stack: str) -> Doing:
    """What keeps the loop from turning.

    Args:
        work: the event whose code does, if known.
        task: the name of the task, where it isn't.
        seconds: for so long.
        stack: where the loop's thread is.
    """
    named = {"job": "", "handler": _text(task)} if work is None else _naming(work)
    since = round(time.time() - seconds, 3)
    return Doing(**named, since=since, state="blocking", stack=_text(stack)[:_LONGEST])


def _long(work: Work) -> Attempt | None:
    """Its attempt, where that has taken long."""
    attempt = work.attempt
    return attempt if attempt is not None and perf_counter() - attempt.began > LONG else None


def _doing(attempt: Attempt, attempts: Attempts, is_among_the_first: bool) -> Doing:  # noqa: FBT001
    seconds = perf_counter() - attempt.began
    state = "running" if attempt.cause is Cause.NOBODY else "cancelled"
    stack = ""
    if is_among_the_first and seconds > _LONG_ENOUGH:
        stack = _text(attempts.masks.own.hide(stack_of(attempt.task)))[:_LONGEST]
    return Doing(
        **_naming(attempt.work),
        since=round(time.time() - seconds, 3),
        state="stuck" if attempt in attempts.stuck else state,
        stack=stack,
    )


def _naming(work: Work) -> dict[str, Any]:
    return {name: _text(value) for name, value in work.naming().items()}


def _text(value: object) -> str:
    """What Redis takes: half a surrogate, as of a stock producer's id or a file's name, is none."""
    return str(value or "").encode(errors="replace").decode()
