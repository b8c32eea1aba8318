"""``python -m tests.siege``: attacks an ingress in every way, and prints what came of it."""

import asyncio
from collections.abc import Sequence

import click

from tests.siege.attackers import ATTACKS
from tests.siege.genuine import Tally
from tests.siege.siege import Besieged

_TITLES = ("attack", "connections", "genuine 202 of sent", "p99 ms", "CPU", "RSS MiB", "after")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(ATTACKS)), help="May be repeated.")
@click.option("--seconds", default=6.0, show_default=True, help="For each attack.")
def main(*, only: Sequence[str], seconds: float) -> None:
    """Attack an ingress of its own on loopback with each attack, one after the other."""
    click.echo("| " + " | ".join(_TITLES) + " |\n" + "|---" * len(_TITLES) + "|")
    for name in [None, *(only or ATTACKS)]:
        asyncio.run(_attack(name, seconds))


async def _attack(name: str | None, seconds: float) -> None:
    async with Besieged.begun() as ingress:
        if name is None:
            _show("none", "", _shares(await ingress.quiet(seconds)), "", "", "")
            return
        outcome = await ingress.attacked(name, seconds)
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
