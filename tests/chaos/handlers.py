"""The handlers of the workers under fire: they write down what they do, in two places.

The state is the product's. The file is a place of their own, one a process: what it holds has
happened, whether it was committed or not.
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import TextIO

import msgspec

from worker import Event, Handlers, Organization, Reject

handlers = Handlers()
_file: TextIO | None = None


class Task(msgspec.Struct):
    """What the sender asks for.

    Attributes:
        order: whose last event is kept.
        number: rises with the time at which the order's events happened.
        fails: how many attempts are to fail.
        reject: whether no attempt is to help.
        seconds: how long it takes.
    """

    order: str
    number: int
    fails: int = 0
    reject: bool = False
    seconds: float = 0.0


@handlers.on("order.updated")
async def act(event: Event[Task], organization: Organization) -> None:
    """Do it, and write it down."""
    await asyncio.sleep(event.data.seconds)
    _note(event, organization)
    if event.data.reject:
        raise Reject("as asked")
    if event.attempt <= event.data.fails:
        raise RuntimeError("as asked")
    await organization.state.increment(f"applied/{event.id}")
    await organization.state.put_if_newer(
        f"orders/{event.data.order}", event.data.number, version=event.created_at
    )


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
    }
    _file.write(json.dumps(line) + "\n")
