"""What the pages of the console share, and the session of a request."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.partition import Partition
from worker.operate.console.runs import Runs
from worker.operate.console.sampling import Sampler
from worker.operate.console.sessions import Session, Sessions
from worker.operate.console.settings import ConsoleSettings


@dataclass(frozen=True, slots=True)
class Console:
    """The program's parts.

    Attributes:
        settings: how it was started.
        partition: all that it needs.
        sampler: looks at the system.
        sessions: who uses it.
        runs: replays and discards of many dead letters.
        log: where actions are told.
    """

    settings: ConsoleSettings
    partition: Partition
    sampler: Sampler
    sessions: Sessions
    runs: Runs
    log: FilteringBoundLogger


CONSOLE: Final[web.AppKey[Console]] = web.AppKey("console", Console)
SESSION: Final[web.RequestKey[Session]] = web.RequestKey("session", Session)
"""Where the guard puts the session of a request."""


def console_of(request: web.Request) -> Console:
    """The program that answers this request."""
    return request.app[CONSOLE]


def session_of(request: web.Request) -> Session | None:
    """Whose request it is; ``None`` for what anybody may see."""
    return request.get(SESSION)


def tell(request: web.Request, action: str, **fields: object) -> None:
    """Log what somebody has done."""
    session = session_of(request)
    console_of(request).log.info(
        "console_action",
        action=action,
        who=session.who if session else None,
        address=request.remote,
        **fields,
    )
