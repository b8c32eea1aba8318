"""``python -m tests.siege``: attacks an ingress in every way, and prints what came of it."""

import asyncio
from collections.abc import Sequence

import click

from tests.siege.attackers import ATTACKS
from tests.siege.genuine import Tally
from tests.siege.siege import Besieged
from tests.siege.worked import BesiegedWorker
from tests.siege.worker_attackers import WORKER_ATTACKS

_NAMES = [*ATTACKS, *WORKER_ATTACKS]
_TITLES = ("attack", "connections", "genuine 202 of sent", "p99 ms", "CPU", "RSS MiB", "after")

_WORKER_TITLES = (
    *("attack", "connections", "healthy events handled", "p99 of their wait ms"),
    *("loop stood ms", "RSS MiB", "Redis", "runs of the captured", "held", "attackers' handled"),
)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(_NAMES), help="May be repeated.")
@click.option("--seconds", default=6.0, show_default=True, help="For each attack.")
@click.option("--megabytes", type=float, help="What attackers may send in a second; else no bound.")
def main(*, only: Sequence[str], seconds: float, megabytes: float | None) -> None:
    """Attack programs of its own on loopback with each attack, one after the other."""
    rate = None if megabytes is None else megabytes * 1e6
    chosen = only or _NAMES
    _begin(_TITLES)
    for name in [None, *(name for name in chosen if name in ATTACKS)]:
        asyncio.run(_attack(name, seconds, rate))
    if of_workers := [name for name in chosen if name in WORKER_ATTACKS]:
        click.echo()
        _begin(_WORKER_TITLES)
        for name in of_workers:
            asyncio.run(_attack_worker(name, seconds, rate))


def _begin(titles: Sequence[str]) -> None:
    click.echo("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")


async def _attack_worker(name: str, seconds: float, rate: float | None) -> None:
    async with BesiegedWorker.begun() as worker:
        outcome = await worker.attacked(name, seconds, rate)
    attack = WORKER_ATTACKS[name]
    handled = f"{len(outcome.waits)} of {outcome.sent}"
    waits = (f"{outcome.p99 * 1000:.0f}", f"{outcome.stood * 1000:.0f}")
    runs = (str(outcome.captured_runs), str(outcome.held), str(outcome.others))
    _show(
        f"{name}: {attack.about}",
        str(attack.connections),
        (handled, waits[0]),
        waits[1],
        f"{outcome.rss / 2**20:.0f}",
        f"{outcome.filled:.0%}",
        *runs,
    )


async def _attack(name: str | None, seconds: float, rate: float | None) -> None:
    async with Besieged.begun() as ingress:
        if name is None:
            _show("none", "", _shares(await ingress.quiet(seconds)), "", "", "")
            return
        outcome = await ingress.attacked(name, seconds, rate)
        _show(
            f"{name}: {ATTACKS[name].about}",
            str(ATTACKS[name].connections),
            _shares(outcome.tallies),
            f"{outcome.cpu:.0%}",
            f"{outcome.rss / 2**20:.0f}",
            _shares(outcome.after)[0],
        )


def _shares(tallies: dict[str, Tally]) -> tuple[str, str]:
    """Who got what, and how long it took."""
    got = []
    for kind, tally in tallies.items():
        others = {answer: times for answer, times in tally.answers.items() if answer != "202"}
        got.append(f"{kind} {tally.accepted}/{tally.sent}{f' {others}' if others else ''}")
    return ", ".join(got), f"{tallies['new'].p99 * 1000:.0f}"


def _show(name: str, connections: str, got: tuple[str, str], *rest: str) -> None:
    click.echo("| " + " | ".join((name, connections, *got, *rest)) + " |")


if __name__ == "__main__":
    main()
