"""``make chaos``."""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tests.chaos import cluster_faults, single_faults
from tests.chaos.faults import name
from tests.chaos.others import Bounds
from tests.chaos.report import show
from tests.chaos.run import QUIET_WITHIN, Plan, run


@click.command()
@click.option(
    "--durability",
    type=click.Choice(["fsync", "replica", "both"]),
    default="both",
    show_default=True,
)
@click.option(
    "--cluster",
    "in_cluster",
    is_flag=True,
    help="On 3 primaries with 2 replicas each, in 6 partitions.",
)
@click.option("--faults", type=click.IntRange(1), default=56, show_default=True, help="A run's.")
@click.option(
    "--events",
    type=click.IntRange(1),
    default=26_000,
    show_default=True,
    help="Accepted in a run, at least.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1),
    default=130.0,
    show_default=True,
    help="Events begun a second.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Seconds between two faults.",
)
@click.option(
    "--quiet-within",
    type=click.FloatRange(0),
    default=QUIET_WITHIN,
    show_default=True,
    help="Seconds after the last fault in which everything has to end.",
)
@click.option(
    "--others-within",
    type=click.FloatRange(0),
    default=Bounds().within,
    show_default=True,
    help="Seconds by which a fault of a cluster may delay answers to others, beyond twice.",
)
@click.option(
    "--others-refused",
    type=click.FloatRange(0, 1),
    default=Bounds().refused,
    show_default=True,
    help="The share of answers to others that may be refusals meanwhile.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(
        sorted(map(name, {*cluster_faults.REQUIRED, *chain(*single_faults.REQUIRED.values())}))
    ),
    help="This kind of fault and no others; may be said several times.",
)
@click.option("--partial", is_flag=True, help="What is not exercised is told, and fails nothing.")
@click.option("--seed", type=click.IntRange(0), help="Repeat a run's draws; default: new.")
def main(
    *,
    durability: str,
    faults: int,
    seed: int | None,
    others_within: float,
    others_refused: float,
    **options: Any,
) -> None:
    """Break everything that can break while events come in; exit code 1 if a promise breaks."""
    seed = random.SystemRandom().randrange(100_000) if seed is None else seed
    options["bounds"] = Bounds(others_within, others_refused)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    held = True
    for kind in ("fsync", "replica") if durability == "both" else (durability,):
        where = "a cluster, " if options["in_cluster"] else ""
        console.rule(f"{where}DURABILITY={kind}, seed {seed}")
        held &= _run(Plan(kind, faults, seed=seed, **options), console)
    raise SystemExit(0 if held else 1)


def _run(plan: Plan, console: Console) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="sellfern-chaos-"))
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - began:7.1f} s  {text}", markup=False)

    verdict = asyncio.run(run(plan, folder, say))
    holds = verdict.holds or (plan.partial and not verdict.is_broken)
    show(console, verdict, holds=holds)
    if holds:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        console.print(f"The ledger and the logs are in {folder}", markup=False)
    return holds


if __name__ == "__main__":
    main()
