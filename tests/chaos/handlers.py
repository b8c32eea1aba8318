"""The handlers of the workers under fire: they write down what they do, in two places.

The state is the product's. The file is a place of their own, one a process: what it holds has
happened, whether it was committed or not.
"""

import asyncio
import json
import os
import signal
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Final, NoReturn, TextIO

import msgspec

from worker import Event, Handlers, Organization, Reject

handlers = Handlers()
_file: TextIO | None = None
_seen: ContextVar[str] = ContextVar("seen", default="")
"""Set by each event and reset by none: whoever finds it set sees another event's context."""

_BLOCKED_SECONDS: Final = 2.0
_STUCK_SECONDS: Final = 1.0
"""How long a cancelled handler goes on: longer than it may."""


class Task(msgspec.Struct):
    """What the sender asks for.

    Attributes:
        order: whose last event is kept.
        number: rises with the time at which the order's events happened.
        fails: how many attempts are to fail.
        reject: whether no attempt is to help.
        misdeed: what the first attempt does instead.
        seconds: how long it takes.
    """

    order: str
    number: int
    fails: int = 0
    reject: bool = False
    misdeed: str = ""
    seconds: float = 0.0


@handlers.on("order.updated")
async def act(event: Event[Task], organization: Organization) -> None:
    """Do it, and write it down."""
    _note(event, organization)
    await asyncio.sleep(event.data.seconds)
    if event.data.misdeed and event.attempt == 1:
        await _misbehave(event.data.misdeed)
    if event.data.reject:
        raise Reject("as asked")
    if event.attempt <= event.data.fails:
        raise RuntimeError("as asked")
    await organization.state.increment(f"applied/{event.id}")
    await organization.state.put_if_newer(
        f"orders/{event.data.order}", event.data.number, version=event.created_at
    )


class _Panic(BaseException):
    """No `Exception`, as what a Rust extension raises."""


async def _misbehave(misdeed: str) -> None:
    """Do what no handler should; where it comes back, the event is handled all the same."""
    match misdeed:
        case "panic":
            raise _Panic
        case "exit":
            sys.exit(3)
        case "cancel itself":
            _myself().cancel()
            await asyncio.sleep(60)
        case "swallow":
            await _swallow()
        case "block":
            time.sleep(_BLOCKED_SECONDS)  # noqa: ASYNC251  # the loop stands still
        case "terminate a child":
            await _terminate_a_child()
        case "exit in a child":
            await asyncio.gather(_exit())


def _myself() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _exit() -> NoReturn:
    sys.exit(3)


async def _swallow() -> NoReturn:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        until = time.monotonic() + _STUCK_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
    raise _Panic


async def _terminate_a_child() -> None:
    """The child inherits what wakes the loop when a signal comes."""
    child = os.fork()
    if not child:
        time.sleep(0.5)  # noqa: ASYNC251  # it is a process of its own
        os._exit(0)
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once


def _note(event: Event[Task], organization: Organization) -> None:
    global _file  # noqa: PLW0603  # one file a process, opened by its first event
    if _file is None:
        path = Path(os.environ["CHAOS_FOLDER"], f"handled-{os.getpid()}.jsonl")
        _file = path.open("a", encoding="utf-8", buffering=1)
    line = {
        "at": time.monotonic(),  # the machine's, so the same in every process
        "id": event.id,
        "organization": organization.id,
        "claimed": event.organization_id,
        "attempt": event.attempt,
        "order": event.data.order,
        "number": event.data.number,
        "context": _seen.get(),
    }
    _seen.set(event.id)
    _file.write(json.dumps(line) + "\n")
