"""Sends the deliveries of a plan, and waits until the workers are done with them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout
from rich.console import Console

from deploy.local.progress import Figures, Goals, Show, progress
from deploy.local.scrape import outcomes, total
from deploy.local.sender import ACCEPTED, KNOWN, Sender
from deploy.local.system import System
from deploy.local.traffic import REFUSED, Plan

_LOOK_SECONDS: Final = 0.2
_SCRAPE_SECONDS: Final = 5.0


async def deliver(
    script: Plan, system: System, *, patience: float
) -> tuple[Sender, Mapping[str, int]]:
    """Send the deliveries and wait for the workers; the sender, and the ingress's outcomes.

    Args:
        script: what is sent.
        system: where to.
        patience: seconds without any progress until it waits no longer.

    Raises:
        ProgramError: a program of the system has ended.
    """
    sender = Sender(system.url)
    goals = Goals(
        sent=len(script.deliveries),
        accepted=sum(each.event.kind not in REFUSED for each in script.deliveries),
        handled=sum(event.is_applied for event in script.events),
    )
    async with ClientSession(timeout=ClientTimeout(total=_SCRAPE_SECONDS)) as session:
        with progress(Console(stderr=True), goals) as show:
            async with _sending(sender, script) as sending:
                await _watch(
                    system,
                    sender,
                    sending=sending,
                    show=show,
                    session=session,
                    patience=patience,
                )
        return sender, await outcomes(session, system.ingress_admin, "sellfern_ingress_requests")


@contextlib.asynccontextmanager
async def _sending(sender: Sender, script: Plan) -> AsyncIterator[asyncio.Task[None]]:
    """The deliveries on their way; what isn't sent at the end of the block never is."""
    sending = asyncio.create_task(sender.send(script.deliveries))
    try:
        yield sending
    finally:
        sending.cancel()
        await asyncio.wait([sending])


async def _watch(
    system: System,
    sender: Sender,
    *,
    sending: asyncio.Task[None],
    show: Show,
    session: ClientSession,
    patience: float,
) -> None:
    """Return when everything that was accepted has ended, or nothing has moved for too long."""
    figures, moved_at = Figures(), time.monotonic()
    while time.monotonic() < moved_at + patience:
        system.supervisor.check()
        before = figures
        with contextlib.suppress(ClientError, TimeoutError):  # it goes on, or check will tell
            figures = await _figures(system, sender, session)
        show(figures)
        if figures.moved != before.moved:
            moved_at = time.monotonic()
        if sending.done():
            sending.result()
            if figures.ended >= sender.by_answer[ACCEPTED]:
                return
        await asyncio.sleep(_LOOK_SECONDS)


async def _figures(system: System, sender: Sender, session: ClientSession) -> Figures:
    answers = sender.by_answer
    accepted = answers[ACCEPTED] + answers[KNOWN]
    ended = total(
        [await outcomes(session, port, "sellfern_events") for port in system.worker_admins]
    )
    return Figures(
        sent=sender.sent,
        accepted=accepted,
        refused=answers.total() - accepted,
        handled=ended["handled"],
        duplicates=ended["duplicate"] + ended["held"],
        retried=ended["retried"],
        dead=ended["dead"],
    )
