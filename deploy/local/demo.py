"""The demo: Sellfern played, one ingress, two workers, and an account at the end."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import click
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from rich.console import Console

from deploy.local import display
from deploy.local.account import Evidence, account, evidence
from deploy.local.display import Figures, Show, progress
from deploy.local.plan import ACCEPTED, REFUSED, Delivery, Plan, accepted
from deploy.local.stage import doing, keep_running, perform, run_until_interrupted
from deploy.local.system import System, outcomes, running_system, scraper
from deploy.local.traffic import FEWEST_EVENTS, plan
from shared.settings.config import MOST_PARTITIONS

_MOST_EVENTS: Final = 200_000
_PAUSE_SECONDS: Final = 0.5
_SEEDS: Final = 100_000
# What differs from the defaults: an event that failed comes back while somebody is looking.
_SETTINGS: Final = {
    "WORKER_HANDLERS": "deploy.local.demo_handlers:handlers",
    "BACKOFF_BASE": "200ms",
    "BACKOFF_CAP": "1s",
}

_SIDE_BY_SIDE: Final = 64
_ANSWER_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_LOOK_SECONDS: Final = 0.2


@click.command(context_settings={"show_default": True})
@click.option(
    "--events",
    type=click.IntRange(FEWEST_EVENTS, _MOST_EVENTS),
    default=2000,
    help="How many events Sellfern has.",
)
@click.option("--seed", type=click.IntRange(0), help="Repeat an earlier run's plan; default: new.")
@click.option("--workers", type=click.IntRange(1, 16), default=2)
@click.option(
    "--partitions",
    type=click.IntRange(1, MOST_PARTITIONS),
    default=1,
    help="How many queues of their own the organizations are dealt to, in one Redis.",
)
@click.option(
    "--patience",
    type=click.FloatRange(1),
    default=30.0,
    help="Seconds without any progress until it gives up.",
)
@click.option("--stay", is_flag=True, help="Keep everything running afterwards, to look around.")
def main(*, seed: int | None, **options: Any) -> None:
    """Send signed events through one ingress and two workers, and balance the account.

    Exit code 0 if the account balances to the last event, 1 if it doesn't, 2 if the demo could
    not be run, 130 after Ctrl-C. Whatever happens, all that was started is stopped.
    """
    if seed is None:
        # Small enough to be typed again.
        seed = random.randrange(_SEEDS)
    unbalanced = f"the account doesn't balance; --seed {seed} makes the same plan"
    play = partial(_play, seed=seed, **options)
    raise SystemExit(perform("demo", play, unbalanced=unbalanced))


def _play(
    folder: Path,
    *,
    events: int,
    seed: int,
    workers: int,
    partitions: int,
    patience: float,
    stay: bool,
) -> bool:
    """From the plan to the verdict, whether it balances; everything is stopped afterwards."""
    script = plan(events, seed=seed, now=datetime.now(UTC))
    console = display.console()
    display.show(console, display.opening(script))
    # Made up for this time, so that a demo never signs with anybody's secret.
    endpoints = [(each.endpoint, each.id, each.secret) for each in script.organizations]
    settings = {**_SETTINGS, "PARTITIONS": str(partitions)}
    with running_system(folder, endpoints, settings, workers=workers) as system:
        display.show(console, display.places(system))
        found = _observe(script, system, patience)
        drawn_up = account(script, found)
        display.show(console, [display.account_table(drawn_up), *display.projection(script, found)])
        display.show(console, display.partitions(script, found))
        display.show(console, display.verdict(drawn_up))
        if stay:
            for line in display.look_around(system, script):
                # Each is to be copied as it is.
                console.print(line, soft_wrap=True)
            keep_running(system.supervisor.check)
    hint = "." if stay else "; `make demo ARGS=--stay` keeps it running."
    click.echo(f"  Everything is stopped{hint}")
    return drawn_up.balances


def _observe(script: Plan, system: System, patience: float) -> Evidence:
    """Send everything, wait until it has ended, and ask what became of it."""
    sender, ingress = run_until_interrupted(deliver(script, system, patience=patience))
    deadline = time.monotonic() + patience
    while True:
        with doing("asking the worker's commands"):
            found = evidence(script, system, sender.answers, sender.unanswered, ingress)
        # Only where an answer was lost: then the sender doesn't know how many there are to wait
        # for.
        if not (found.waiting and sender.unanswered and time.monotonic() < deadline):
            return found
        time.sleep(_PAUSE_SECONDS)


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
