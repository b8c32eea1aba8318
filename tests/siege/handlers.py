"""The handlers of a worker under attack: they note when each event reached them."""

import os
import time
from pathlib import Path
from typing import Any

from tests.siege.worker_attackers import DEAD
from worker import Event, Handlers, Organization

SEEN = "SIEGE_SEEN"
"""The environment variable with the file that they note it in."""

handlers = Handlers()


def _note(event: Event[Any]) -> None:
    with Path(os.environ[SEEN]).open("a") as seen:
        seen.write(f"{event.id} {time.time()}\n")


@handlers.on("*")
async def handle(event: Event[Any], organization: Organization) -> None:
    """Handle at once."""
    _note(event)


@handlers.on(DEAD)
async def fail(event: Event[Any], organization: Organization) -> None:
    """Fail as a handler with a fault does."""
    _note(event)
    raise ValueError
