"""The demo: Sellfern played, one ingress, two workers, and an account at the end."""

import random
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from deploy.local import display
from deploy.local.account import Evidence, account, evidence
from deploy.local.delivery import deliver
from deploy.local.plan import Plan
from deploy.local.stage import doing, keep_running, perform, run_until_interrupted
from deploy.local.system import System, running_system
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
