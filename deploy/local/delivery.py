"""Sends the deliveries of a plan, and waits until the workers are done with them."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from rich.console import Console

from deploy.local.display import Figures, Show, progress
from deploy.local.plan import ACCEPTED, REFUSED, Delivery, Plan, accepted
from deploy.local.system import System, outcomes, scraper

_SIDE_BY_SIDE: Final = 64
_ANSWER_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


class Sender:
    """Plays Sellfern.

    Args:
        url: of the ingress, up to the endpoint's id.
        side_by_side: how many requests are on their way at once.

    Attributes:
        sent: deliveries that were begun.
        answers: what became of each by its number: ``accepted``, ``known``, or the code of the
            error.
        unanswered: how often a request had to be sent again, after a 5xx or no answer at all.
    """

    def __init__(self, url: str, *, side_by_side: int = _SIDE_BY_SIDE) -> None:
        self._url = url
        self._side_by_side = side_by_side
        self.sent = 0
        self.answers: dict[int, str] = {}
        self.unanswered = 0

    @property
    def by_answer(self) -> Counter[str]:
        """How many deliveries got each answer."""
        return Counter(self.answers.values())

    @property
    def accepted(self) -> int:
        """How many deliveries were accepted, new or known."""
        return accepted(self.by_answer)

    async def send(self, deliveries: Iterable[Delivery]) -> None:
        """Begin the deliveries in their order; returns when each has its answer."""
        # All take from one line, so that deliveries begin in their order.
        line = iter(deliveries)
        async with (
            ClientSession(
                connector=TCPConnector(limit=self._side_by_side),
                timeout=ClientTimeout(total=_ANSWER_SECONDS),
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(self._side_by_side):
                tasks.create_task(self._work_off(session, line))

    async def _work_off(self, session: ClientSession, line: Iterator[Delivery]) -> None:
        for delivery in line:
            self.sent += 1
            self.answers[delivery.number] = await self._deliver(session, delivery)

    async def _deliver(self, session: ClientSession, delivery: Delivery) -> str:
        """Send it until somebody has decided; no schedule is published, so a short one is used."""
        pause = _FIRST_PAUSE
        while True:
            with contextlib.suppress(ClientError, OSError, TimeoutError):
                # Sellfern, too, sends again after a 5xx or no answer, and only then.
                answer = await self._post(session, delivery)
                if answer is not None:
                    return answer
            self.unanswered += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _post(self, session: ClientSession, delivery: Delivery) -> str | None:
        url = self._url + delivery.endpoint
        async with session.post(url, data=delivery.body, headers=delivery.headers) as response:
            text = await response.text(errors="replace")
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return None
            return _answer(response.status, text)


def _answer(status: int, text: str) -> str:
    """What the body says, or the status where it says nothing."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(text)
        # An answer of somebody else in between, as a proxy's page, has no such fields.
        is_success = status < HTTPStatus.BAD_REQUEST
        return str(answer["data"]["status"] if is_success else answer["error"]["code"])
    return f"http_{status}"


_LOOK_SECONDS: Final = 0.2


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
    goals = Figures(
        sent=len(script.deliveries),
        accepted=sum(each.event.kind not in REFUSED for each in script.deliveries),
        handled=sum(event.is_applied for event in script.events),
    )
    async with scraper() as session:
        with progress(Console(stderr=True), goals) as show:
            async with _sending(sender, script) as sending:
                await _watch(system, sender, sending, show, session, patience=patience)
        return sender, await outcomes(session, [system.ingress_admin], "sellfern_ingress_requests")


@contextlib.asynccontextmanager
async def _sending(sender: Sender, script: Plan) -> AsyncIterator[asyncio.Task[None]]:
    """The deliveries on their way; what isn't sent at the end of the block never is."""
    sending = asyncio.create_task(sender.send(script.deliveries))
    try:
        yield sending
    finally:
        sending.cancel()
        # A cancelled task still runs for a moment, since it has connections to close.
        await asyncio.wait([sending])


async def _watch(
    system: System,
    sender: Sender,
    sending: asyncio.Task[None],
    show: Show,
    session: ClientSession,
    *,
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
        # Patience counts from the last progress, since nobody knows how fast this machine is.
        if figures != before:
            moved_at = time.monotonic()
        if sending.done():
            # A mistake in the sender would otherwise look like events that were never accepted.
            sending.result()
            if figures.ended >= sender.by_answer[ACCEPTED]:
                return
        await asyncio.sleep(_LOOK_SECONDS)


async def _figures(system: System, sender: Sender, session: ClientSession) -> Figures:
    taken = sender.accepted
    ended = await outcomes(session, system.worker_admins, "sellfern_events")
    return Figures(
        sent=sender.sent,
        accepted=taken,
        refused=len(sender.answers) - taken,
        handled=ended["handled"],
        duplicates=ended["duplicate"] + ended["held"],
        retried=ended["retried"],
        dead=ended["dead"],
    )
