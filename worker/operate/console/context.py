"""What the pages of the console share, and the session of a request."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from shared.endpoints.endpoint import nearest
from shared.endpoints.text import endpoint_names
from shared.observe.structlog_alone import FilteringBoundLogger
from shared.queue.actions import Action, log_to, record
from shared.queue.partitions import Partitions
from shared.queue.reach import Reach, sentences
from worker.operate.asking import has_footprint
from worker.operate.console.guesses import Guesses
from worker.operate.console.runs import Runs
from worker.operate.console.sampling import Sampler
from worker.operate.console.sessions import Session, Sessions
from worker.operate.console.settings import ConsoleSettings


@dataclass(frozen=True, slots=True)
class Console:
    """The program's parts.

    Attributes:
        settings: how it was started.
        partitions: all that it needs.
        sampler: looks at the system.
        sessions: who uses it.
        guesses: who guesses the token.
        runs: replays and discards of many dead letters.
        log: where actions are told.
    """

    settings: ConsoleSettings
    partitions: Partitions
    sampler: Sampler
    sessions: Sessions
    guesses: Guesses
    runs: Runs
    log: FilteringBoundLogger


_FILE_SECONDS: Final = 2.0  # it may hang
_MOST_NAMES: Final = 5000  # among which the nearest is looked for: 15 us each, of everybody's time

CONSOLE: Final[web.AppKey[Console]] = web.AppKey("console", Console)
SESSION: Final[web.RequestKey[Session]] = web.RequestKey("session", Session)
"""Where the guard puts the session of a request."""


REACH: Final[web.RequestKey[Reach]] = web.RequestKey("reach", Reach)
"""Where a request has what it has found of the partitions."""


def console_of(request: web.Request) -> Console:
    """The program that answers this request."""
    return request.app[CONSOLE]


def reach_of(request: web.Request) -> Reach:
    """The partitions, as a request finds them: for those that were away just now none waits."""
    console = console_of(request)
    if REACH not in request:
        request[REACH] = Reach(console.partitions, console.sampler.missing)
    return request[REACH]


def missing_in(request: web.Request) -> list[str]:
    """Which partitions what a request shows tells nothing of, and why."""
    seen = {each.partition: each for each in console_of(request).sampler.missing}
    found = request[REACH].missing if REACH in request else []
    return sentences((seen | {each.partition: each for each in found}).values())


async def doubt_about(request: web.Request, organization: str) -> str:
    """Why it may be a slip of the hand; empty where something knows it."""
    console = console_of(request)
    if console.sampler.organization(organization):
        return ""
    # Not by all keys of Redis, which a command walks over: somebody waits for this page.
    partition = await console.partitions.living(organization)
    if await has_footprint(partition, organization, is_quick=True):
        return ""
    try:
        async with asyncio.timeout(_FILE_SECONDS):
            file = console.settings.common.endpoints_file
            endpoints = await asyncio.to_thread(endpoint_names, file)
    except TimeoutError:
        return f"Redis doesn't know {organization}, and the endpoints file isn't read in time."
    if organization in endpoints.values():
        return ""
    if organization in endpoints:
        return f"{organization} is an endpoint; its organization is {endpoints[organization]}."
    names, hint = [*endpoints.values(), *endpoints], ""
    if len(names) <= _MOST_NAMES:
        hint = await asyncio.to_thread(nearest, organization, names)
    return f"Nobody knows {organization}: neither Redis nor the endpoints file{hint or '.'}"


def session_of(request: web.Request) -> Session | None:
    """Whose request it is; ``None`` for what anybody may see."""
    return request.get(SESSION)


def who(request: web.Request) -> str:
    """Who asks, by the name that they have given."""
    session = session_of(request)
    return session.who if session else ""


async def tell(request: web.Request, action: str, **about: Any) -> None:
    """Log and keep what somebody has done.

    Args:
        request: that has done it.
        action: what.
        about: on what, and what came of it, by the names of `Action`.
    """
    done = Action(action, "console", who(request), request.remote or "", **about)
    await record(reach_of(request), done, log_to(console_of(request).log))
