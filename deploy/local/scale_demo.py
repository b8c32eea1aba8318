"""The scale demo: ten times the load and back, workers that follow, and an account at the end."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import click
import yaml
from rich.console import Console

from deploy.local import display, scale_report
from deploy.local.autoscaling import Rule, read_rule
from deploy.local.regulation import TIMES, Course, Ramp, Regulation
from deploy.local.stage import doing, perform, run_until_interrupted
from deploy.local.supervisor import ROOT
from deploy.local.system import System, running_system, scraper
from deploy.sellfern import Sellfern, simulator
from shared.observe import logs
from shared.sellfern.reference import load_default

SCALED_OBJECT: Final = ROOT / "deploy" / "kubernetes" / "base" / "scaling.yaml"

_STORY_SECONDS: Final = 640.0
"""How long the rise and the fall take on the ScaledObject's clock; here it is a faster one."""

# Few, so that a load which this machine bears needs many workers.
_SLOTS: Final = 4
_ITS_SLOTS: Final = 100
"""Events that a worker handles at once, here and by default."""

_ORGANIZATIONS: Final = ("org_amber", "org_birch", "org_cedar")
# The ingress's drain has the same name, and may not be shorter than its time for bodies.
_SETTINGS: Final = {
    "WORKER_HANDLERS": "deploy.local.demo_handlers:slow_handlers",
    "WORKER_CONCURRENCY": str(_SLOTS),
    "DRAIN_SECONDS": "1s",
    "BODY_TIMEOUT": "1s",
}
_PATIENCE: Final = 60.0
_MOST_KEPT: Final = 1_000_000


@click.command(context_settings={"show_default": True})
@click.option(
    "--seconds", type=click.FloatRange(10, 600), default=80.0, help="For the rise and the fall."
)
@click.option(
    "--peak",
    type=click.FloatRange(10, 1000),
    default=150.0,
    help=f"Events a second; a {TIMES}th of it before and after.",
)
@click.option(
    "--most", type=click.IntRange(2, 20), default=12, help="Workers that this machine bears."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="The SVG file to write; default: a temporary one.",
)
def main(**options: Any) -> None:
    """Let the load rise tenfold and fall again, and let workers follow it.

    A supervisor on this machine begins and dismisses workers by the rule of the ScaledObject in
    deploy/kubernetes. Exit code 0 if every accepted event was handled once, 1 if not, 2 if it
    could not be run, 130 after Ctrl-C. Whatever happens, all that was started is stopped.
    """
    unbalanced = "what was accepted is not what was handled"
    raise SystemExit(perform("scale-demo", partial(_play, **options), unbalanced=unbalanced))


def _play(folder: Path, *, seconds: float, peak: float, most: int, plot: Path | None) -> bool:
    """From the rule to the verdict, whether it balances; everything is stopped afterwards."""
    speed = _STORY_SECONDS / seconds
    rule = local_rule(speed, most)
    console = display.console()
    display.show(console, scale_report.opening(rule, peak, seconds, speed, _SLOTS))
    endpoints = [(name, name, _secret(name)) for name in _ORGANIZATIONS]
    with running_system(folder, endpoints, _SETTINGS, workers=rule.fewest) as system:
        course, sellfern = run_until_interrupted(_observe(system, rule, Ramp(peak, seconds)))
        with doing("asking the worker's commands"):
            found = scale_report.evidence(sellfern, system, _ORGANIZATIONS)
    wrong = list(scale_report.complaints(found))
    path = _write_plot(scale_report.plot(course, rule), plot)
    console.print(scale_report.decisions(course))
    display.show(console, scale_report.verdict(found, wrong, course))
    console.print(f"  The plot is in {path}", soft_wrap=True)
    click.echo("  Everything is stopped.")
    return not wrong


def local_rule(speed: float, most: int) -> Rule:
    """The ScaledObject's rule for small workers and a clock that runs faster."""
    # The same rule in the same proportions: less time and smaller workers, so that a few events a
    # second do here what thousands do there.
    return deployed_rule().faster(speed).for_workers(_SLOTS / _ITS_SLOTS).at_most(most)


def deployed_rule() -> Rule:
    """The rule of the very file that is deployed, so that the demo shows what Kubernetes does."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(SCALED_OBJECT.read_text()))
    (found,) = (each for each in objects if each["kind"] == "ScaledObject")
    return read_rule(found)


async def _observe(system: System, rule: Rule, ramp: Ramp) -> tuple[Course, Sellfern]:
    """Play the load and the supervisor; how it went, and Sellfern as it knows it."""
    logs.configure(level="error", fmt="console")  # Sellfern's, which runs in this process
    async with _sellfern(system) as sellfern, scraper() as session:
        with scale_report.progress(Console(stderr=True)) as show:
            regulation = Regulation(system, rule, sellfern=sellfern, session=session, show=show)
            await regulation.follow(ramp)
            await regulation.settle(_PATIENCE)
        return regulation.course, sellfern


@contextlib.asynccontextmanager
async def _sellfern(system: System) -> AsyncIterator[Sellfern]:
    """Sellfern with an endpoint for each organization; nothing happens yet."""
    keys = (f"sk_{name}:{name}" for name in _ORGANIZATIONS)
    events = tuple(load_default().available_events())
    # It remembers every delivery, since the account asks each of them; by default it forgets the
    # oldest.
    async with simulator(*keys, kept=_MOST_KEPT, backoff=0.2, backoff_cap=2.0) as sellfern:
        for name in _ORGANIZATIONS:
            sellfern.endpoints.create(name, system.url + name, events, secret=_secret(name))
        yield sellfern


def _secret(organization: str) -> str:
    return f"whsec_{organization}"


def _write_plot(content: str, path: Path | None) -> Path:
    if path is None:
        # It stays: it is what somebody wants to look at afterwards.
        with NamedTemporaryFile(prefix="sellfern-scale-", suffix=".svg", delete=False) as file:
            path = Path(file.name)
    path.write_text(content, encoding="utf-8")
    return path
